//! Follows the frames of one direction of a WebSocket through the TCP stream.
//!
//! The stream arrives in chunks (a packet's payload, a buffer, a piece of a file). The follower
//! knows at which stream offset the next header starts and looks at nothing before it: payload
//! costs nothing, whatever its length, and a retransmission is a chunk that ends before it.
//! A header, or a control frame, that is cut by the end of a chunk is carried over.

mod count;
mod proof;

use crate::frame::{
    FIN, Header, MAX_CONTROL_FRAME, MAX_CONTROL_PAYLOAD, MAX_HEADER, OPCODE_BINARY, OPCODE_CLOSE,
    OPCODE_PONG, OPCODE_TEXT, RSV1, WINDOW, WINDOW_START_MASK,
};
use crate::slot::{CLOSE_NONE, SlotDirection};
use crate::verifier::opaque;
pub use count::close_code;
use proof::PROOF;

/// What one load brings into the window: a carried control frame and a load fit together.
pub const LOAD: u32 = 252;
const _: () = assert!(LOAD <= WINDOW_START_MASK);
const _: () = assert!(MAX_CONTROL_FRAME + LOAD <= WINDOW as u32);

/// Frames of the usual kind that one step takes at most.
const BURST: u32 = 8;

/// Where the bytes of a chunk come from.
pub trait ByteSource {
    /// Copies `len` bytes (1 to [`LOAD`]) from offset `from` of the chunk to `window[at..]`,
    /// where `at` is at most [`MAX_CONTROL_FRAME`]. False if they cannot be read.
    fn load(&mut self, from: u32, window: &mut [u8; WINDOW], at: u32, len: u32) -> bool;
}

/// Sees each frame as it is counted.
pub trait FrameSink {
    /// Whether it is to see every frame: else some that are whole and legal are only counted.
    fn wants_all(&self) -> bool {
        true
    }

    /// `window[start..]` holds the header, and the payload of a legal control frame.
    fn frame(&mut self, header: &Header, window: &[u8; WINDOW], start: u32);
}

impl FrameSink for () {
    #[inline(always)]
    fn wants_all(&self) -> bool {
        false
    }

    #[inline(always)]
    fn frame(&mut self, _header: &Header, _window: &[u8; WINDOW], _start: u32) {}
}

/// What RFC 6455 forbids and was seen; a bit each in [`SlotDirection::violations`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Violation {
    /// An opcode that RFC 6455, section 5.2 reserves.
    ReservedOpcode = 0,
    /// RSV2 or RSV3, which no registered extension uses.
    ReservedBits = 1,
    /// A client's frame without a masking key, or a server's with one (section 5.1).
    Masking = 2,
    /// A control frame with more than 125 bytes of payload (section 5.5).
    ControlTooLong = 3,
    /// A control frame without FIN (section 5.5).
    ControlFragmented = 4,
    /// A continuation where no message had begun (section 5.4).
    UnexpectedContinuation = 5,
    /// A new message before the last one ended (section 5.4).
    InterleavedMessage = 6,
    /// A length in more bytes than it needs (section 5.2).
    OverlongLength = 7,
    /// A 64-bit length with the top bit set (section 5.2). The boundary is lost with it.
    LengthTopBit = 8,
    /// A Close frame with one byte of payload (section 5.5.1).
    CloseTooShort = 9,
    /// A code in a Close frame that must not be sent (section 7.4).
    CloseCode = 10,
    /// RSV1 on a control frame or a continuation (RFC 7692, section 6).
    MisplacedRsv1 = 11,
    /// A frame after a Close frame (section 5.5.1).
    AfterClose = 12,
}

/// Why a frame boundary was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Loss {
    /// Not lost.
    None = 0,
    /// Bytes are missing that held, or may have held, a header.
    Gap = 1,
    /// A length that cannot be followed.
    Length = 2,
    /// Bytes that could not be read from the packet.
    Unreadable = 3,
    /// Frames that stood in front of the answer to the handshake.
    Early = 4,
    /// A boundary that was found again turned out to be none.
    Disproved = 5,
}

/// Whether [`Direction::step`] is to be called again for this chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// More may follow in the chunk.
    Next,
    /// The chunk is done.
    Done,
}

/// Bytes of the stream that arrived together.
#[derive(Clone, Copy, Debug)]
pub struct Chunk {
    /// Stream offset of the first byte.
    pub start: u64,
    /// Bytes.
    pub len: u32,
}

impl Chunk {
    /// Stream offset behind the last byte.
    #[inline(always)]
    pub fn end(&self) -> u64 {
        self.start + u64::from(self.len)
    }
}

