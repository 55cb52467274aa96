//! Packets that are lost, repeated and out of order: what is counted was there, and every byte is
//! accounted for.

use proptest::collection::vec;
use proptest::prelude::*;
use wire::{Frame, Seen, encode};
use wsmon_common::slice::Slice;
use wsmon_common::slot::{SIZE_BUCKETS, Slot, size_bucket};
use wsmon_common::stream::{Chunk, Direction, Flow};

mod wire;

/// A message in fragments, with a Ping before each where `pings` says so.
#[derive(Clone, Debug)]
struct Message {
    binary: bool,
    compressed: bool,
    pings: bool,
    fragments: Vec<usize>,
    fill: Fill,
}

#[derive(Clone, Copy, Debug)]
enum Fill {
    Zeros,
    Letters,
    Noise(u64),
}

fn messages() -> impl Strategy<Value = Vec<Message>> {
    let len = prop_oneof![4 => 0usize..4, 1 => 4usize..60];
    let fill = prop_oneof![
        Just(Fill::Zeros),
        Just(Fill::Letters),
        any::<u64>().prop_map(Fill::Noise)
    ];
    let fragments = prop_oneof![3 => vec(len.clone(), 1), 1 => vec(len, 2..5)];
    let message = (any::<bool>(), any::<bool>(), any::<bool>(), fragments, fill);
    vec(
        message.prop_map(|(binary, compressed, pings, fragments, fill)| Message {
            binary,
            compressed,
            pings,
            fragments,
            fill,
        }),
        1..60,
    )
}

fn payload(fill: Fill, len: usize) -> Vec<u8> {
    match fill {
        Fill::Zeros => vec![0; len],
        Fill::Letters => vec![b'A'; len],
        Fill::Noise(seed) => (0..len as u64)
            .map(|i| (seed ^ i).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()[6])
            .collect(),
    }
}

/// The frames of all messages. The length of a data frame, modulo 128, tells its place.
fn frames(messages: &[Message]) -> Vec<Vec<Frame>> {
    let mut place = 0;
    let mut all = Vec::new();
    for message in messages {
        let mut frames = Vec::new();
        let last = message.fragments.len() - 1;
        for (i, size) in message.fragments.iter().enumerate() {
            if message.pings {
                let payload = payload(message.fill, size % 126);
                frames.push(Frame {
                    first: 0x89,
                    payload,
                });
            }
            place += 1;
            let mut first = if i > 0 {
                0
            } else {
                1 + u8::from(message.binary)
            };
            first |= if i == last { 0x80 } else { 0 };
            first |= if message.compressed && i == 0 {
                0x40
            } else {
                0
            };
            frames.push(Frame {
                first,
                payload: payload(message.fill, size * 128 + place % 128),
            });
        }
        all.push(frames);
    }
    all
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Arrives,
    Lost,
    /// Comes after the next one.
    Late,
    /// Comes again after the next one.
    Repeated,
}

fn fates() -> impl Strategy<Value = Vec<Fate>> {
    let fate = prop_oneof![
        20 => Just(Fate::Arrives), 2 => Just(Fate::Lost),
        1 => Just(Fate::Late), 1 => Just(Fate::Repeated),
    ];
    vec(fate, 1..200)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn what_is_counted_was_there_and_every_byte_is_accounted_for(
        messages in messages(),
        masked in any::<bool>(),
        segment in 1usize..3000,
        coalesced in vec(any::<bool>(), 1..20),
        fates in fates(),
    ) {
        let frames = frames(&messages);
        let mut wire = Vec::new();
        let mut write_ends = Vec::new();
        for (message, coalesced) in frames.iter().zip(coalesced.iter().cycle()) {
            wire.extend(encode(message, masked));
            if !coalesced {
                write_ends.push(wire.len());
            }
        }
        let mut packets = Vec::new();
        let mut at = 0;
        while at < wire.len() {
            let write = write_ends.iter().copied().find(|&end| end > at).unwrap_or(wire.len());
            let end = write.min(at + segment);
            packets.push(at..end);
            at = end;
        }
        let mut arrivals = Vec::new();
        let mut held = None;
        for (packet, fate) in packets.iter().zip(fates.iter().cycle()) {
            let before = held.take();
            if let Fate::Arrives | Fate::Repeated = fate {
                arrivals.push(packet.clone());
            }
            arrivals.extend(before);
            if let Fate::Late | Fate::Repeated = fate {
                held = Some(packet.clone());
            }
        }

        let mut direction = Direction::NEW;
        let mut slot = Slot::EMPTY.received;
        direction.anchor_at(5);
        let start = direction.next;
        direction.begin_frames(&mut slot, start, masked);
        let mut seen = Seen::default();
        for range in arrivals {
            let piece = &wire[range.clone()];
            let chunk = Chunk { start: start + range.start as u64, len: piece.len() as u32 };
            slot.high = slot.high.max(chunk.end());
            direction.take(&mut slot, &chunk, &mut Slice(piece), &mut seen);
            let cut = if slot.lost_at == 0 { slot.high.saturating_sub(slot.next) } else { 0 };
            prop_assert_eq!(
                slot.payload_passed() + slot.unsynced_passed() + seen.header_bytes() + cut,
                slot.wire()
            );
        }

        let mut real = frames.iter().flatten();
        for counted in &seen.0 {
            let is_it = |frame: &Frame| {
                (frame.first, frame.payload.len() as u64) == (counted.first, counted.payload_len)
            };
            prop_assert!(real.any(is_it), "{counted:?} is no frame, or comes too late");
        }
        prop_assert_eq!(slot.violations, 0);

        let mut sizes = [0; SIZE_BUCKETS];
        for message in &frames {
            let data = message.iter().filter(|frame| frame.first & 0x0f < 8);
            sizes[size_bucket(data.map(|frame| frame.payload.len() as u64).sum())] += 1;
        }
        for (counted, real) in slot.sizes.iter().zip(sizes) {
            prop_assert!(*counted <= real);
        }
        prop_assert_eq!(slot.messages.iter().sum::<u64>(), slot.sizes.iter().map(|&n| u64::from(n)).sum());
    }
}

#[test]
fn a_gap_while_a_boundary_is_being_proved_ends_the_proof() {
    let frame = Frame {
        first: 0x81,
        payload: vec![b'x'; 50],
    };
    let piece = encode(&[frame], false);
    let mut direction = Direction::NEW;
    let mut slot = Slot::EMPTY.received;
    direction.anchor_at(5);
    let start = direction.next;
    direction.begin_frames(&mut slot, start, false);
    for packet in [1, 2, 3, 5] {
        let chunk = Chunk {
            start: start + packet * piece.len() as u64,
            len: piece.len() as u32,
        };
        slot.high = chunk.end();
        // As the kernel does, which asks for no gap while the boundary is unknown.
        let flow = direction.open_chunk(&mut slot, &chunk, &mut Slice(&piece));
        if flow == Flow::Next {
            while direction.step(&mut slot, &chunk, &mut Slice(&piece), &mut ()) == Flow::Next {}
        }
        assert_eq!(flow == Flow::Next, packet == 2 || packet == 3);
        assert_eq!(direction.next, chunk.end());
    }
    assert_eq!((slot.frames, slot.unsynced_passed()), ([0; 7], 6 * 52));
}
