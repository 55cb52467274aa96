//! From bytes that the kernel left in the ring buffer to events.

use wsmon_common::slot::Slot;

/// One owner of a slot: the same while a connection lives, never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId {
    pub slot: u32,
    pub generation: u32,
}

/// Which way bytes went, seen from this host's socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    Sent,
    Received,
}

/// What goes into the model. Times are nanoseconds of `CLOCK_MONOTONIC`.
#[derive(Debug)]
pub enum Event<'a> {
    /// A piece of a request's or response's head, in stream order.
    Head {
        id: ConnectionId,
        direction: Direction,
        at: u32,
        last: bool,
        bytes: &'a [u8],
        time_ns: u64,
    },
    /// The slot changed its state; a hint that it is worth a look now.
    State {
        id: ConnectionId,
        ended: bool,
        time_ns: u64,
    },
    /// A frame of a traced connection; `frame` is the whole frame for a control frame, else empty.
    Frame {
        id: ConnectionId,
        direction: Direction,
        time_ns: u64,
        first: u8,
        masked: bool,
        payload_len: u64,
        frame: &'a [u8],
    },
    /// What a slot holds now.
    Slot { index: u32, slot: &'a Slot },
    /// Which process owns the connection.
    Process {
        id: ConnectionId,
        process: crate::identity::Process,
    },
}
