//! `--cgroup`: whether a process is in a cgroup.

use std::{collections::HashMap, convert::Infallible, path::Path, str::FromStr};

/// Answers are kept: a process seldom moves, and a trace has many lines of each. Enough for every
/// process of a host, and no more than that.
const KEPT: usize = 4096;

/// A cgroup of the unified hierarchy, as /proc/PID/cgroup writes it.
#[derive(Clone, Debug)]
pub struct Cgroup {
    path: String,
}

impl FromStr for Cgroup {
    type Err = Infallible;

    /// Takes the path inside the hierarchy, or that of its folder.
    fn from_str(text: &str) -> Result<Self, Infallible> {
        let inside = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"]
            .into_iter()
            .find_map(|mount| Path::new(text).strip_prefix(mount).ok())
            .map_or_else(
                || text.to_owned(),
                |inside| inside.to_string_lossy().into_owned(),
            );
        let path = format!("/{}", inside.trim_matches('/'));
        Ok(Self { path })
    }
}

impl Cgroup {
    /// `text`: what /proc/PID/cgroup holds.
    fn has_one_of(&self, text: &str) -> bool {
        text.lines()
            .filter_map(|line| line.strip_prefix("0::"))
            .any(|path| Path::new(path).starts_with(&self.path))
    }
}

/// The processes of a cgroup, found one by one.
#[derive(Debug)]
pub struct Members {
    cgroup: Cgroup,
    known: HashMap<u32, bool>,
}

impl Members {
    pub fn of(cgroup: Cgroup) -> Self {
        Self {
            cgroup,
            known: HashMap::new(),
        }
    }

    /// Whether the process is in it or below. One that is gone is not, unless it was seen before.
    pub fn has(&mut self, pid: u32) -> bool {
        if self.known.len() >= KEPT {
            self.known.clear();
        }
        *self.known.entry(pid).or_insert_with(|| {
            std::fs::read_to_string(format!("/proc/{pid}/cgroup"))
                .is_ok_and(|text| self.cgroup.has_one_of(&text))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn has(cgroup: &str, text: &str) -> bool {
        cgroup.parse::<Cgroup>().unwrap().has_one_of(text)
    }

    #[test]
    fn a_process_is_in_its_cgroup_and_in_those_above() {
        let text = "12:cpu:/other\n0::/system.slice/nginx.service\n";
        assert!(has("/system.slice/nginx.service", text));
        assert!(has("system.slice/", text));
        assert!(has("/sys/fs/cgroup/unified/system.slice", text));
        assert!(has("/", text));
    }

    #[test]
    fn a_cgroup_whose_name_merely_begins_alike_is_another() {
        assert!(!has(
            "/system.slice/nginx",
            "0::/system.slice/nginx.service\n"
        ));
        assert!(!has("/other", "12:cpu:/other\n0::/\n"));
    }
}
