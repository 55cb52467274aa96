//! Empty programs at the hooks of wsmon's: what every program costs there.

use std::{collections::BTreeMap, fs::File, os::fd::OwnedFd};

use anyhow::{Context as _, Result};
use aya_obj::generated::{bpf_attach_type, bpf_prog_type};
use wsmon::kernel::bpf::{self, BtfHook, RunStats};

use super::cgroup::Cgroup;

/// Empty programs, attached until this is dropped.
pub struct Floor {
    programs: Vec<Empty>,
    cgroup: File,
}

struct Empty {
    /// The program of wsmon at the same hook.
    beside: &'static str,
    program: OwnedFd,
    _link: OwnedFd,
}

const PACKET_HOOKS: [(&str, bpf_attach_type); 2] = [
    ("packet_egress", bpf_attach_type::BPF_CGROUP_INET_EGRESS),
    ("packet_ingress", bpf_attach_type::BPF_CGROUP_INET_INGRESS),
];

const PROCESS_HOOKS: [(&str, BtfHook); 2] = [
    ("process_send", BtfHook::Tracepoint("sock_send_length")),
    ("process_receive", BtfHook::Tracepoint("sock_recv_length")),
];

impl Floor {
    pub fn attach(cgroup: &Cgroup, process_hooks: bool) -> Result<Self> {
        let cgroup = cgroup.open()?;
        let mut programs = Vec::new();
        for (beside, way) in PACKET_HOOKS {
            let attach = || {
                let program = bpf::load(bpf_prog_type::BPF_PROG_TYPE_CGROUP_SKB, Some(way), 0)?;
                let link = bpf::attach_to_cgroup(&program, &cgroup, way)?;
                Ok((program, link))
            };
            programs.push(Empty::new(beside, attach)?);
        }
        for (beside, hook) in PROCESS_HOOKS.into_iter().filter(|_| process_hooks) {
            let attach = || {
                let program = bpf::load_btf(hook)?;
                let link = bpf::attach_raw_tracepoint(&program, None)?;
                Ok((program, link))
            };
            programs.push(Empty::new(beside, attach)?);
        }
        Ok(Self { programs, cgroup })
    }

    /// How many programs that are neither these nor wsmon's run for the same packets.
    pub fn others(&self) -> Result<u32> {
        /// One of wsmon and an empty one.
        const OWN: u32 = 2;
        let mut others = 0;
        for (_, way) in PACKET_HOOKS {
            others += bpf::count_effective(&self.cgroup, way)?.saturating_sub(OWN);
        }
        Ok(others)
    }

    /// What each has cost so far, by the name of wsmon's program beside it.
    pub fn stats(&self) -> Result<BTreeMap<&'static str, RunStats>> {
        self.programs
            .iter()
            .map(|empty| Ok((empty.beside, bpf::run_stats(&empty.program)?)))
            .collect()
    }
}

impl Empty {
    fn new(
        beside: &'static str,
        attach: impl FnOnce() -> std::io::Result<(OwnedFd, OwnedFd)>,
    ) -> Result<Self> {
        let (program, link) =
            attach().with_context(|| format!("no empty program beside {beside}"))?;
        Ok(Self {
            beside,
            program,
            _link: link,
        })
    }
}
