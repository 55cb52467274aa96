//! What the host says about itself.

use std::{
    fs,
    path::{Path, PathBuf},
};

use procfs::process::{LimitValue, Process};
use wsmon::kernel::{cgroup, privileges};

use super::report::{Check, Verdict};

/// Capabilities that some part of wsmon needs.
const CAPABILITIES: [(&str, u32, &str); 4] = [
    ("CAP_BPF", 39, "load programs and maps"),
    ("CAP_NET_ADMIN", 12, "attach to cgroups"),
    (
        "CAP_PERFMON",
        38,
        "read kernel structures, attach to tracepoints",
    ),
    ("CAP_SYS_PTRACE", 19, "find the processes of other users"),
];
#[derive(Debug)]
pub struct Host {
    pub release: String,
    pub checks: Vec<Check>,
    /// Of those that the packet tap needs.
    pub missing_capabilities: Vec<&'static str>,
    /// The mounted root of the whole host's cgroup2.
    pub cgroup_root: Option<PathBuf>,
    pub cgroup_mounts: Vec<PathBuf>,
}

pub fn examine() -> Host {
    let release = read("/proc/sys/kernel/osrelease").unwrap_or_else(|| "unknown".into());
    let effective = Process::myself()
        .and_then(|process| process.status())
        .map_or(0, |status| status.capeff);
    let cgroup_mounts = cgroup::mounts().unwrap_or_default();
    let cgroup_root = cgroup_mounts
        .iter()
        .find(|path| cgroup::is_root(path))
        .cloned();
    let missing_capabilities = privileges::missing();
    Host {
        checks: vec![
            kernel(&release),
            btf(),
            jit(),
            cgroup2(&cgroup_mounts, cgroup_root.as_deref()),
            capabilities(effective, &missing_capabilities),
            unprivileged_bpf(),
            perf_event_paranoid(),
            lockdown(read("/sys/kernel/security/lockdown").as_deref()),
            memlock(&release),
        ],
        missing_capabilities,
        release,
        cgroup_root,
        cgroup_mounts,
    }
}

fn kernel(release: &str) -> Check {
    let enough = version(release).is_some_and(|version| version >= (5, 10));
    let verdict = if enough {
        Verdict::Ok
    } else {
        Verdict::Warning
    };
    let text = if enough {
        release.to_owned()
    } else {
        format!("{release}; wsmon is tested from 5.10")
    };
    check("kernel", verdict, text)
}

fn btf() -> Check {
    let path = "/sys/kernel/btf/vmlinux";
    if Path::new(path).exists() {
        check("btf", Verdict::Ok, path)
    } else {
        check(
            "btf",
            Verdict::Unavailable,
            "no /sys/kernel/btf/vmlinux: CONFIG_DEBUG_INFO_BTF is off",
        )
    }
}

fn jit() -> Check {
    match read("/proc/sys/net/core/bpf_jit_enable").as_deref() {
        Some("0") => check(
            "jit",
            Verdict::Warning,
            "off: programs are interpreted, and cost several times as much; \
             `sysctl net.core.bpf_jit_enable=1`",
        ),
        Some(_) => check("jit", Verdict::Ok, "on"),
        None => check(
            "jit",
            Verdict::Warning,
            "net.core.bpf_jit_enable cannot be read",
        ),
    }
}

fn cgroup2(mounts: &[PathBuf], root: Option<&Path>) -> Check {
    match (root, mounts.first()) {
        (Some(root), _) => check(
            "cgroup2",
            Verdict::Ok,
            format!("{}, the root of the host", root.display()),
        ),
        (None, Some(mount)) => check(
            "cgroup2",
            Verdict::Warning,
            format!(
                "{} is the root of a cgroup namespace: only sockets made in it are seen; \
                 run in the host's cgroup namespace to see all",
                mount.display()
            ),
        ),
        (None, None) => check(
            "cgroup2",
            Verdict::Warning,
            "mounted nowhere; the agent mounts it for itself, which needs CAP_SYS_ADMIN",
        ),
    }
}

fn capabilities(effective: u64, missing: &[&str]) -> Check {
    let lacking: Vec<String> = CAPABILITIES
        .iter()
        .filter(|&&(_, bit, _)| !has(effective, bit))
        .map(|(name, _, use_)| format!("{name} ({use_})"))
        .collect();
    if lacking.is_empty() {
        let names = CAPABILITIES.map(|(name, ..)| name).join(", ");
        return check("capabilities", Verdict::Ok, names);
    }
    let verdict = if missing.is_empty() {
        Verdict::Warning
    } else {
        Verdict::Refused
    };
    check(
        "capabilities",
        verdict,
        format!("without {}", lacking.join(", ")),
    )
}

fn has(effective: u64, bit: u32) -> bool {
    effective >> bit & 1 == 1
}

