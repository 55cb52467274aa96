//! The kernel side as user space sees it: load, attach, read.

pub mod bpf;
mod btf;
pub mod cgroup;
mod mapped;
pub mod privileges;

use std::{
    io,
    os::fd::AsFd as _,
    path::PathBuf,
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
};

use aya::{
    Btf, Ebpf, EbpfLoader,
    maps::{Array, HashMap, Map, MapData, MapError, Queue, RingBuf},
    programs::{BtfTracePoint, CgroupAttachMode, CgroupSkb, CgroupSkbAttachType, ProgramError},
};
use thiserror::Error;
use tracing::{debug, warn};
use wsmon_common::{
    cursor::{AddressPair, COUNTERS, Counter, PORT_PAIRS, PortPair, SocketRef, port_pair},
    slot::{STATE_FREE, Slot},
};

use self::{bpf::RunStats, mapped::Mapped};

/// The kernel programs, built by `build/main.rs`.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("WSMON_EBPF_OBJECT"));

const PACKET_PROGRAMS: [(&str, CgroupSkbAttachType); 2] = [
    ("packet_egress", CgroupSkbAttachType::Egress),
    ("packet_ingress", CgroupSkbAttachType::Ingress),
];

/// Programs and their tracepoints; Linux 6.3 and newer.
const PROCESS_HOOKS: [(&str, &str); 2] = [
    ("process_send", "sock_send_length"),
    ("process_receive", "sock_recv_length"),
];

/// Copies of a slot whose state changes meanwhile: more than it has states.
const MAX_COPIES: u32 = 8;
/// The largest ring buffer that can be asked for.
const MAX_RING_BYTES: u32 = 1 << 30;

/// How the kernel side is set up.
#[derive(Clone, Debug)]
pub struct Options {
    /// The cgroup whose sockets are watched; the whole host without one.
    pub cgroup: Option<PathBuf>,
    /// Connections at most, those that ended less than a second ago included.
    pub slots: u32,
    /// Bytes of the ring buffer; rounded up to a power of two.
    pub ring_bytes: u32,
    /// Runs of received segments that can wait for their turn, on the whole host; 96 KiB each.
    pub buffers: u32,
    /// Learn processes from the socket calls' tracepoints where the kernel has them.
    pub process_hook: bool,
}

impl Options {
    /// Bytes of the ring buffer as the kernel takes them: a power of two, of whole pages.
    pub fn ring_size(&self) -> u32 {
        self.ring_bytes
            .clamp(4096, MAX_RING_BYTES)
            .next_power_of_two()
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            cgroup: None,
            slots: 16384,
            ring_bytes: 4 << 20,
            buffers: 64,
            process_hook: true,
        }
    }
}

/// Why the kernel side is not running.
#[derive(Debug, Error)]
pub enum KernelError {
    #[error(
        "not permitted to load eBPF programs: this process lacks {0}; run as root, or grant it"
    )]
    NotPermitted(String),
    #[error("cannot open the cgroup {0}: {1}")]
    Cgroup(String, io::Error),
    #[error("the kernel refuses the eBPF object: {}", causes(.0))]
    Object(#[from] Box<aya::EbpfError>),
    #[error("the kernel refuses the program {name}: {}", causes(.error))]
    Program {
        name: &'static str,
        error: Box<ProgramError>,
    },
    #[error("the map {name} cannot be used: {}", causes(.error))]
    Map {
        name: &'static str,
        error: Box<MapError>,
    },
    #[error("the map {0} cannot be mapped: {1}")]
    Mapping(&'static str, io::Error),
}

impl KernelError {
    fn program(name: &'static str, error: ProgramError) -> Self {
        Self::Program {
            name,
            error: Box::new(error),
        }
    }

    fn map(name: &'static str, error: MapError) -> Self {
        Self::Map {
            name,
            error: Box::new(error),
        }
    }
}

/// An error with its causes. Of what the verifier says, the end counts.
fn causes(error: &dyn std::error::Error) -> String {
    const LINES: usize = 12;
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = error.source();
    }
    let lines: Vec<_> = text.lines().collect();
    if lines.len() <= LINES + 1 {
        return text;
    }
    format!(
        "{}\n…\n{}",
        lines[0],
        lines[lines.len() - LINES..].join("\n")
    )
}

