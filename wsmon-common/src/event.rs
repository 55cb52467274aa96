//! Records in the ring buffer, from the kernel to user space: handshake heads, ends of
//! connections, and the frames of traced connections. Host byte order, aligned to 8 bytes.

/// The layout of this file; user space refuses any other.
pub const VERSION: u8 = 1;

/// A [`Head`] with up to [`SMALL_HEAD`] or [`LARGE_HEAD`] bytes.
pub const KIND_HEAD: u8 = 1;
/// A [`State`].
pub const KIND_STATE: u8 = 2;
/// A [`Frame`] without payload, or with that of a control frame.
pub const KIND_FRAME: u8 = 3;

/// What the host's socket sent, in [`EventHeader::direction`].
pub const SENT: u8 = 0;
/// What the host's socket received.
pub const RECEIVED: u8 = 1;

/// Bytes in the smaller form of a [`Head`].
pub const SMALL_HEAD: usize = 256;
/// Bytes in the larger form of a [`Head`].
pub const LARGE_HEAD: usize = 1024;
/// The most of a head that leaves the kernel.
pub const MAX_HEAD: u32 = 8192;

/// What every record begins with.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct EventHeader {
    /// [`VERSION`].
    pub version: u8,
    /// `KIND_*`.
    pub kind: u8,
    /// [`SENT`] or [`RECEIVED`]; 0 where it has no meaning.
    pub direction: u8,
    _reserved: u8,
    /// The slot of the connection.
    pub slot: u32,
    /// The slot's generation when this was written.
    pub generation: u32,
    /// Bytes of data that are valid.
    pub len: u32,
    /// Nanoseconds of `CLOCK_MONOTONIC`.
    pub time_ns: u64,
}

/// A piece of a request's or response's head, in stream order.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Head<const N: usize> {
    /// `len` counts the bytes of `data`.
    pub header: EventHeader,
    /// Bytes of the head before this piece.
    pub at: u32,
    /// 1 if the head ends with this piece.
    pub last: u32,
    /// The bytes.
    pub data: [u8; N],
}

/// The connection's state changed: see the slot, which may have changed again since.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct State {
    /// `len` is 0.
    pub header: EventHeader,
    /// The slot's new state.
    pub state: u32,
    /// 1 if the connection ended.
    pub ended: u32,
}

/// A frame of a traced connection.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Frame<const N: usize> {
    /// `len` counts the bytes of `data`.
    pub header: EventHeader,
    /// Bytes of payload, as in the frame's header.
    pub payload_len: u64,
    /// The first byte of the frame's header: FIN, RSV, opcode.
    pub first: u8,
    /// 1 if the frame is masked.
    pub masked: u8,
    /// Bytes of the frame's header.
    pub header_len: u8,
    _reserved: [u8; 5],
    /// Of a control frame: the frame as it stands on the wire, its header included.
    pub data: [u8; N],
}

/// Bytes in the form of a [`Frame`] that carries a control frame.
pub const CONTROL_DATA: usize = 136;

impl EventHeader {
    /// A header of this version.
    #[inline(always)]
    pub const fn new(
        kind: u8,
        direction: u8,
        slot: u32,
        generation: u32,
        len: u32,
        time_ns: u64,
    ) -> Self {
        Self {
            version: VERSION,
            kind,
            direction,
            _reserved: 0,
            slot,
            generation,
            len,
            time_ns,
        }
    }
}