fn unprivileged_bpf() -> Check {
    let text = match read("/proc/sys/kernel/unprivileged_bpf_disabled").as_deref() {
        Some("0") => "0: anyone may load some programs; wsmon's need capabilities anyhow",
        Some("1") => "1: capabilities are needed, until the next boot",
        Some("2") => "2: capabilities are needed",
        _ => "cannot be read",
    };
    check("unprivileged_bpf_disabled", Verdict::Ok, text)
}

fn perf_event_paranoid() -> Check {
    match read("/proc/sys/kernel/perf_event_paranoid") {
        Some(level) => check(
            "perf_event_paranoid",
            Verdict::Ok,
            format!("{level}: counts only without CAP_PERFMON; kprobe and uprobe ask it"),
        ),
        None => check(
            "perf_event_paranoid",
            Verdict::Warning,
            "this kernel has no perf events",
        ),
    }
}

fn lockdown(text: Option<&str>) -> Check {
    let mode = text.and_then(|text| Some(text.split_once('[')?.1.split_once(']')?.0));
    match mode {
        Some("confidentiality") => check(
            "lockdown",
            Verdict::Warning,
            "confidentiality: programs may not read kernel memory; tracing programs fail",
        ),
        Some(mode) => check("lockdown", Verdict::Ok, mode),
        None => check(
            "lockdown",
            Verdict::Ok,
            "not in this kernel, or securityfs is not mounted",
        ),
    }
}

/// Maps are charged to it before 5.11.
fn memlock(release: &str) -> Check {
    let limit = Process::myself().and_then(|process| process.limits());
    let soft = match limit {
        Ok(limits) => match limits.max_locked_memory.soft_limit {
            LimitValue::Unlimited => "unlimited".to_owned(),
            LimitValue::Value(bytes) => crate::output::human::bytes(bytes),
        },
        Err(_) => "unknown".to_owned(),
    };
    if version(release).is_some_and(|version| version >= (5, 11)) {
        check(
            "memlock",
            Verdict::Ok,
            format!("{soft}; this kernel does not charge maps to it"),
        )
    } else if soft == "unlimited" {
        check("memlock", Verdict::Ok, soft)
    } else {
        check(
            "memlock",
            Verdict::Warning,
            format!("{soft}; run with `ulimit -l unlimited`"),
        )
    }
}

/// Major and minor number.
pub fn version(release: &str) -> Option<(u32, u32)> {
    let (major, rest) = release.split_once('.')?;
    let minor = rest
        .split(|character: char| !character.is_ascii_digit())
        .next()?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// Whether a v1 hierarchy is mounted that tags sockets instead of cgroup2: before 5.15 the two
/// shared a field, and the use of one switched the other off for new sockets.
pub fn has_v1_socket_tags() -> bool {
    fs::read_to_string("/proc/self/mounts").is_ok_and(|mounts| {
        mounts.lines().any(|line| {
            let fields: Vec<&str> = line.split(' ').collect();
            fields.get(2) == Some(&"cgroup")
                && fields.get(3).is_some_and(|options| {
                    options
                        .split(',')
                        .any(|option| matches!(option, "net_cls" | "net_prio"))
                })
        })
    })
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path)
        .ok()
        .map(|text| text.trim().to_owned())
}

fn check(name: &str, verdict: Verdict, text: impl Into<String>) -> Check {
    Check {
        name: name.to_owned(),
        verdict,
        text: text.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_has_a_version_whatever_follows() {
        assert_eq!(version("6.18.5"), Some((6, 18)));
        assert_eq!(version("6.1-rc3"), Some((6, 1)));
        assert_eq!(version("5.10.0-30-cloud-amd64"), Some((5, 10)));
        assert_eq!(version("strange"), None);
    }

    #[test]
    fn capabilities_that_lack_are_named_with_their_use() {
        let check = capabilities(1 << 12, &["CAP_BPF", "CAP_PERFMON"]);
        assert_eq!(check.verdict, Verdict::Refused);
        assert!(
            check.text.contains("CAP_BPF (load programs and maps)"),
            "{}",
            check.text
        );
        assert!(!check.text.contains("CAP_NET_ADMIN"), "{}", check.text);
        assert_eq!(capabilities(u64::MAX, &[]).verdict, Verdict::Ok);
        assert_eq!(capabilities(0, &[]).verdict, Verdict::Warning);
    }

    #[test]
    fn the_lockdown_in_force_is_the_one_in_brackets() {
        assert_eq!(
            lockdown(Some("none [integrity] confidentiality")).text,
            "integrity"
        );
        assert_eq!(
            lockdown(Some("none integrity [confidentiality]")).verdict,
            Verdict::Warning
        );
        assert_eq!(lockdown(None).verdict, Verdict::Ok);
    }
}
