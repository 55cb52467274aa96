//! The few bpf(2) calls of the tests, made directly: what is attached, and a packet dropper.

use std::{
    fs::File,
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    path::Path,
};

const PROG_LOAD: i64 = 5;
const PROG_GET_FD_BY_ID: i64 = 13;
const PROG_QUERY: i64 = 16;
const LINK_CREATE: i64 = 28;

/// `BPF_CGROUP_INET_INGRESS` and `BPF_CGROUP_INET_EGRESS`.
const CGROUP_SKB: [u32; 2] = [0, 1];
const PROG_TYPE_SCHED_CLS: u32 = 3;
const TCX_EGRESS: u32 = 47;

/// Ids of the packet programs attached to a cgroup, both ways.
pub fn attached(cgroup: &Path) -> io::Result<Vec<u32>> {
    let cgroup = File::open(cgroup)?;
    let mut found = Vec::new();
    for attach_type in CGROUP_SKB {
        let mut ids = [0u32; 64];
        let mut attribute = Attribute::default();
        attribute.put_u32(0, cgroup.as_raw_fd() as u32);
        attribute.put_u32(4, attach_type);
        attribute.put_u64(16, ids.as_mut_ptr() as u64);
        attribute.put_u32(24, ids.len() as u32);
        call(PROG_QUERY, &mut attribute)?;
        found.extend_from_slice(&ids[..attribute.u32(24) as usize]);
    }
    Ok(found)
}

/// Whether a program with this id is loaded.
pub fn is_loaded(id: u32) -> bool {
    let mut attribute = Attribute::default();
    attribute.put_u32(0, id);
    owned(call(PROG_GET_FD_BY_ID, &mut attribute)).is_ok()
}

/// Ids of the programs that a process holds, by itself or through links.
pub fn held_by(pid: u32) -> Vec<u32> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(format!("/proc/{pid}/fdinfo"))
        .into_iter()
        .flatten()
        .flatten()
    {
        let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
        let ids = text
            .lines()
            .filter_map(|line| line.strip_prefix("prog_id:"));
        found.extend(ids.filter_map(|id| id.trim().parse::<u32>().ok()));
    }
    found.sort_unstable();
    found.dedup();
    found
}

/// Drops packets at random on their way out of an interface while it lives.
pub struct Dropper {
    _link: OwnedFd,
}

impl Dropper {
    /// `index` is the interface's, in the network namespace of the calling thread; `permille` of
    /// all packets are dropped. Needs a kernel with tcx (6.6).
    pub fn attach(index: u32, permille: u32) -> io::Result<Self> {
        let program = load(&[
            instruction(0x85, 0, 0, 7),               // call bpf_get_prandom_u32
            instruction(0x94, 0, 0, 1000),            // w0 %= 1000
            instruction(0x35, 0, 2, permille as i32), // if r0 >= permille goto +2
            instruction(0xb7, 0, 0, 2),               // r0 = TCX_DROP
            instruction(0x95, 0, 0, 0),               // exit
            instruction(0xb7, 0, 0, 0),               // r0 = TCX_PASS
            instruction(0x95, 0, 0, 0),               // exit
        ])?;
        let mut attribute = Attribute::default();
        attribute.put_u32(0, program.as_raw_fd() as u32);
        attribute.put_u32(4, index);
        attribute.put_u32(8, TCX_EGRESS);
        Ok(Self {
            _link: owned(call(LINK_CREATE, &mut attribute))?,
        })
    }
}

fn load(program: &[u64]) -> io::Result<OwnedFd> {
    let mut attribute = Attribute::default();
    attribute.put_u32(0, PROG_TYPE_SCHED_CLS);
    attribute.put_u32(4, program.len() as u32);
    attribute.put_u64(8, program.as_ptr() as u64);
    attribute.put_u64(16, c"GPL".as_ptr() as u64);
    owned(call(PROG_LOAD, &mut attribute))
}

fn instruction(code: u8, destination: u8, offset: i16, immediate: i32) -> u64 {
    u64::from(code)
        | u64::from(destination) << 8
        | u64::from(offset as u16) << 16
        | u64::from(immediate as u32) << 32
}

/// `union bpf_attr`, filled by offset.
#[repr(C, align(8))]
struct Attribute([u8; 128]);

impl Default for Attribute {
    fn default() -> Self {
        Self([0; 128])
    }
}

impl Attribute {
    fn put_u32(&mut self, at: usize, value: u32) {
        self.0[at..at + 4].copy_from_slice(&value.to_ne_bytes());
    }

    fn put_u64(&mut self, at: usize, value: u64) {
        self.0[at..at + 8].copy_from_slice(&value.to_ne_bytes());
    }

    fn u32(&self, at: usize) -> u32 {
        u32::from_ne_bytes(self.0[at..at + 4].try_into().expect("four bytes"))
    }
}

fn call(command: i64, attribute: &mut Attribute) -> io::Result<i64> {
    // SAFETY: the attribute is zeroed where it is not set, and what it points to outlives the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            &raw mut *attribute,
            size_of::<Attribute>(),
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

fn owned(descriptor: io::Result<i64>) -> io::Result<OwnedFd> {
    // SAFETY: the kernel has just made this descriptor for us.
    descriptor.map(|descriptor| unsafe { OwnedFd::from_raw_fd(descriptor as i32) })
}
