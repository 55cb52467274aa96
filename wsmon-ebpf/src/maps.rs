//! Everything that outlives a run of a program.

use aya_ebpf::{
    bindings::BPF_F_MMAPABLE,
    btf_maps::{Array, HashMap, Queue, RingBuf, SkStorage},
    helpers::generated::{bpf_sk_storage_delete, bpf_sk_storage_get},
    macros::btf_map,
};
use core::ffi::c_void;
use wsmon_common::{
    cursor::{
        self, AddressPair, BUFFER_BYTES, COUNTERS, Counter, Cursor, PORT_PAIRS, PortPair, Shared,
        SocketRef,
    },
    slot::Slot,
};

use crate::atomic::{add, fetch_add};

/// One record per connection; user space maps it. Sized at load.
#[btf_map]
pub static SLOTS: Array<Slot, 1, { BPF_F_MMAPABLE as usize }> = Array::new();

/// The kernel's own state beside each slot. Sized at load.
#[btf_map]
pub static CURSORS: Array<Cursor, 1> = Array::new();

/// Slots that nobody owns. Filled by user space. Sized at load.
#[btf_map]
pub static FREE_SLOTS: Queue<u32, 1> = Queue::new();

/// Which slot a socket's connection has.
#[btf_map]
static SOCKETS: SkStorage<SocketRef> = SkStorage::new();

/// Handshakes on a listening socket, until their own socket is seen.
#[btf_map]
pub static PENDING: HashMap<AddressPair, SocketRef, 1024> = HashMap::new();

/// Bytes of segments that came before their turn. Sized at load.
#[btf_map]
pub static BUFFERS: Array<[u8; BUFFER_BYTES], 1> = Array::new();

/// Buffers that nobody uses. Filled by user space. Sized at load.
#[btf_map]
pub static FREE_BUFFERS: Queue<u32, 1> = Queue::new();

/// Events for user space. Sized at load.
#[btf_map]
pub static EVENTS: RingBuf<[u8; 0], 4096> = RingBuf::new();

/// See [`Counter`]; user space maps it.
#[btf_map]
pub static COUNTER: Array<u64, COUNTERS, { BPF_F_MMAPABLE as usize }> = Array::new();

/// What every packet of the host is looked up in first. In `slots`, the kernel adds and user space
/// takes away.
#[btf_map]
static PORTS: Array<[PortPair; PORT_PAIRS], 1, { BPF_F_MMAPABLE as usize }> = Array::new();

/// Whether connections that begin now are traced: 1 or 0. Written by user space.
#[btf_map]
pub static TRACE_NEW: Array<u32, 1> = Array::new();

/// What is known of the connections with these ports.
#[inline(always)]
pub fn port_pair(local: u32, remote: u32) -> Option<*mut PortPair> {
    let pairs = PORTS.get_ptr_mut(0)?;
    // SAFETY: the map's values live as long as the programs; the entry is inside.
    Some(unsafe { &raw mut (*pairs)[cursor::port_pair(local, remote) as usize] })
}

/// A slot was taken for these ports.
#[inline(always)]
pub fn count_slot(local: u32, remote: u32) {
    if let Some(pair) = port_pair(local, remote) {
        // SAFETY: as above; an aligned word.
        unsafe { add(&raw mut (*pair).slots, 1) };
    }
}

/// Notes what a socket with these ports has: a slot, or nothing of interest.
#[inline(always)]
pub fn note_socket(sk: *mut c_void, local: u32, remote: u32, of: SocketRef) {
    if let Some(pair) = port_pair(local, remote) {
        // SAFETY: as above. What a reader makes of half of this is checked by the slot's own note of its socket.
        unsafe {
            (*pair).socket = 0;
            (*pair).slot = of.slot;
            (*pair).generation = of.generation;
            (&raw mut (*pair).socket).write_volatile(sk as u64);
        }
    }
}

/// 0, which the verifier does not know.
#[inline(always)]
pub fn zero() -> u64 {
    counted(Counter::Zero)
}

/// Adds to a counter. Rare paths only: it is shared by all CPUs.
#[inline(always)]
pub fn count(counter: Counter, by: i64) {
    if let Some(value) = COUNTER.get_ptr_mut(counter as u32) {
        // SAFETY: the map's values live as long as the programs, aligned to 8 bytes.
        let value = unsafe { &*value.cast::<Shared>() };
        fetch_add(value, by as u64);
    }
}

/// What a counter says now.
#[inline(always)]
pub fn counted(counter: Counter) -> u64 {
    // SAFETY: the map's values live as long as the programs; a torn value is impossible.
    COUNTER
        .get_ptr(counter as u32)
        .map_or(0, |value| unsafe { *value })
}

/// The slot's number of a socket, if it has one.
///
/// # Safety
///
/// `sk` is a full socket that the verifier knows as such.
#[inline(always)]
pub unsafe fn socket_ref(sk: *mut c_void) -> Option<SocketRef> {
    let map = (&raw const SOCKETS).cast_mut().cast();
    // SAFETY: by the contract of this function; the value stays while the program runs.
    unsafe {
        let found: *const SocketRef = bpf_sk_storage_get(map, sk, core::ptr::null_mut(), 0).cast();
        if found.is_null() { None } else { Some(*found) }
    }
}

/// Gives the socket a slot's number. False if the storage cannot be made.
///
/// # Safety
///
/// `sk` is a full socket that the verifier knows as such.
#[inline(always)]
pub unsafe fn set_socket_ref(sk: *mut c_void, mut to: SocketRef) -> bool {
    const CREATE: u64 = 1;
    let map = (&raw const SOCKETS).cast_mut().cast();
    // SAFETY: by the contract of this function; the value stays while the program runs.
    unsafe {
        let value: *mut SocketRef =
            bpf_sk_storage_get(map, sk, (&raw mut to).cast(), CREATE).cast();
        if value.is_null() {
            return false;
        }
        // An older connection of the same socket may have left its number.
        *value = to;
    }
    true
}

/// Forgets the socket's slot.
///
/// # Safety
///
/// `sk` is a socket that the verifier knows as such.
#[inline(always)]
pub unsafe fn clear_socket_ref(sk: *mut c_void) {
    // SAFETY: by the contract of this function.
    unsafe { bpf_sk_storage_delete((&raw const SOCKETS).cast_mut().cast(), sk) };
}

/// The slot and the cursor of a connection.
#[inline(always)]
pub fn connection(slot: u32) -> Option<(*mut Slot, *mut Cursor)> {
    Some((SLOTS.get_ptr_mut(slot)?, CURSORS.get_ptr_mut(slot)?))
}
