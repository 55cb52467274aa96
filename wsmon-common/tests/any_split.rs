//! However a stream is cut into chunks, the same frames are counted.

use proptest::collection::vec;
use proptest::prelude::*;
use wire::{Frame, Seen, encode};
use wsmon_common::slice::Slice;
use wsmon_common::slot::{Slot, SlotDirection, size_bucket};
use wsmon_common::stream::{Chunk, Direction, Violation};

#[expect(dead_code, reason = "these tests ask for less than all of it")]
mod wire;

fn frames() -> impl Strategy<Value = Vec<Frame>> {
    let control = (
        prop_oneof![Just(0x88u8), Just(0x89), Just(0x8a)],
        vec(any::<u8>(), 0..126),
    );
    let length = prop_oneof![0usize..40, 120usize..130, 400usize..900, 65530usize..65540];
    let data = (
        prop_oneof![
            Just(0x81u8),
            Just(0x82),
            Just(0x01),
            Just(0x02),
            Just(0x00),
            Just(0x80),
            Just(0xc1),
            any::<u8>()
        ],
        length.prop_map(|len| vec![0xa5; len]),
    );
    vec(
        prop_oneof![1 => control, 3 => data].prop_map(|(first, payload)| Frame { first, payload }),
        0..40,
    )
}

const ISN: u32 = u32::MAX - 1000;

/// Follows `bytes`, cut at `cuts`; each piece may come again, and earlier bytes with it.
fn follow(bytes: &[u8], masked: bool, cuts: &[(usize, usize)]) -> (SlotDirection, Seen) {
    let mut direction = Direction::NEW;
    let mut slot = Slot::EMPTY.sent;
    let mut seen = Seen::default();
    direction.anchor_at(ISN);
    let start = direction.next;
    direction.begin_frames(&mut slot, start, masked);
    // The same without anybody who looks at each frame: another way through the follower.
    let mut unseen = Direction::NEW;
    let mut unseen_slot = Slot::EMPTY.sent;
    unseen.anchor_at(ISN);
    unseen.begin_frames(&mut unseen_slot, start, masked);
    let mut at: Vec<_> = cuts
        .iter()
        .map(|&(cut, back)| (cut % (bytes.len() + 1), back))
        .collect();
    at.push((bytes.len(), 0));
    at.sort_unstable();
    let mut done = 0;
    for (end, back) in at {
        let from = done.min(end).saturating_sub(back);
        let piece = &bytes[from..end];
        let sequence = ISN.wrapping_add(from as u32);
        let chunk = Chunk {
            start: direction.offset(sequence),
            len: piece.len() as u32,
        };
        direction.anchor = chunk.start;
        slot.high = slot.high.max(chunk.end());
        direction.take(&mut slot, &chunk, &mut Slice(piece), &mut seen);
        unseen.anchor = chunk.start;
        unseen_slot.high = slot.high;
        unseen.take(&mut unseen_slot, &chunk, &mut Slice(piece), &mut ());
        assert_eq!(figures(&slot), figures(&unseen_slot));
        done = done.max(end);
    }
    (slot, seen)
}

fn figures(slot: &SlotDirection) -> impl PartialEq + std::fmt::Debug + use<> {
    (
        slot.frames,
        slot.payload_passed(),
        slot.messages,
        slot.rsv1_messages,
        slot.sizes,
        slot.violations,
        slot.close_code,
    )
}