/// A fragmented message whose first frame was not counted, in [`Direction::fragment`].
const FRAGMENT_UNKNOWN: u8 = 3;
/// Whether a message is under way is not known, in [`Direction::fragment`].
const FRAGMENT_UNSURE: u8 = 4;

// The order matters: frames are counted up to FOUND.
/// The boundary is known since the handshake: whatever stands there is what the peer sent.
const SYNCED: u8 = 0;
/// The boundary was lost and found again: what RFC 6455 forbids disproves it.
const FOUND: u8 = 1;
/// A boundary is guessed and followed, and nothing is counted.
const PROVING: u8 = 2;
const LOST: u8 = 3;

/// The state of the follower between two chunks.
#[repr(C)]
pub struct Direction {
    /// Stream offset of a byte near the one that passed last: what sequence numbers are read by.
    pub anchor: u64,
    /// Stream offset of the next byte that is of interest.
    pub next: u64,
    /// Payload of the fragments so far of the message under way.
    message: u64,
    /// Stream offset behind the last byte of the frame whose end has not passed; 0 for none.
    open_until: u64,
    /// Where in the window the next header starts.
    at: u32,
    /// Bytes in the window.
    have: u32,
    /// Offset in the chunk of the window's first byte; wraps where it was carried over.
    window_from: u32,
    /// Bytes of a unit that was cut, at the start of the window.
    carried: u32,
    /// [`SYNCED`] and so on.
    sync: u8,
    /// How far the boundary is proved, while it is: up to [`PROOF`].
    proof: u8,
    /// 0x80 if frames of this direction must be masked, else 0.
    mask: u8,
    /// Opcode of the fragmented message under way; 0 for none.
    fragment: u8,
    /// The message under way began with RSV1.
    fragment_rsv1: u8,
    /// The frame that is open ends its message.
    open_fin: u8,
    /// Always 0, which the kernel's verifier cannot know: without it every length of a header
    /// would be a case of its own to prove.
    zero: u16,
    window: [u8; WINDOW],
}

const _: () = assert!(size_of::<Direction>() == 448);

impl Direction {
    /// The state before any byte.
    pub const NEW: Self = {
        // SAFETY: integers and arrays of integers only; zero is a value of each.
        unsafe { core::mem::zeroed() }
    };

    /// Back to the state before any byte. The window is left as it is.
    #[inline(always)]
    pub fn reset(&mut self) {
        self.anchor = 0;
        self.next = 0;
        self.message = 0;
        self.open_until = 0;
        self.at = 0;
        self.have = 0;
        self.window_from = 0;
        self.carried = 0;
        self.sync = SYNCED;
        self.proof = 0;
        self.mask = 0;
        self.fragment = 0;
        self.fragment_rsv1 = 0;
        self.open_fin = 0;
    }

    /// Begins to follow a stream at TCP sequence number `sequence`.
    #[inline(always)]
    pub fn anchor_at(&mut self, sequence: u32) {
        // One span of sequence numbers below, so that an earlier one has an offset too.
        self.anchor = (1 << 32) + u64::from(sequence);
        self.next = self.anchor;
    }

    /// The stream offset of a TCP sequence number, which is at most 2^31 away from the last.
    #[inline(always)]
    pub fn offset(&self, sequence: u32) -> u64 {
        let distance = sequence.wrapping_sub(self.anchor as u32) as i32;
        self.anchor.wrapping_add(i64::from(distance) as u64)
    }

    /// Frames begin at stream offset `start`; `masked` if a client sends them.
    #[inline(always)]
    pub fn begin_frames(&mut self, slot: &mut SlotDirection, start: u64, masked: bool) {
        self.next = start;
        self.message = 0;
        self.open_until = 0;
        self.carried = 0;
        self.sync = SYNCED;
        self.mask = if masked { 0x80 } else { 0 };
        self.fragment = 0;
        self.fragment_rsv1 = 0;
        slot.start = start;
        slot.high = start;
        slot.next = start;
    }

    /// Whether the frame boundary is known.
    #[inline(always)]
    pub fn is_synced(&self) -> bool {
        self.sync <= FOUND
    }

    /// Whether nothing that ends at stream offset `end` can matter: old bytes, or payload in the
    /// middle of a frame.
    #[inline(always)]
    pub fn can_skip(&self, end: u64) -> bool {
        end < self.next || (end == self.next && self.open_until == 0)
    }