/// The loaded and attached programs. Dropping it detaches them.
pub struct Kernel {
    ebpf: Ebpf,
    slots: Mapped<Slot>,
    counters: Mapped<u64>,
    ports: Mapped<[PortPair; PORT_PAIRS]>,
    free: Queue<MapData, u32>,
    pending: HashMap<MapData, PairKey, RefValue>,
    trace_new: Array<MapData, u32>,
    /// Whether processes are learned from the socket calls.
    pub has_process_hook: bool,
}

/// [`AddressPair`] as aya wants a key.
#[repr(transparent)]
#[derive(Clone, Copy)]
struct PairKey(AddressPair);
// SAFETY: integers only, without padding.
unsafe impl aya::Pod for PairKey {}

/// [`SocketRef`] as aya wants a value.
#[repr(transparent)]
#[derive(Clone, Copy)]
struct RefValue(SocketRef);
// SAFETY: integers only, without padding.
unsafe impl aya::Pod for RefValue {}

impl Kernel {
    /// Loads the programs and attaches them. Gives the ring buffer of events beside.
    pub fn load(options: &Options) -> Result<(Self, RingBuf<MapData>), KernelError> {
        let missing = privileges::missing();
        if !missing.is_empty() {
            return Err(KernelError::NotPermitted(missing.join(", ")));
        }
        let cgroup = cgroup::open(options.cgroup.as_deref()).map_err(|error| {
            let name = options
                .cgroup
                .as_ref()
                .map_or("cgroup2 root".into(), |path| path.display().to_string());
            KernelError::Cgroup(name, error)
        })?;
        let mut ebpf = load_object(options)?;

        // While the maps are still the object's: a program is loaded with their descriptors.
        let btf = Btf::from_sys_fs()
            .map_err(|error| KernelError::program("socket_state", ProgramError::Btf(error)))?;
        load_tracepoint(&mut ebpf, &btf, "socket_state", "inet_sock_set_state")?;
        let has_process_hook = options.process_hook
            && PROCESS_HOOKS.into_iter().all(|(name, tracepoint)| {
                load_tracepoint(&mut ebpf, &btf, name, tracepoint)
                    .inspect_err(|error| warn!("processes are looked up in /proc: {error}"))
                    .is_ok()
            });
        for (name, _) in PACKET_PROGRAMS {
            let program: &mut CgroupSkb = program(&mut ebpf, name)?;
            program
                .load()
                .map_err(|error| KernelError::program(name, error))?;
        }

        fill(&mut ebpf, "FREE_BUFFERS", options.buffers)?;
        let free = fill(&mut ebpf, "FREE_SLOTS", options.slots)?;
        let slots = map_memory(&mut ebpf, "SLOTS", options.slots as usize)?;
        let counters = map_memory(&mut ebpf, "COUNTER", COUNTERS)?;
        let ports = map_memory(&mut ebpf, "PORTS", 1)?;
        let pending = take(&mut ebpf, "PENDING")?;
        let trace_new = take(&mut ebpf, "TRACE_NEW")?;
        let ring = take(&mut ebpf, "EVENTS")?;

        // The end of connections first, so that none is seen to begin and not to end.
        attach_tracepoint(&mut ebpf, "socket_state")?;
        if has_process_hook {
            for (name, _) in PROCESS_HOOKS {
                attach_tracepoint(&mut ebpf, name)?;
            }
        }
        for (name, direction) in PACKET_PROGRAMS {
            let program: &mut CgroupSkb = program(&mut ebpf, name)?;
            program
                .attach(&cgroup, direction, CgroupAttachMode::Single)
                .map_err(|error| KernelError::program(name, error))?;
        }
        let kernel = Self {
            ebpf,
            slots,
            counters,
            ports,
            free,
            pending,
            trace_new,
            has_process_hook,
        };
        Ok((kernel, ring))
    }

    /// What each loaded program has cost while `kernel.bpf_stats_enabled` was on, by its name.
    pub fn program_stats(&self) -> io::Result<Vec<(&str, RunStats)>> {
        self.ebpf
            .programs()
            .filter_map(|(name, program)| Some((name, program.fd().ok()?)))
            .map(|(name, program)| Ok((name, bpf::run_stats(program.as_fd())?)))
            .collect()
    }

    /// Slots of the pool.
    pub fn slots(&self) -> u32 {
        self.slots.len() as u32
    }

