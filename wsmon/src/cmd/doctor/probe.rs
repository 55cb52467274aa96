//! Which programs and maps this kernel grants, tried for real.

use std::{fs::File, io};

use aya::{maps::MapType, sys::is_map_supported};
use aya_obj::generated::{bpf_attach_type, bpf_prog_type};

use wsmon::kernel::bpf::{self, BtfHook};

use super::{
    bpf::{try_btf_hook, try_kprobe, try_raw_tracepoint, try_uprobe},
    report::{Check, Verdict},
};

/// Loads and attaches a program of each kind that taps can use. Attached ones pass everything and
/// are gone again at once.
pub fn programs(cgroup: Option<&File>, capable: bool) -> Vec<Check> {
    let check =
        |name: &str, use_: &str, result: io::Result<()>| verdict(name, use_, result, capable);
    vec![
        check("cgroup_skb", "packet tap", try_cgroup_skb(cgroup)),
        check(
            "tp_btf inet_sock_set_state",
            "packet tap",
            try_btf_hook(BtfHook::Tracepoint("inet_sock_set_state")),
        ),
        check(
            "tp_btf sock_send_length",
            "process of a connection, else from procfs",
            try_btf_hook(BtfHook::Tracepoint("sock_send_length")),
        ),
        check(
            "raw_tracepoint",
            "not used yet",
            try_raw_tracepoint(c"inet_sock_set_state"),
        ),
        check(
            "sock_ops",
            "not used yet",
            bpf::load(bpf_prog_type::BPF_PROG_TYPE_SOCK_OPS, None, 0).map(drop),
        ),
        check(
            "fentry",
            "socket tap, not built in yet",
            try_btf_hook(BtfHook::Entry("tcp_sendmsg")),
        ),
        check(
            "kprobe",
            "socket tap where there is no fentry, not built in yet",
            try_kprobe(c"tcp_sendmsg"),
        ),
        check("uprobe", "tls tap, not built in yet", try_uprobe()),
    ]
}

pub fn maps(capable: bool) -> Vec<Check> {
    [
        ("ring_buffer", "events", MapType::RingBuf),
        (
            "socket_storage",
            "state of a connection",
            MapType::SkStorage,
        ),
        ("array", "slots", MapType::Array),
        ("queue", "slots that are free", MapType::Queue),
    ]
    .into_iter()
    .map(|(name, use_, kind)| {
        let result = match is_map_supported(kind) {
            Ok(true) => Ok(()),
            Ok(false) => Err(io::Error::from_raw_os_error(libc::EINVAL)),
            Err(error) => Err(error.io_error),
        };
        verdict(name, use_, result, capable)
    })
    .collect()
}

/// Both ways; without a cgroup the programs are only loaded.
fn try_cgroup_skb(cgroup: Option<&File>) -> io::Result<()> {
    for way in [
        bpf_attach_type::BPF_CGROUP_INET_INGRESS,
        bpf_attach_type::BPF_CGROUP_INET_EGRESS,
    ] {
        let program = bpf::load(bpf_prog_type::BPF_PROG_TYPE_CGROUP_SKB, Some(way), 0)?;
        if let Some(cgroup) = cgroup {
            bpf::attach_to_cgroup(&program, cgroup, way)?;
        }
    }
    Ok(())
}

fn verdict(name: &str, use_: &str, result: io::Result<()>, capable: bool) -> Check {
    let (verdict, text) = match result {
        Ok(()) => (Verdict::Ok, use_.to_owned()),
        Err(error) => {
            let (verdict, meaning) = meaning(&error, capable);
            (verdict, format!("{meaning}; for: {use_}"))
        }
    };
    Check {
        name: name.to_owned(),
        verdict,
        text,
    }
}

/// What the kernel means by an error of these calls.
fn meaning(error: &io::Error, capable: bool) -> (Verdict, String) {
    /// Internal to the kernel, and yet it comes through.
    const ENOTSUPP: i32 = 524;
    let Some(code) = error.raw_os_error() else {
        return (Verdict::Unavailable, error.to_string());
    };
    let (verdict, name, text) = match code {
        libc::EPERM if capable => (
            Verdict::Refused,
            "EPERM",
            "this kernel forbids it whatever the capabilities",
        ),
        libc::EPERM => (Verdict::Refused, "EPERM", "a capability is missing"),
        libc::EACCES => (
            Verdict::Refused,
            "EACCES",
            "perf_event_paranoid or a policy forbids it",
        ),
        libc::EINVAL => (
            Verdict::Unavailable,
            "EINVAL",
            "this kernel does not know it",
        ),
        libc::ENOENT => (
            Verdict::Unavailable,
            "ENOENT",
            "this kernel has no such hook",
        ),
        libc::ENOSYS => (Verdict::Unavailable, "ENOSYS", "this kernel has no eBPF"),
        libc::EOPNOTSUPP => (
            Verdict::Unavailable,
            "EOPNOTSUPP",
            "this kernel was built without it",
        ),
        ENOTSUPP => (
            Verdict::Unavailable,
            "ENOTSUPP",
            "this kernel has no trampolines",
        ),
        libc::ENOMEM => (
            Verdict::Refused,
            "ENOMEM",
            "the memlock limit or memory is too small",
        ),
        _ => return (Verdict::Refused, error.to_string()),
    };
    (verdict, format!("{name}: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_in_spite_of_all_capabilities_is_told_from_a_missing_one() {
        let refused = io::Error::from_raw_os_error(libc::EPERM);
        assert!(
            meaning(&refused, true)
                .1
                .contains("whatever the capabilities")
        );
        assert!(
            meaning(&refused, false)
                .1
                .contains("a capability is missing")
        );
    }

    #[test]
    fn what_the_kernel_does_not_know_is_unavailable_rather_than_refused() {
        for code in [libc::EINVAL, libc::ENOENT, 524] {
            let error = io::Error::from_raw_os_error(code);
            assert_eq!(meaning(&error, true).0, Verdict::Unavailable);
        }
    }

    #[test]
    fn every_kind_is_tried_whatever_this_process_may_do() {
        assert_eq!(programs(None, false).len(), 8);
        assert_eq!(maps(false).len(), 4);
    }
}