    /// Takes up a chunk; the boundary is lost if it starts behind [`Direction::next`]. With `Next`,
    /// call [`Direction::step`] until it says `Done`.
    #[inline(always)]
    pub fn open_chunk(
        &mut self,
        slot: &mut SlotDirection,
        chunk: &Chunk,
        source: &mut impl ByteSource,
    ) -> Flow {
        let end = chunk.end();
        if chunk.start > self.next {
            return self.lose(slot, end, Loss::Gap);
        }
        if self.open_until != 0 && self.open_until <= end {
            self.open_until = 0;
            if self.open_fin != 0 {
                self.end_message(slot);
            }
        }
        if end <= self.next {
            return Flow::Done;
        }
        if self.sync == LOST {
            // A sender's write often starts a packet, and a frame.
            if chunk.start != self.next {
                self.next = end;
                return Flow::Done;
            }
            self.sync = PROVING;
            self.proof = 0;
            self.fragment = FRAGMENT_UNSURE;
        } else if self.sync == PROVING && self.proof == PROOF && chunk.start != slot.next {
            self.proof = PROOF - 1;
        }
        let from = (self.next - chunk.start) as u32;
        let left = chunk.len.wrapping_sub(from);
        let len = if left > LOAD { LOAD } else { left };
        let carried = self.carried;
        if carried > MAX_CONTROL_FRAME || !source.load(from, &mut self.window, carried, len) {
            self.lose(slot, end, Loss::Unreadable);
            return Flow::Done;
        }
        self.at = 0;
        self.have = carried + len;
        self.window_from = from.wrapping_sub(carried);
        self.carried = 0;
        Flow::Next
    }

    /// Takes frames of the usual kind from the window, each a message of its own that ends in
    /// this chunk, up to [`BURST`]. The way of most frames, so it does nothing that they do not
    /// need: called before [`Direction::step`], it saves most chunks that.
    #[inline(always)]
    pub fn take_short(
        &mut self,
        slot: &mut SlotDirection,
        chunk: &Chunk,
        sink: &impl FrameSink,
    ) -> Flow {
        if self.sync != SYNCED
            || self.fragment != 0
            || slot.close_code != CLOSE_NONE
            || sink.wants_all()
        {
            return Flow::Next;
        }
        let have = self.have;
        let key_len = u32::from(self.mask >> 5);
        let left = chunk.len.wrapping_sub(self.window_from);
        let mut at = self.at;
        let mut taken = 0;
        while taken < BURST {
            let start = opaque(at) as u32 & WINDOW_START_MASK;
            let first = self.window[start as usize];
            let second = self.window[start as usize + 1] ^ self.mask;
            // Text or binary, FIN, no RSV but RSV1, masked as it must be, no longer length.
            let kind = (first & !RSV1).wrapping_sub(FIN | OPCODE_TEXT);
            let len = u32::from(second);
            let end = start + 2 + key_len + len;
            if at + 2 > have || at > WINDOW_START_MASK || kind > 1 || len > 125 || end > left {
                break;
            }
            let kind = opaque(u32::from(kind)) as usize & 1;
            slot.frames[1 + kind] += 1;
            slot.messages[kind] += 1;
            slot.payload += u64::from(len);
            // The first three buckets, whose edges are 16, 64 and 256.
            let bucket = usize::from(len > 16) + usize::from(len > 64);
            slot.sizes[bucket] += 1;
            if first & RSV1 != 0 {
                slot.rsv1_messages += 1;
            }
            at = end;
            taken += 1;
        }
        if taken != 0 {
            self.next = chunk
                .start
                .wrapping_add(i64::from(self.window_from.wrapping_add(at) as i32) as u64);
            slot.next = self.next;
            self.move_to(at);
        }
        if at == left { Flow::Done } else { Flow::Next }
    }

    /// The next header starts at `at` in the window, or behind it.
    #[inline(always)]
    fn move_to(&mut self, at: u32) {
        if at < self.have && at <= WINDOW_START_MASK {
            self.at = at;
        } else {
            // Nothing of it is in the window.
            self.at = 0;
            self.have = 0;
            self.window_from = self.window_from.wrapping_add(at);
        }
    }

