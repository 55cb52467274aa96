//! The system calls behind the probes: load the smallest program there is, attach it for a moment.
//!
//! aya loads programs that an object file holds; what a kernel grants is asked without one.

use std::{
    ffi::{CStr, CString},
    fs::{self, File},
    io, mem,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use aya::Btf;
use aya_obj::{
    btf::BtfKind,
    generated::{
        PERF_EVENT_IOC_SET_BPF, PERF_FLAG_FD_CLOEXEC, bpf_attach_type, bpf_attr, bpf_cmd,
        bpf_prog_type, perf_event_attr,
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
    bpf(bpf_cmd::BPF_PROG_LOAD, &attr)
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
    bpf(bpf_cmd::BPF_LINK_CREATE, &attr)
}

/// Loads a `tracing` program for the hook and attaches it for a moment.
pub fn try_btf_hook(hook: BtfHook) -> io::Result<()> {
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
    let program = load(bpf_prog_type::BPF_PROG_TYPE_TRACING, Some(attach), id)?;
    open_raw_tracepoint(&program, None).map(drop)
}

/// Loads a `raw_tracepoint` program and attaches it for a moment.
pub fn try_raw_tracepoint(name: &CStr) -> io::Result<()> {
    let program = load(bpf_prog_type::BPF_PROG_TYPE_RAW_TRACEPOINT, None, 0)?;
    open_raw_tracepoint(&program, Some(name)).map(drop)
}

/// Loads a `kprobe` program and attaches it to a kernel function for a moment.
pub fn try_kprobe(function: &CStr) -> io::Result<()> {
    let program = load(bpf_prog_type::BPF_PROG_TYPE_KPROBE, None, 0)?;
    // SAFETY: all zeros is a value of this C struct.
    let mut attr: perf_event_attr = unsafe { mem::zeroed() };
    attr.__bindgen_anon_3.kprobe_func = function.as_ptr() as u64;
    attach_to_probe(&program, "kprobe", attr, -1, 0)
}

/// Loads a `kprobe` program and attaches it to a function of this program for a moment.
pub fn try_uprobe() -> io::Result<()> {
    let program = load(bpf_prog_type::BPF_PROG_TYPE_KPROBE, None, 0)?;
    let path = fs::read_link("/proc/self/exe")?;
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: all zeros is a value of this C struct.
    let mut attr: perf_event_attr = unsafe { mem::zeroed() };
    attr.__bindgen_anon_3.uprobe_path = path.as_ptr() as u64;
    attr.__bindgen_anon_4.probe_offset = file_offset(uprobe_target as *const () as u64)?;
    attach_to_probe(&program, "uprobe", attr, std::process::id() as i32, -1)
}

/// Never called: something to put a probe on.
#[inline(never)]
extern "C" fn uprobe_target() {
    std::hint::black_box(());
}

/// Where in this program's file the code at an address is.
fn file_offset(address: u64) -> io::Result<u64> {
    let maps = procfs::process::Process::myself()
        .and_then(|process| process.maps())
        .map_err(io::Error::other)?;
    maps.into_iter()
        .find(|map| (map.address.0..map.address.1).contains(&address))
        .map(|map| address - map.address.0 + map.offset)
        .ok_or_else(|| io::Error::from_raw_os_error(libc::ENOENT))
}

fn attach_to_probe(
    program: &OwnedFd,
    source: &str,
    mut attr: perf_event_attr,
    pid: i32,
    cpu: i32,
) -> io::Result<()> {
    let kind = Path::new("/sys/bus/event_source/devices")
        .join(source)
        .join("type");
    let kind = fs::read_to_string(kind)?;
    attr.type_ = kind.trim().parse().map_err(io::Error::other)?;
    attr.size = size_of::<perf_event_attr>() as u32;
    // SAFETY: the strings that the attributes point to outlive the call; the kernel copies them.
    let event = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            &raw const attr,
            pid,
            cpu,
            -1,
            PERF_FLAG_FD_CLOEXEC,
        )
    };
    let event = owned(event)?;
    // SAFETY: both descriptors are open.
    let set = unsafe {
        libc::ioctl(
            event.as_raw_fd(),
            PERF_EVENT_IOC_SET_BPF.into(),
            program.as_raw_fd(),
        )
    };
    if set == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn open_raw_tracepoint(program: &OwnedFd, name: Option<&CStr>) -> io::Result<OwnedFd> {
    // SAFETY: all zeros is a value of this C union.
    let mut attr: bpf_attr = unsafe { mem::zeroed() };
    attr.raw_tracepoint.name = name.map_or(0, |name| name.as_ptr() as u64);
    attr.raw_tracepoint.prog_fd = program.as_raw_fd() as u32;
    bpf(bpf_cmd::BPF_RAW_TRACEPOINT_OPEN, &attr)
}

fn bpf(command: bpf_cmd, attr: &bpf_attr) -> io::Result<OwnedFd> {
    // SAFETY: `attr` is a whole bpf_attr; what it points to outlives the call.
    owned(unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command as i32,
            &raw const *attr,
            size_of::<bpf_attr>(),
        )
    })
}

/// What a system call gave back: a descriptor, or an error in `errno`.
fn owned(result: i64) -> io::Result<OwnedFd> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just made it for this process, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(result as RawFd) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_offset_of_code_is_inside_the_file() {
        let offset = file_offset(uprobe_target as *const () as u64).unwrap();
        assert!(offset < fs::metadata("/proc/self/exe").unwrap().len());
    }
}