    /// What a slot holds, if somebody owns it.
    pub fn slot(&self, index: u32) -> Option<Slot> {
        let mut state = self.state(index)?;
        let mut slot = self.slots.get(index as usize)?;
        // The programs write the state before what belongs to it. Where it changed during the
        // copy, the copy may have the one without the other. It changes a few times in all.
        for _ in 0..MAX_COPIES {
            let after = self.state(index)?;
            if after == state && slot.state == state {
                break;
            }
            state = after;
            slot = self.slots.get(index as usize)?;
        }
        Some(slot)
    }

    /// The state of a slot that somebody owns.
    fn state(&self, index: u32) -> Option<u8> {
        let pointer = self.slots.pointer(index as usize)?;
        // SAFETY: inside the mapping, a single byte.
        let state = unsafe { (&raw const (*pointer).state).read_volatile() };
        (state != STATE_FREE).then_some(state)
    }

    /// Gives a slot back to the pool.
    pub fn release(&mut self, index: u32) -> Result<(), KernelError> {
        if let Some(pointer) = self.slots.pointer(index as usize) {
            // SAFETY: inside the mapping; whole words and bytes.
            let (local, remote) = unsafe {
                (&raw mut (*pointer).state).write_volatile(STATE_FREE);
                ((*pointer).local_port, (*pointer).remote_port)
            };
            self.forget_ports(local, remote);
            self.free
                .push(index, 0)
                .map_err(|error| KernelError::map("FREE_SLOTS", error))?;
        }
        Ok(())
    }

