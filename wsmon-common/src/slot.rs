//! The record that every WebSocket owns while it is open. The kernel writes it in place, user
//! space reads it through a shared mapping; nothing is sent per frame.
//!
//! Each field has one writer. Numbers are in host byte order, times in nanoseconds of
//! `CLOCK_MONOTONIC`, and counters only grow. Bytes are bytes of the TCP stream.

use crate::frame;

/// The slot is in the pool.
pub const STATE_FREE: u8 = 0;
/// A request began; whether it asks for a WebSocket is not known yet.
pub const STATE_CANDIDATE: u8 = 1;
/// The request asks for a WebSocket; no answer yet.
pub const STATE_HANDSHAKE: u8 = 2;
/// The answer was 101: frames flow.
pub const STATE_OPEN: u8 = 3;
/// The answer was a final status other than 101.
pub const STATE_REFUSED: u8 = 4;
/// The request turned out not to ask for a WebSocket.
pub const STATE_ABANDONED: u8 = 5;

/// Which end of the WebSocket this host's socket is: it accepted the request.
pub const ROLE_SERVER: u8 = 1;
/// It sent the request.
pub const ROLE_CLIENT: u8 = 2;

/// Nobody yet, in `first_close` and `first_end`.
pub const SIDE_NONE: u8 = 0;
/// This host's socket.
pub const SIDE_LOCAL: u8 = 1;
/// The peer.
pub const SIDE_REMOTE: u8 = 2;

/// A FIN passed, in [`SlotDirection::tcp_flags`].
pub const TCP_FIN: u8 = 0x01;
/// A RST passed, in [`SlotDirection::tcp_flags`].
pub const TCP_RST: u8 = 0x04;

/// Frame events are wanted for this connection, in [`Slot::traced`].
pub const TRACED: u8 = 1;

/// No Close frame passed, in [`SlotDirection::close_code`].
pub const CLOSE_NONE: u16 = 0;
/// A Close frame without a code (RFC 6455, section 7.1.5).
pub const CLOSE_NO_STATUS: u16 = 1005;

/// Buckets of the message size histogram: edges 2^4, 2^6 … 2^24 bytes, and one for what is above.
pub const SIZE_BUCKETS: usize = 12;

/// Indices of [`SlotDirection::frames`].
pub const FRAME_CLASSES: [&str; 7] = [
    "continuation",
    "text",
    "binary",
    "close",
    "ping",
    "pong",
    "reserved",
];

/// What a connection is, and what is not bound to a direction.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug)]
pub struct Slot {
    /// Grows each time the slot is taken; a reader that sees another value reads a newer owner.
    pub generation: u32,
    /// `STATE_*`.
    pub state: u8,
    /// `ROLE_*`.
    pub role: u8,
    /// Whether the process was seen to exit while the socket was open.
    pub process_exit: u8,
    /// [`TRACED`] or 0; written by user space.
    pub traced: u8,
    /// The kernel's socket cookie; 0 until the socket itself was seen.
    pub cookie: u64,
    /// This host's address; IPv4 as IPv4-mapped IPv6.
    pub local: [u8; 16],
    /// The peer's address; IPv4 as IPv4-mapped IPv6.
    pub remote: [u8; 16],
    /// This host's TCP port.
    pub local_port: u16,
    /// The peer's TCP port.
    pub remote_port: u16,
    /// Thread group that used the socket first; 0 if not known.
    pub pid: u32,
    /// When the request's first bytes passed.
    pub request_ns: u64,
    /// When the status line of the answer passed; 0 before.
    pub response_ns: u64,
    /// When the connection ended (TCP state CLOSE, or refused); 0 before.
    pub end_ns: u64,
    /// HTTP status of the answer; 0 before.
    pub status: u16,
    /// Who sent the first Close frame: `SIDE_*`.
    pub first_close: u8,
    /// Who sent the first FIN or RST: `SIDE_*`.
    pub first_end: u8,
    /// The socket's error when it closed (`ETIMEDOUT`, `ECONNRESET` …); 0 for none or unknown.
    pub error: u32,
    /// Bytes that the application had written and that were never sent when the socket closed.
    pub unsent: u64,
    /// File name of that process's executable, cut to 31 bytes and ended by a zero; empty if not
    /// known.
    pub executable: [u8; 32],
    /// What this host's socket sent.
    pub sent: SlotDirection,
    /// What this host's socket received.
    pub received: SlotDirection,
}

