//! Follows the frames of a stream that is cut, repeated and lost in any way.
//!
//! Input: a byte of flags, the number of packets, three bytes for each (length, low byte first,
//! and what becomes of it), then the stream; the last packet is what is left.

use wsmon_common::frame::{Header, WINDOW};
use wsmon_common::slice::Slice;
use wsmon_common::slot::{Slot, SlotDirection};
use wsmon_common::stream::{Chunk, Direction, FrameSink};

const MASKED: u8 = 1;
/// Packets may be lost.
const LOSSY: u8 = 2;

const MAX_PACKETS: u8 = 64;

/// Panics if the follower does not keep its word.
pub fn check(data: &[u8]) {
    let Some((&[flags, packets], rest)) = data.split_first_chunk() else {
        return;
    };
    let script_len = usize::from(packets % MAX_PACKETS) * 3;
    let Some((script, wire)) = rest.split_at_checked(script_len) else {
        return;
    };
    let mut cut = Follower::new(flags);
    for step in script.as_chunks::<3>().0 {
        cut.packet(wire, *step, flags & LOSSY != 0);
    }
    cut.take(wire, cut.done..wire.len());
    if cut.lost {
        return;
    }

    let mut whole = Follower::new(flags);
    whole.take(wire, 0..wire.len());
    assert!(cut.seen.frames.starts_with(&whole.seen.frames));
    if whole.slot.lost_at == 0 {
        assert_eq!(figures(&cut.slot), figures(&whole.slot));
    }
}

fn figures(slot: &SlotDirection) -> impl PartialEq + std::fmt::Debug + use<> {
    (
        (slot.frames, slot.messages, slot.rsv1_messages, slot.sizes),
        (slot.payload_passed(), slot.unsynced_passed(), slot.wire()),
        (slot.violations, slot.close_code),
    )
}

struct Follower {
    direction: Direction,
    slot: SlotDirection,
    seen: Seen,
    /// Bytes of the stream that were sent, lost or not.
    done: usize,
    lost: bool,
    start: u64,
}

impl Follower {
    fn new(flags: u8) -> Self {
        let mut direction = Direction::NEW;
        let mut slot = Slot::EMPTY.received;
        direction.anchor_at(u32::MAX - 100);
        let start = direction.next;
        direction.begin_frames(&mut slot, start, flags & MASKED != 0);
        Self {
            direction,
            slot,
            seen: Seen::default(),
            done: 0,
            lost: false,
            start,
        }
    }

    fn packet(&mut self, wire: &[u8], [low, high, fate]: [u8; 3], lossy: bool) {
        let len = usize::from(u16::from_le_bytes([low, high]));
        let end = wire.len().min(self.done + len);
        let back = usize::from(fate >> 2) * 4;
        match fate & 3 {
            // Some of what passed comes again with it.
            1 => self.take(wire, self.done.saturating_sub(back)..end),
            2 if lossy => {
                self.lost = true;
                self.done = end;
            }
            3 => {
                let from = self.done;
                self.take(wire, from..end);
                let from = from.saturating_sub(back);
                self.take(wire, from..end);
            }
            _ => self.take(wire, self.done..end),
        }
    }

    fn take(&mut self, wire: &[u8], range: std::ops::Range<usize>) {
        let bytes = &wire[range.clone()];
        let sequence = (self.start as u32).wrapping_add(range.start as u32);
        let chunk = Chunk {
            start: self.direction.offset(sequence),
            len: bytes.len() as u32,
        };
        if chunk.start > self.direction.anchor {
            self.direction.anchor = chunk.start;
        }
        self.slot.high = self.slot.high.max(chunk.end());
        self.direction
            .take(&mut self.slot, &chunk, &mut Slice(bytes), &mut self.seen);
        self.done = self.done.max(range.end);
        self.account();
    }

    /// Every byte that passed is in one of the figures.
    fn account(&self) {
        let slot = &self.slot;
        let known = slot.lost_at == 0;
        assert_eq!(known, self.direction.is_synced());
        let unfinished = slot.high.saturating_sub(slot.next);
        let unfinished = if known { unfinished } else { 0 };
        assert_eq!(
            slot.payload_passed() + slot.unsynced_passed() + self.seen.header_bytes + unfinished,
            slot.wire()
        );
        let frames: u64 = slot.frames.iter().sum();
        assert_eq!(frames, self.seen.frames.len() as u64);
        assert!(frames * 2 <= slot.wire());
        let messages: u64 = slot.messages.iter().sum();
        assert_eq!(
            messages,
            slot.sizes.iter().map(|&size| u64::from(size)).sum()
        );
        assert!(messages <= frames && slot.rsv1_messages <= messages);
    }
}

#[derive(Default)]
struct Seen {
    /// First byte, payload length, and the bytes of a control frame.
    frames: Vec<(u8, u64, Vec<u8>)>,
    header_bytes: u64,
}

impl FrameSink for Seen {
    fn frame(&mut self, header: &Header, window: &[u8; WINDOW], start: u32) {
        let is_whole = (0x8..=0xa).contains(&header.opcode()) && header.payload_len <= 125;
        let len = if is_whole {
            header.header_len + header.payload_len as u32
        } else {
            0
        };
        let control = window[start as usize..(start + len) as usize].to_vec();
        self.frames
            .push((header.first, header.payload_len, control));
        self.header_bytes += u64::from(header.header_len);
    }
}
