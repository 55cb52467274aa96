//! The system calls behind the probes: load the smallest program there is, attach it for a moment.

use std::{
    ffi::{CStr, CString},
    fs, io, mem,
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use aya_obj::generated::{
    PERF_EVENT_IOC_SET_BPF, PERF_FLAG_FD_CLOEXEC, bpf_prog_type, perf_event_attr,
};
use wsmon::kernel::bpf::{self, BtfHook};

/// Loads a `tracing` program for the hook and attaches it for a moment.
pub fn try_btf_hook(hook: BtfHook) -> io::Result<()> {
    bpf::attach_raw_tracepoint(&bpf::load_btf(hook)?, None).map(drop)
}

/// Loads a `raw_tracepoint` program and attaches it for a moment.
pub fn try_raw_tracepoint(name: &CStr) -> io::Result<()> {
    let program = bpf::load(bpf_prog_type::BPF_PROG_TYPE_RAW_TRACEPOINT, None, 0)?;
    bpf::attach_raw_tracepoint(&program, Some(name)).map(drop)
}

/// Loads a `kprobe` program and attaches it to a kernel function for a moment.
pub fn try_kprobe(function: &CStr) -> io::Result<()> {
    let program = bpf::load(bpf_prog_type::BPF_PROG_TYPE_KPROBE, None, 0)?;
    // SAFETY: all zeros is a value of this C struct.
    let mut attr: perf_event_attr = unsafe { mem::zeroed() };
    attr.__bindgen_anon_3.kprobe_func = function.as_ptr() as u64;
    attach_to_probe(&program, "kprobe", attr, -1, 0)
}

/// Loads a `kprobe` program and attaches it to a function of this program for a moment.
pub fn try_uprobe() -> io::Result<()> {
    let program = bpf::load(bpf_prog_type::BPF_PROG_TYPE_KPROBE, None, 0)?;
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
    let event = bpf::owned(event)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_offset_of_code_is_inside_the_file() {
        let offset = file_offset(uprobe_target as *const () as u64).unwrap();
        assert!(offset < fs::metadata("/proc/self/exe").unwrap().len());
    }
}