    /// Takes the next frame of the chunk.
    #[inline(always)]
    pub fn step(
        &mut self,
        slot: &mut SlotDirection,
        chunk: &Chunk,
        source: &mut impl ByteSource,
        sink: &mut impl FrameSink,
    ) -> Flow {
        let mut at = self.at & WINDOW_START_MASK;
        let mut there = self.have.wrapping_sub(at);
        let unit_from = self.window_from.wrapping_add(at);
        let left = chunk.len.wrapping_sub(unit_from);
        if there < MAX_HEADER && there < left {
            there = match self.refill(unit_from, left, source) {
                Some(there) => there,
                None => return self.lose(slot, chunk.end(), Loss::Unreadable),
            };
            at = 0;
        }
        let zero = u32::from(self.zero);
        at ^= zero;
        there ^= zero;
        let mut header = self.header(at);
        let opcode = header.opcode();
        let mut unit = header.header_len;
        if opcode >= OPCODE_CLOSE
            && opcode <= OPCODE_PONG
            && header.payload_len <= MAX_CONTROL_PAYLOAD
        {
            unit += header.payload_len as u32;
        }
        if there < unit && there < left {
            there = match self.refill(unit_from, left, source) {
                Some(there) => there,
                None => return self.lose(slot, chunk.end(), Loss::Unreadable),
            };
            at = 0;
            header = self.header(at);
        }
        if there < 2 || there < unit {
            return self.carry(slot, chunk, unit_from, at, there, source);
        }
        if header.payload_len >> 63 != 0 {
            if self.sync == SYNCED {
                slot.violations |= 1 << Violation::LengthTopBit as u16;
            }
            return self.lose(slot, chunk.end(), Loss::Length);
        }
        // Stream offsets stay far below 2^63, so neither sum can wrap.
        let unit_start = chunk.start.wrapping_add(i64::from(unit_from as i32) as u64);
        let frame_end = unit_start + u64::from(header.header_len) + header.payload_len;
        self.at = at;
        if self.sync != SYNCED && !self.prove(slot, at, unit_start, chunk.start) {
            return self.lose(slot, chunk.end(), Loss::Disproved);
        }
        let mut ends_message = false;
        if self.is_synced() {
            self.count(slot, &header, at);
            sink.frame(&header, &self.window, at);
            ends_message = header.is_fin() && opcode <= OPCODE_BINARY && self.fragment != 0;
        }
        self.next = frame_end;
        slot.next = frame_end;
        if frame_end > chunk.end() {
            self.open_until = frame_end;
            self.open_fin = u8::from(ends_message);
            return Flow::Done;
        }
        if ends_message {
            self.end_message(slot);
        }
        if frame_end == chunk.end() {
            return Flow::Done;
        }
        let unit_len = (frame_end - unit_start) as u32;
        self.move_to(at + unit_len);
        Flow::Next
    }

    /// Takes a whole chunk, as whoever is not bound to a loop of the kernel does.
    pub fn take(
        &mut self,
        slot: &mut SlotDirection,
        chunk: &Chunk,
        source: &mut impl ByteSource,
        sink: &mut impl FrameSink,
    ) {
        if self.can_skip(chunk.end()) {
            return;
        }
        if self.open_chunk(slot, chunk, source) == Flow::Next {
            while self.take_short(slot, chunk, sink) == Flow::Next
                && self.step(slot, chunk, source, sink) == Flow::Next
            {}
        }
    }

    /// The boundary is no longer known; the chunk ends at stream offset `end`.
    #[inline(never)]
    pub fn lose(&mut self, slot: &mut SlotDirection, end: u64, loss: Loss) -> Flow {
        if self.is_synced() {
            // Where the last frame ended: a unit that was carried over begins there.
            slot.lost_at = slot.next;
            slot.loss = loss as u8;
            if self.open_until != 0 && self.open_until <= end && self.open_fin != 0 {
                self.end_message(slot);
            }
        }
        self.sync = LOST;
        self.next = end;
        self.carried = 0;
        self.open_until = 0;
        Flow::Done
    }

    #[inline(always)]
    fn header(&self, at: u32) -> Header {
        let mut header = Header::read(&self.window, at);
        header.header_len ^= u32::from(self.zero);
        header.payload_len ^= u64::from(self.zero);
        header
    }

    /// Loads the window anew from the start of a unit that lies in this chunk.
    #[inline(always)]
    fn refill(&mut self, unit_from: u32, left: u32, source: &mut impl ByteSource) -> Option<u32> {
        let len = if left > LOAD { LOAD } else { left };
        if !source.load(unit_from, &mut self.window, 0, len) {
            return None;
        }
        self.at = 0;
        self.have = len;
        self.window_from = unit_from;
        Some(len)
    }

    /// Keeps the unit that the end of the chunk cuts for the next one.
    #[inline(always)]
    fn carry(
        &mut self,
        slot: &mut SlotDirection,
        chunk: &Chunk,
        unit_from: u32,
        at: u32,
        there: u32,
        source: &mut impl ByteSource,
    ) -> Flow {
        if at != 0 && !source.load(unit_from, &mut self.window, 0, there) {
            return self.lose(slot, chunk.end(), Loss::Unreadable);
        }
        self.carried = there;
        self.next = chunk.end();
        Flow::Done
    }
}