    /// A connection with these ports has no slot any more.
    fn forget_ports(&self, local: u16, remote: u16) {
        let Some(pairs) = self.ports.pointer(0) else {
            return;
        };
        let pair = port_pair(u32::from(local), u32::from(remote)) as usize;
        // SAFETY: inside the mapping, aligned to 4 bytes; the kernel adds atomically too.
        let count = unsafe { AtomicU32::from_ptr(&raw mut (*pairs)[pair].slots) };
        count.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether a connection's frames are sent as events.
    pub fn trace(&mut self, index: u32, on: bool) {
        if let Some(pointer) = self.slots.pointer(index as usize) {
            // SAFETY: inside the mapping, a single byte.
            unsafe { (&raw mut (*pointer).traced).write_volatile(u8::from(on)) };
        }
    }

    /// Whether connections that begin from now on are traced.
    pub fn trace_new(&mut self, on: bool) -> Result<(), KernelError> {
        self.trace_new
            .set(0, u32::from(on), 0)
            .map_err(|error| KernelError::map("TRACE_NEW", error))
    }

    /// What a counter says now.
    pub fn counter(&self, counter: Counter) -> u64 {
        self.counters.get(counter as usize).unwrap_or(0)
    }

    /// Tells the programs what time it is: see [`Counter::Clock`].
    pub fn set_clock(&self, now_ns: u64) {
        if let Some(pointer) = self.counters.pointer(Counter::Clock as usize) {
            // SAFETY: inside the mapping, a whole word.
            unsafe { pointer.write_volatile(now_ns) };
        }
    }

    /// Drops handshakes on listening sockets whose own sockets never came: their slots were given
    /// back.
    pub fn sweep_pending(&mut self) {
        if self.counter(Counter::Pending) == 0 {
            return;
        }
        let is_stale = |of: SocketRef| {
            self.slot(of.slot)
                .is_none_or(|slot| slot.generation != of.generation)
        };
        let stale: Vec<PairKey> = self
            .pending
            .iter()
            .flatten()
            .filter(|(_, of)| is_stale(of.0))
            .map(|(pair, _)| pair)
            .collect();
        for pair in stale {
            let gone = self.pending.remove(&pair).is_ok();
            if let (true, Some(pointer)) = (gone, self.counters.pointer(Counter::Pending as usize))
            {
                // SAFETY: inside the mapping, aligned to 8 bytes; the kernel adds atomically too.
                let counter = unsafe { AtomicU64::from_ptr(pointer) };
                counter.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }
}

fn load_object(options: &Options) -> Result<Ebpf, KernelError> {
    let fields = [
        // The first member of a socket.
        ("SKC_NUM", "sock_common", "skc_num"),
        ("SKC_DPORT", "sock_common", "skc_dport"),
        ("SOCK_ERR", "sock", "sk_err"),
        ("TCP_WRITE_SEQ", "tcp_sock", "write_seq"),
        ("TCP_SND_NXT", "tcp_sock", "snd_nxt"),
        ("TCP_RCV_WUP", "tcp_sock", "rcv_wup"),
        ("TCP_RCV_WND", "tcp_sock", "rcv_wnd"),
        ("TASK_FLAGS", "task_struct", "flags"),
        ("TASK_MM", "task_struct", "mm"),
        ("MM_EXE_FILE", "mm_struct", "exe_file"),
        ("FILE_DENTRY", "file", "f_path.dentry"),
        ("DENTRY_NAME", "dentry", "d_name.name"),
    ];
    let btf = btf::Btf::of_kernel()
        .inspect_err(|error| {
            warn!("the kernel has no BTF that can be read ({error}): no causes, no unsent bytes");
        })
        .ok();
    let offsets = fields.map(|(global, structure, field)| {
        let offset = btf.as_ref().and_then(|btf| btf.offset(structure, field));
        if let Some(offset) = offset {
            debug!("{structure}.{field} is at {offset}");
        } else {
            warn!("this kernel has no {structure}.{field} that wsmon can read");
        }
        (global, offset)
    });
    let csum_valid = btf
        .as_ref()
        .and_then(|btf| btf.bit("sk_buff", "csum_valid"));
    let mut loader = EbpfLoader::new();
    if let Some((byte, mask)) = &csum_valid {
        loader.override_global("SKB_CSUM_VALID", byte, true);
        loader.override_global("SKB_CSUM_VALID_MASK", mask, true);
    } else {
        warn!("this kernel does not show which checksums it verified: all are believed");
    }
    for (global, offset) in &offsets {
        if let Some(offset) = offset {
            loader.override_global(global, offset, true);
        }
    }
    loader
        .map_max_entries("SLOTS", options.slots)
        .map_max_entries("CURSORS", options.slots)
        .map_max_entries("FREE_SLOTS", options.slots)
        .map_max_entries("BUFFERS", options.buffers)
        .map_max_entries("FREE_BUFFERS", options.buffers)
        .map_max_entries("EVENTS", options.ring_size())
        .load(OBJECT)
        .map_err(|error| KernelError::Object(Box::new(error)))
}

fn load_tracepoint(
    ebpf: &mut Ebpf,
    btf: &Btf,
    name: &'static str,
    tracepoint: &str,
) -> Result<(), KernelError> {
    let program: &mut BtfTracePoint = program(ebpf, name)?;
    program
        .load(tracepoint, btf)
        .map_err(|error| KernelError::program(name, error))
}

fn attach_tracepoint(ebpf: &mut Ebpf, name: &'static str) -> Result<(), KernelError> {
    let program: &mut BtfTracePoint = program(ebpf, name)?;
    program
        .attach()
        .map_err(|error| KernelError::program(name, error))?;
    Ok(())
}

fn program<'a, P>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut P, KernelError>
where
    &'a mut P: TryFrom<&'a mut aya::programs::Program, Error = ProgramError>,
{
    ebpf.program_mut(name)
        .ok_or(ProgramError::NotLoaded)
        .and_then(TryInto::try_into)
        .map_err(|error| KernelError::program(name, error))
}

fn take<M: TryFrom<Map, Error = MapError>>(
    ebpf: &mut Ebpf,
    name: &'static str,
) -> Result<M, KernelError> {
    ebpf.take_map(name)
        .ok_or_else(|| MapError::InvalidName {
            name: name.to_owned(),
        })
        .and_then(TryInto::try_into)
        .map_err(|error| KernelError::map(name, error))
}

/// Puts the numbers 0 to `count` - 1 into a queue.
fn fill(
    ebpf: &mut Ebpf,
    name: &'static str,
    count: u32,
) -> Result<Queue<MapData, u32>, KernelError> {
    let mut queue: Queue<_, u32> = take(ebpf, name)?;
    for index in 0..count {
        queue
            .push(index, 0)
            .map_err(|error| KernelError::map(name, error))?;
    }
    Ok(queue)
}

fn map_memory<T: Copy>(
    ebpf: &mut Ebpf,
    name: &'static str,
    len: usize,
) -> Result<Mapped<T>, KernelError> {
    let Some(Map::Array(array)) = ebpf.take_map(name) else {
        let name_of_it = name.to_owned();
        return Err(KernelError::map(
            name,
            MapError::InvalidName { name: name_of_it },
        ));
    };
    Mapped::new(array.fd().as_fd(), len).map_err(|error| KernelError::Mapping(name, error))
}
