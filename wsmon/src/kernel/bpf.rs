//! The `bpf` system call, for the smallest program there is: it passes everything.
//!
//! aya loads programs that an object file holds. What a kernel grants is asked without one, and
//! what a hook costs by itself is measured with an empty one.

use std::{
    ffi::CStr,
    fs::File,
    io, mem,
    os::fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
    time::Duration,
};

use aya::Btf;
use aya_obj::{
    btf::BtfKind,
    generated::{
        BPF_F_QUERY_EFFECTIVE, bpf_attach_type, bpf_attr, bpf_cmd, bpf_prog_info, bpf_prog_type,
    },
};

/// `r0 = 1; exit`. 1 lets a packet pass where the program is asked for a verdict.
const PASS: [u64; 2] = [0x0000_0001_0000_00b7, 0x95];

/// Where a BTF program goes.
#[derive(Clone, Copy, Debug)]
pub enum BtfHook {
    /// A tracepoint by its name.
    Tracepoint(&'static str),
    /// The entry of a kernel function.
    Entry(&'static str),
}

/// Loads a program of the type; `attach` may matter for what it is allowed.
pub fn load(kind: bpf_prog_type, attach: Option<bpf_attach_type>, btf: u32) -> io::Result<OwnedFd> {
    let license = c"GPL";
    // SAFETY: all zeros is a value of this C union.
    let mut attr: bpf_attr = unsafe { mem::zeroed() };
    // SAFETY: this member is the one of BPF_PROG_LOAD.
    let program = unsafe { &mut attr.__bindgen_anon_3 };
    program.prog_type = kind as u32;
    program.insns = PASS.as_ptr() as u64;
    program.insn_cnt = PASS.len() as u32;
    program.license = license.as_ptr() as u64;
    program.expected_attach_type = attach.map_or(0, |attach| attach as u32);
    program.attach_btf_id = btf;
    bpf(bpf_cmd::BPF_PROG_LOAD, attr)
}

/// Loads a `tracing` program for the hook.
pub fn load_btf(hook: BtfHook) -> io::Result<OwnedFd> {
    let (name, kind, attach) = match hook {
        BtfHook::Tracepoint(name) => (
            format!("btf_trace_{name}"),
            BtfKind::Typedef,
            bpf_attach_type::BPF_TRACE_RAW_TP,
        ),
        BtfHook::Entry(name) => (
            name.to_owned(),
            BtfKind::Func,
            bpf_attach_type::BPF_TRACE_FENTRY,
        ),
    };
    let btf = Btf::from_sys_fs().map_err(|error| io::Error::new(io::ErrorKind::NotFound, error))?;
    let id = btf
        .id_by_type_name_kind(&name, kind)
        .map_err(|_| io::Error::from_raw_os_error(libc::ENOENT))?;
    load(bpf_prog_type::BPF_PROG_TYPE_TRACING, Some(attach), id)
}

/// Attaches a `cgroup_skb` program to a cgroup until the link is dropped.
pub fn attach_to_cgroup(
    program: &OwnedFd,
    cgroup: &File,
    attach: bpf_attach_type,
) -> io::Result<OwnedFd> {
    // SAFETY: all zeros is a value of this C union.
    let mut attr: bpf_attr = unsafe { mem::zeroed() };
    attr.link_create.__bindgen_anon_1.prog_fd = program.as_raw_fd() as u32;
    attr.link_create.__bindgen_anon_2.target_fd = cgroup.as_raw_fd() as u32;
    attr.link_create.attach_type = attach as u32;
    bpf(bpf_cmd::BPF_LINK_CREATE, attr)
}

/// How many programs run at a hook of a cgroup, those that it inherits included.
pub fn count_effective(cgroup: &File, attach: bpf_attach_type) -> io::Result<u32> {
    // SAFETY: all zeros is a value of this C union.
    let mut attr: bpf_attr = unsafe { mem::zeroed() };
    attr.query.__bindgen_anon_1.target_fd = cgroup.as_raw_fd() as u32;
    attr.query.attach_type = attach as u32;
    attr.query.query_flags = BPF_F_QUERY_EFFECTIVE;
    // Without room for the programs' numbers it only counts.
    if call(bpf_cmd::BPF_PROG_QUERY, &mut attr) < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel wrote this member.
    Ok(unsafe { attr.query.__bindgen_anon_2.prog_cnt })
}

/// Attaches a `raw_tracepoint` program by name, or a `tracing` one where it was loaded for, until
/// the link is dropped.
pub fn attach_raw_tracepoint(program: &OwnedFd, name: Option<&CStr>) -> io::Result<OwnedFd> {
    // SAFETY: all zeros is a value of this C union.
    let mut attr: bpf_attr = unsafe { mem::zeroed() };
    attr.raw_tracepoint.name = name.map_or(0, |name| name.as_ptr() as u64);
    attr.raw_tracepoint.prog_fd = program.as_raw_fd() as u32;
    bpf(bpf_cmd::BPF_RAW_TRACEPOINT_OPEN, attr)
}

/// What a program has cost while `kernel.bpf_stats_enabled` was on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunStats {
    pub time: Duration,
    pub runs: u64,
}

/// Reads what a program has cost so far.
pub fn run_stats(program: impl AsFd) -> io::Result<RunStats> {
    // SAFETY: all zeros is a value of this C struct.
    let mut info: bpf_prog_info = unsafe { mem::zeroed() };
    // SAFETY: all zeros is a value of this C union.
    let mut attr: bpf_attr = unsafe { mem::zeroed() };
    attr.info.bpf_fd = program.as_fd().as_raw_fd() as u32;
    attr.info.info_len = size_of::<bpf_prog_info>() as u32;
    attr.info.info = &raw mut info as u64;
    if call(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attr) < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(RunStats {
        time: Duration::from_nanos(info.run_time_ns),
        runs: info.run_cnt,
    })
}

fn bpf(command: bpf_cmd, mut attr: bpf_attr) -> io::Result<OwnedFd> {
    owned(call(command, &mut attr))
}

fn call(command: bpf_cmd, attr: &mut bpf_attr) -> i64 {
    // SAFETY: `attr` is a whole bpf_attr; what it points to outlives the call.
    unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command as i32,
            &raw mut *attr,
            size_of::<bpf_attr>(),
        )
    }
}

/// What a system call gave back: a descriptor, or an error in `errno`.
pub fn owned(result: i64) -> io::Result<OwnedFd> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just made it for this process, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(result as RawFd) })
}