/// What passed in one direction.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug)]
pub struct SlotDirection {
    /// Frames by [`FRAME_CLASSES`], each when its header is complete.
    pub frames: [u64; 7],
    /// Payload bytes of all frames counted, the whole of the last one included: see
    /// [`SlotDirection::payload_passed`].
    pub payload: u64,
    /// Messages of type text and binary, each when its last byte passed.
    pub messages: [u64; 2],
    /// Messages with RSV1: compressed, where permessage-deflate was negotiated.
    pub rsv1_messages: u64,
    /// Stream offset behind the handshake; 0 before.
    pub start: u64,
    /// Stream offset behind the last byte that passed.
    pub high: u64,
    /// Stream offset of the next header (or of the bytes that complete one).
    pub next: u64,
    /// Bytes that passed while the frame boundary was not known, in episodes that are over.
    pub unsynced: u64,
    /// Stream offset at which the boundary was lost; 0 while it is known.
    pub lost_at: u64,
    /// When payload passed last. Of what is received, as coarse as the agent's sweeps: reading the
    /// clock costs more than following a frame.
    pub activity_ns: u64,
    /// [`crate::stream::Violation`]s seen, a bit each.
    pub violations: u16,
    /// Status code of the first Close frame, [`CLOSE_NONE`] or [`CLOSE_NO_STATUS`].
    pub close_code: u16,
    /// [`TCP_FIN`] and [`TCP_RST`].
    pub tcp_flags: u8,
    /// Why the boundary was lost: [`crate::stream::Loss`].
    pub loss: u8,
    _reserved: [u8; 2],
    /// Messages by size: see [`size_bucket`].
    pub sizes: [u32; SIZE_BUCKETS],
}

const _: () = assert!(size_of::<SlotDirection>() == 192);
const _: () = assert!(size_of::<Slot>() == 512);

impl Slot {
    /// A slot that nobody owns.
    pub const EMPTY: Self = {
        // SAFETY: integers and arrays of integers only; zero is a value of each.
        unsafe { core::mem::zeroed() }
    };
}

impl Slot {
    /// The executable's file name, without the zero that ends it.
    pub fn executable_name(&self) -> &[u8] {
        let len = self
            .executable
            .iter()
            .position(|&byte| byte == 0)
            .unwrap_or(0);
        self.executable.get(..len).unwrap_or_default()
    }
}

impl SlotDirection {
    /// Payload bytes that passed: without the rest of a frame that is still under way.
    pub fn payload_passed(&self) -> u64 {
        let rest = if self.lost_at == 0 {
            self.next.saturating_sub(self.high)
        } else {
            0
        };
        self.payload.saturating_sub(rest)
    }

    /// Bytes that passed while the frame boundary was not known.
    pub fn unsynced_passed(&self) -> u64 {
        let open = if self.lost_at == 0 {
            0
        } else {
            self.high.saturating_sub(self.lost_at)
        };
        self.unsynced + open
    }

    /// Bytes that passed behind the handshake.
    pub fn wire(&self) -> u64 {
        if self.start == 0 {
            0
        } else {
            self.high.saturating_sub(self.start)
        }
    }
}

/// The index in [`SlotDirection::frames`] for an opcode.
#[inline(always)]
pub fn frame_class(opcode: u8) -> usize {
    match opcode {
        frame::OPCODE_CONTINUATION => 0,
        frame::OPCODE_TEXT => 1,
        frame::OPCODE_BINARY => 2,
        frame::OPCODE_CLOSE => 3,
        frame::OPCODE_PING => 4,
        frame::OPCODE_PONG => 5,
        _ => 6,
    }
}

/// The bucket of a message of `len` bytes: the first whose edge, 2^(4 + 2·bucket), is not less.
#[inline(always)]
pub fn size_bucket(len: u64) -> usize {
    let mut above = len.saturating_sub(1) >> 4;
    if above == 0 {
        return 0;
    }
    let mut bucket = 1;
    if above >> 16 != 0 {
        bucket += 8;
        above >>= 16;
    }
    if above >> 8 != 0 {
        bucket += 4;
        above >>= 8;
    }
    if above >> 4 != 0 {
        bucket += 2;
        above >>= 4;
    }
    if above >> 2 != 0 {
        bucket += 1;
    }
    if len > 1 << 24 {
        SIZE_BUCKETS - 1
    } else {
        bucket
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_falls_into_the_first_bucket_whose_edge_is_not_less() {
        for (len, bucket) in [
            (0, 0),
            (1, 0),
            (16, 0),
            (17, 1),
            (64, 1),
            (65, 2),
            (256, 2),
            (257, 3),
        ] {
            assert_eq!(size_bucket(len), bucket, "{len}");
        }
        for bucket in 0..SIZE_BUCKETS - 1 {
            let edge = 1u64 << (4 + 2 * bucket);
            assert_eq!(size_bucket(edge), bucket);
            assert_eq!(size_bucket(edge + 1), bucket + 1);
        }
        assert_eq!(size_bucket(u64::MAX), SIZE_BUCKETS - 1);
        assert_eq!(size_bucket(1 << 40), SIZE_BUCKETS - 1);
    }

    #[test]
    fn the_rest_of_a_frame_under_way_is_not_counted_as_passed() {
        let mut direction = Slot::EMPTY.sent;
        (direction.payload, direction.next, direction.high) = (1000, 1104, 504);
        assert_eq!(direction.payload_passed(), 400);
        direction.high = 1104;
        assert_eq!(direction.payload_passed(), 1000);
    }
}
