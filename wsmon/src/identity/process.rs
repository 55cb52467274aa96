//! From a process id to a name, a container and a pod, by `/proc`.

use std::collections::HashMap;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use procfs::process::Stat;

use super::Process;
use super::cgroup::placement;
use crate::decode::sanitise::clean_to;

/// Processes that are remembered.
const MAX_REMEMBERED: usize = 4096;
/// Characters of a name that are kept.
const MAX_NAME: usize = 64;

/// Reads processes, and remembers them.
#[derive(Debug)]
pub struct Processes {
    proc_root: PathBuf,
    boot_ms: Option<u64>,
    remembered: HashMap<Incarnation, Process>,
}

/// What a process id means: it is used again, and `exec` makes another program of a process. The
/// start time tells the one, the kernel's name of the thread the other.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Incarnation {
    pid: u32,
    start_ticks: u64,
    comm: String,
}

impl Default for Processes {
    fn default() -> Self {
        Self::new("/proc".into())
    }
}

impl Processes {
    /// `proc_root` is where the host's proc file system is mounted.
    pub fn new(proc_root: PathBuf) -> Self {
        Self {
            proc_root,
            boot_ms: procfs::boot_time_secs().ok().map(|seconds| seconds * 1000),
            remembered: HashMap::new(),
        }
    }

    /// The process. `executable` is the name of its executable by the kernel, cut to 31 bytes and
    /// empty if not known: what is left of a process that is gone.
    pub fn get(&mut self, pid: u32, executable: &[u8]) -> Process {
        self.find(pid, executable)
            .unwrap_or_else(|| match executable {
                [] => Process::unknown(Some(pid)),
                name => Process {
                    pid: Some(pid),
                    name: clean_to(name, MAX_NAME),
                    ..Process::default()
                },
            })
    }

    fn find(&mut self, pid: u32, executable: &[u8]) -> Option<Process> {
        let process = self.open(pid)?;
        let stat = process.stat().ok()?;
        let incarnation = Incarnation {
            pid,
            start_ticks: stat.starttime,
            comm: stat.comm.clone(),
        };
        if let Some(known) = self.remembered.get(&incarnation) {
            return Some(known.clone());
        }
        let found = self.read(pid, &process, &stat, executable);
        if self.remembered.len() >= MAX_REMEMBERED {
            self.remembered.clear();
        }
        self.remembered.insert(incarnation, found.clone());
        Some(found)
    }

    fn open(&self, pid: u32) -> Option<procfs::process::Process> {
        let root = self.proc_root.join(pid.to_string());
        procfs::process::Process::new_with_root(root).ok()
    }

    fn read(
        &self,
        pid: u32,
        process: &procfs::process::Process,
        stat: &Stat,
        executable: &[u8],
    ) -> Process {
        let name = process
            .exe()
            .ok()
            .and_then(|exe| exe.file_name().map(|name| name.as_bytes().to_vec()))
            .filter(|name| !name.is_empty());
        let name = match &name {
            // The kernel's mark of a program whose file was replaced, say by an upgrade.
            Some(name) => name.strip_suffix(b" (deleted)").unwrap_or(name),
            // It is just exiting.
            None if !executable.is_empty() => executable,
            None => stat.comm.as_bytes(),
        };
        let cgroup = self.proc_root.join(pid.to_string()).join("cgroup");
        let placement = std::fs::read_to_string(cgroup)
            .map(|cgroup| placement(&cgroup))
            .unwrap_or_default();
        Process {
            pid: Some(pid),
            name: clean_to(name, MAX_NAME),
            container: placement.container,
            pod: placement.pod,
            namespace: None,
            start_ms: self
                .boot_ms
                .map(|boot| boot + stat.starttime * 1000 / procfs::ticks_per_second().max(1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;
    use std::time::{Duration, Instant, SystemTime};

    #[test]
    fn a_process_has_the_name_of_its_executable_and_a_start() {
        let process = Processes::default().get(std::process::id(), b"");
        let exe = std::env::current_exe().unwrap();
        let name = exe.file_name().unwrap().to_str().unwrap();
        assert_eq!(
            process.name,
            name.chars().take(MAX_NAME).collect::<String>()
        );
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis() as u64;
        let start = process.start_ms.unwrap();
        assert!(
            start < now + 2000 && start + 86_400_000 > now,
            "{start} {now}"
        );
    }

    #[test]
    fn a_process_that_is_gone_has_the_name_that_the_kernel_noted() {
        let mut child = Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        assert_eq!(Processes::default().get(child.id(), b"").name, "unknown");
        assert_eq!(Processes::default().get(u32::MAX, b"true").name, "true");
    }

    #[test]
    fn a_process_that_became_another_program_has_its_name() {
        let mut processes = Processes::default();
        let mut child = Command::new("sh")
            .args(["-c", "read line; exec sleep 60"])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let shell = processes.find(child.id(), b"");
        drop(child.stdin.take());
        let deadline = Instant::now() + Duration::from_secs(10);
        let is_sleep = |process: Option<Process>| {
            process.is_some_and(|process| process.name == "sleep" || process.name == "coreutils")
        };
        let mut seen = false;
        while !seen && Instant::now() < deadline {
            seen = is_sleep(processes.find(child.id(), b""));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(shell.is_some());
        assert!(seen);
    }
}