proptest! {
    #[test]
    fn any_split_counts_the_same_frames(
        frames in frames(),
        masked in any::<bool>(),
        cuts in vec((any::<usize>(), prop_oneof![Just(0usize), 0usize..300]), 0..50),
    ) {
        let bytes = encode(&frames, masked);
        let (slot, seen) = follow(&bytes, masked, &cuts);
        let expected: Vec<_> = frames.iter().map(|frame| (frame.first, frame.payload.len() as u64)).collect();
        let got: Vec<_> = seen.0.iter().map(|frame| (frame.first, frame.payload_len)).collect();
        prop_assert_eq!(got, expected);
        let (whole, whole_seen) = follow(&bytes, masked, &[]);
        prop_assert_eq!(figures(&slot), figures(&whole));
        prop_assert_eq!(seen.0, whole_seen.0);
        prop_assert_eq!(slot.payload_passed(), frames.iter().map(|frame| frame.payload.len() as u64).sum::<u64>());
        prop_assert_eq!(slot.unsynced_passed(), 0);
    }

    #[test]
    fn byte_by_byte_is_no_different(frames in frames(), masked in any::<bool>()) {
        let bytes = encode(&frames, masked);
        let bytes = &bytes[..bytes.len().min(3000)];
        let cuts: Vec<_> = (0..bytes.len()).map(|at| (at, 0)).collect();
        prop_assert_eq!(figures(&follow(bytes, masked, &cuts).0), figures(&follow(bytes, masked, &[]).0));
    }

    #[test]
    fn any_bytes_are_survived(bytes in vec(any::<u8>(), 0..3000), masked in any::<bool>(), cuts in vec((any::<usize>(), 0usize..9), 0..20)) {
        let (slot, _) = follow(&bytes, masked, &cuts);
        prop_assert!(slot.payload_passed() + slot.unsynced_passed() <= bytes.len() as u64);
    }
}

#[test]
fn messages_are_counted_at_fin_with_control_frames_between_fragments() {
    let frame = |first, len| Frame {
        first,
        payload: vec![7; len],
    };
    let bytes = encode(
        &[
            frame(0x01, 10),
            frame(0x89, 4),
            frame(0x00, 20),
            frame(0x80, 40),
            frame(0x82, 0),
        ],
        true,
    );
    let (slot, _) = follow(&bytes, true, &[]);
    assert_eq!(slot.messages, [1, 1]);
    assert_eq!(slot.sizes[size_bucket(70)], 1);
    assert_eq!(slot.sizes[0], 1);
    assert_eq!(slot.violations, 0);
}

#[test]
fn a_message_whose_last_byte_did_not_pass_is_no_message() {
    let bytes = encode(
        &[Frame {
            first: 0x82,
            payload: vec![0; 1000],
        }],
        false,
    );
    let (slot, _) = follow(&bytes[..900], false, &[]);
    assert_eq!((slot.frames[2], slot.messages[1]), (1, 0));
    assert_eq!(slot.payload_passed(), 900 - 4);
}

#[test]
fn a_frame_of_2_to_the_63_costs_nothing_and_never_ends() {
    let header = [&[0x82, 127][..], &0x7fff_ffff_ffff_ffffu64.to_be_bytes()].concat();
    let (slot, _) = follow(
        &[header, vec![0x81; 5000]].concat(),
        false,
        &[(20, 0), (700, 0)],
    );
    assert_eq!(
        (slot.frames, slot.payload_passed()),
        ([0, 0, 1, 0, 0, 0, 0], 5000)
    );
}

#[test]
fn the_top_bit_of_a_length_loses_the_boundary() {
    let header = [&[0x82, 127][..], &0x8000_0000_0000_0000u64.to_be_bytes()].concat();
    let (slot, _) = follow(&[header, vec![0; 90]].concat(), false, &[]);
    assert_eq!(slot.violations, 1 << Violation::LengthTopBit as u16);
    assert_eq!(slot.unsynced_passed(), 100);
}

#[test]
fn after_a_gap_frames_that_start_packets_are_found_again_and_every_byte_is_accounted_for() {
    let frame = encode(
        &[Frame {
            first: 0x81,
            payload: vec![b'x'; 50],
        }],
        true,
    );
    let mut direction = Direction::NEW;
    let mut slot = Slot::EMPTY.received;
    direction.anchor_at(7);
    let start = direction.next;
    direction.begin_frames(&mut slot, start, true);
    for packet in 0..20u64 {
        if packet == 3 {
            continue;
        }
        let chunk = Chunk {
            start: start + packet * frame.len() as u64,
            len: frame.len() as u32,
        };
        slot.high = chunk.end();
        direction.take(&mut slot, &chunk, &mut Slice(&frame), &mut ());
    }
    assert!(direction.is_synced());
    let counted = slot.frames[1] * frame.len() as u64;
    assert_eq!(counted + slot.unsynced_passed(), 20 * frame.len() as u64);
    assert!(slot.frames[1] >= 13, "{}", slot.frames[1]);
    assert_eq!(slot.violations, 0);
}
