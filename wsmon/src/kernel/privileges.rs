//! What this process may do.

use procfs::process::Process;

const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

/// Names of the capabilities that the packet tap needs and that this process lacks.
pub fn missing() -> Vec<&'static str> {
    let effective = Process::myself()
        .and_then(|process| process.status())
        .map_or(0, |status| status.capeff);
    let has = |capability: u32| effective >> capability & 1 == 1;
    if has(CAP_SYS_ADMIN) && has(CAP_NET_ADMIN) {
        return Vec::new();
    }
    [
        (CAP_BPF, "CAP_BPF"),
        (CAP_NET_ADMIN, "CAP_NET_ADMIN"),
        (CAP_PERFMON, "CAP_PERFMON"),
    ]
    .into_iter()
    .filter(|&(capability, _)| !has(capability))
    .map(|(_, name)| name)
    .collect()
}
