//! The kernel's own state of a connection, beside its slot: where each direction stands, and
//! what arrived too early. Never leaves the kernel.

use core::cell::UnsafeCell;

use crate::head::HeadScanner;
use crate::stream::Direction;

/// What the socket's storage holds: which slot is the connection's, and its generation there.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketRef {
    pub slot: u32,
    pub generation: u32,
}

/// Segments ahead of a gap that are kept per connection.
pub const ISLANDS: usize = 8;
/// The longest segment that can be kept.
pub const ISLAND_BYTES: usize = 65536;
/// Bytes of an island that a further segment can still be appended to.
pub const APPEND_BELOW: usize = 32768;
/// The size of an island's buffer.
pub const BUFFER_BYTES: usize = ISLAND_BYTES + APPEND_BELOW;
/// Free, in [`Island::state`].
pub const ISLAND_FREE: u64 = 0;
/// Somebody is writing the island.
pub const ISLAND_CLAIMED: u64 = 1;
/// The island can be read by whoever holds the direction.
pub const ISLAND_READY: u64 = 2;

/// A segment that came before its turn: ahead of a gap, or while another CPU was at work.
#[repr(C)]
pub struct Island {
    /// `ISLAND_*`.
    pub state: Shared,
    /// Stream offset of the first byte.
    pub start: u64,
    /// Bytes.
    pub len: u32,
    /// Index of the buffer that holds the bytes.
    pub buffer: u32,
}

/// A word that several CPUs use. Its atomic operations are the kernel side's: the compiler has
/// none for that target.
#[repr(transparent)]
pub struct Shared(UnsafeCell<u64>);

impl Shared {
    /// What is there now, in no order with anything else.
    #[inline(always)]
    pub fn get(&self) -> u64 {
        // SAFETY: an aligned word is read whole.
        unsafe { self.0.get().read_volatile() }
    }

    /// Stores while nobody else can use the word.
    #[inline(always)]
    pub fn set(&mut self, value: u64) {
        *self.0.get_mut() = value;
    }

    /// The word itself.
    #[inline(always)]
    pub fn as_ptr(&self) -> *mut u64 {
        self.0.get()
    }
}

/// See the module.
#[repr(C)]
pub struct Cursor {
    /// 1 while a CPU follows the received direction; sent bytes are serialised by the socket.
    pub busy: Shared,
    /// Islands that are not free.
    pub waiting: Shared,
    /// Islands that were ever made: who lets go of the direction compares it, to miss none.
    pub arrivals: Shared,
    /// The connection's socket, by its address in the kernel; 0 until it was seen.
    pub socket: u64,
    /// The head of the request.
    pub request: HeadScanner,
    /// The head of the answer.
    pub response: HeadScanner,
    /// Stream offset of the request's first byte, in the direction of the request.
    pub request_start: u64,
    /// The same of the answer; 0 until it begins.
    pub response_start: u64,
    /// The request's head is complete.
    pub request_done: u32,
    /// Bytes followed the request before it was answered.
    pub early: u32,
    /// The sequence number at which the answer begins is not known yet.
    pub unanchored: u32,
    _reserved: u32,
    /// Received segments that wait.
    pub islands: [Island; ISLANDS],
    /// What this host's socket sends.
    pub sent: Direction,
    /// What it receives.
    pub received: Direction,
}

impl Cursor {
    /// The state before a connection's request. Islands are left as they are.
    #[inline(always)]
    pub fn reset(&mut self) {
        self.busy.set(0);
        self.socket = 0;
        self.request = HeadScanner::request();
        self.response = HeadScanner::response();
        self.request_start = 0;
        self.response_start = 0;
        self.request_done = 0;
        self.early = 0;
        self.unanchored = 0;
        self.sent.reset();
        self.received.reset();
    }
}

const _: () = assert!(size_of::<Island>() == 24);
const _: () = assert!(size_of::<Cursor>() == 1168);

/// Where the kernel keeps handshakes that arrived on a listening socket (TCP_DEFER_ACCEPT, data
/// on the third ACK, TCP Fast Open) until their own socket is seen. Network addresses as IPv6,
/// ports in host byte order.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressPair {
    pub local: [u32; 4],
    pub remote: [u32; 4],
    pub local_port: u32,
    pub remote_port: u32,
}

/// What is known of the connections with a pair of ports: saves a look into the sockets' storage.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct PortPair {
    /// The socket that the next two fields are about, by its address in the kernel. 0 for none.
    pub socket: u64,
    /// Its slot, or [`NOT_HTTP`].
    pub slot: u32,
    /// The slot's generation.
    pub generation: u32,
    /// Slots in use for these ports.
    pub slots: u32,
    _reserved: u32,
}

/// The connection began with something that is not HTTP/1.1: nothing of it needs a look.
pub const NOT_HTTP: u32 = u32::MAX;

/// Entries of the table of [`PortPair`]s.
pub const PORT_PAIRS: usize = 16384;

/// The entry of a pair of ports, in host byte order. Ports that were given out one after the
/// other have entries next to each other.
#[inline(always)]
pub fn port_pair(local: u32, remote: u32) -> u32 {
    (local ^ (remote << 5) ^ (remote >> 9)) & (PORT_PAIRS as u32 - 1)
}

/// Counters of the kernel side, by index in its map of counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Counter {
    /// Connections that found no free slot.
    Untracked = 0,
    /// Events that found no room in the ring.
    EventsLost = 1,
    /// Connections whose socket storage could not be made.
    StorageFailed = 2,
    /// Packets of TCP sockets whose headers could not be read.
    Unparsed = 3,
    /// Segments that could not be kept until their turn.
    SegmentsDropped = 4,
    /// Handshakes on a listening socket that could not be kept.
    PendingFull = 5,
    /// Handshakes on a listening socket that wait for their own socket.
    Pending = 6,
    /// Always 0: see [`crate::head::HeadWalk::new`].
    Zero = 7,
    /// Nanoseconds of `CLOCK_MONOTONIC` when user space looked last: what received payload is
    /// timed by.
    Clock = 8,
}

/// Entries in the map of counters.
pub const COUNTERS: usize = 9;
