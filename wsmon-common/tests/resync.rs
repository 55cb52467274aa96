//! Loses a packet and looks what is believed afterwards. No boundary can be proved beyond doubt
//! from the bytes alone: what a payload must look like to be taken for frames is measured here,
//! printed, and bounded.

use wire::{Counted, Frame, Seen, encode_one};
use wsmon_common::slice::Slice;
use wsmon_common::slot::Slot;
use wsmon_common::stream::{Chunk, Direction};

#[expect(dead_code, reason = "these tests make their streams themselves")]
mod wire;

/// Numbers without a pattern (xorshift64*), the same in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }
}

/// What fills the message in which a packet is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Payload {
    Noise,
    Zeros,
    /// Base64 of zeros.
    LettersA,
    Json,
    Base64,
    /// Small numbers, four bytes each, the lowest first.
    Words,
    /// The same, two bytes each, the highest first: ASCII in UTF-16.
    Utf16,
    /// Pairs of small numbers in CBOR: 82 01 xx.
    CborPairs,
    /// Frames of a server, as a tunnel would carry them.
    NestedUnmasked,
    /// Frames of a client.
    NestedMasked,
}

const PAYLOADS: [Payload; 10] = [
    Payload::Noise,
    Payload::Zeros,
    Payload::LettersA,
    Payload::Json,
    Payload::Base64,
    Payload::Words,
    Payload::Utf16,
    Payload::CborPairs,
    Payload::NestedUnmasked,
    Payload::NestedMasked,
];

fn fill(payload: Payload, len: usize, random: &mut Random) -> Vec<u8> {
    let mut bytes: Vec<u8> = Vec::with_capacity(len + 500);
    if payload == Payload::CborPairs {
        // An array of an array without a length.
        bytes.extend([0x81, 0x9f]);
    }
    while bytes.len() < len {
        match payload {
            Payload::Noise => bytes.extend(random.bytes(64)),
            Payload::Zeros => bytes.extend([0; 64]),
            Payload::LettersA => bytes.extend([b'A'; 64]),
            Payload::Json => bytes.extend(
                format!(
                    r#"{{"id":{},"name":"Ada B","on":true}},"#,
                    random.below(10_000)
                )
                .as_bytes(),
            ),
            Payload::Base64 => bytes.push(
                b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
                    [random.below(64)],
            ),
            Payload::Words => bytes.extend([random.below(4) as u8, 0, 0, 0]),
            Payload::Utf16 => bytes.extend([0, b'a' + random.below(26) as u8]),
            Payload::CborPairs => bytes.extend([0x82, 1, random.below(24) as u8]),
            Payload::NestedUnmasked | Payload::NestedMasked => {
                let frame = message(random, 400);
                let key = (payload == Payload::NestedMasked).then(|| key(random));
                bytes.extend(encode_one(&frame, key));
            }
        }
    }
    bytes.truncate(len);
    bytes
}

fn key(random: &mut Random) -> [u8; 4] {
    (random.next() as u32).to_ne_bytes()
}

fn message(random: &mut Random, most: usize) -> Frame {
    let len = random.below(most);
    Frame {
        first: [0x81, 0x82, 0xc1][random.below(3)],
        payload: random.bytes(len),
    }
}

/// Where a stream is cut into packets.
#[derive(Clone, Copy, Debug)]
enum Cut {
    /// Each message is a write of its own, cut into segments of this many bytes.
    Writes(usize),
    /// The sender is never done: every packet is full.
    Full(usize),
}

/// Some messages, a long one whose header is lost, and messages again.
struct Trial {
    wire: Vec<u8>,
    /// Ends of the packets.
    cuts: Vec<usize>,
    /// The packet that is lost.
    lost: usize,
    /// Each frame's offset, first byte and payload length.
    real: Vec<(u64, u8, u64)>,
}

const LONG: usize = 60_000;
const AFTER: usize = 60;

impl Trial {
    fn new(payload: Payload, masked: bool, cut: Cut, random: &mut Random) -> Self {
        let mut trial = Self {
            wire: Vec::new(),
            cuts: Vec::new(),
            lost: 0,
            real: Vec::new(),
        };
        let mut ends = Vec::new();
        for i in 0..4 + AFTER {
            let frame = if i == 3 {
                let len = LONG + random.below(5000);
                let payload = fill(payload, len, random);
                Frame {
                    first: 0x82,
                    payload,
                }
            } else {
                message(random, 400)
            };
            let key = masked.then(|| key(random));
            let at = trial.wire.len() as u64;
            trial
                .real
                .push((at, frame.first, frame.payload.len() as u64));
            trial.wire.extend(encode_one(&frame, key));
            ends.push(trial.wire.len());
        }
        let long_header = trial.real[3].0 as usize;
        let mut at = 0;
        while at < trial.wire.len() {
            at = match cut {
                Cut::Writes(size) => {
                    let write = ends.iter().copied().find(|&end| end > at).unwrap();
                    write.min(at + size)
                }
                Cut::Full(size) => trial.wire.len().min(at + size),
            };
            trial.cuts.push(at);
        }
        trial.lost = trial
            .cuts
            .iter()
            .position(|&end| end > long_header)
            .unwrap();
        trial
    }

    fn run(&self) -> Outcome {
        let mut direction = Direction::NEW;
        let mut slot = Slot::EMPTY.received;
        direction.anchor_at(77);
        let start = direction.next;
        // The second byte of a header tells; there is one at the start.
        direction.begin_frames(&mut slot, start, self.wire[1] & 0x80 != 0);
        let mut outcome = Outcome::default();
        let mut at = 0;
        for (i, &end) in self.cuts.iter().enumerate() {
            let piece = &self.wire[at..end];
            let chunk = Chunk {
                start: start + at as u64,
                len: piece.len() as u32,
            };
            at = end;
            if i == self.lost {
                continue;
            }
            slot.high = chunk.end();
            let mut seen = Seen::default();
            direction.take(&mut slot, &chunk, &mut Slice(piece), &mut seen);
            for frame in seen.0 {
                outcome.add(&self.real, &frame);
            }
        }
        let pending = slot.high.saturating_sub(slot.next);
        let known = if slot.lost_at == 0 { pending } else { 0 };
        assert_eq!(
            slot.payload_passed() + slot.unsynced_passed() + outcome.header_bytes + known,
            slot.wire()
        );
        outcome.ends_synced = slot.lost_at == 0;
        outcome
    }
}

#[derive(Default)]
struct Outcome {
    header_bytes: u64,
    counted: usize,
    /// Frames that were counted and do not exist.
    wrong: u64,
    next_real: usize,
    ends_synced: bool,
}

impl Outcome {
    /// Frames are told by their order, first byte and length.
    fn add(&mut self, real: &[(u64, u8, u64)], frame: &Counted) {
        self.header_bytes += frame.header_len;
        self.counted += 1;
        let found = real[self.next_real..]
            .iter()
            .position(|&(_, first, len)| (first, len) == (frame.first, frame.payload_len));
        match found {
            Some(ahead) => self.next_real += ahead + 1,
            None => self.wrong += 1,
        }
    }
}

const TRIALS: u32 = 8;

/// Trials in which frames were counted that do not exist, and how many.
fn wrong(payload: Payload, masked: bool, cut: Cut, random: &mut Random) -> (u32, u64) {
    let (mut trials, mut frames) = (0, 0);
    for _ in 0..TRIALS {
        let outcome = Trial::new(payload, masked, cut, random).run();
        trials += u32::from(outcome.wrong > 0);
        frames += outcome.wrong;
        if let Cut::Writes(_) = cut {
            assert!(outcome.ends_synced, "{payload:?} {masked} {cut:?}");
            assert!(outcome.counted > AFTER / 2, "{payload:?} {masked} {cut:?}");
        }
    }
    (trials, frames)
}

#[test]
fn payload_is_not_taken_for_frames_and_the_frames_behind_it_are_found() {
    let mut random = Random(42);
    for payload in PAYLOADS {
        for masked in [false, true] {
            for cut in [Cut::Writes(1448), Cut::Full(1448), Cut::Full(16384)] {
                let (trials, frames) = wrong(payload, masked, cut, &mut random);
                assert_eq!(
                    trials, 0,
                    "{frames} wrong frames: {payload:?} {masked} {cut:?}"
                );
            }
        }
    }
}

#[test]
fn what_looks_like_frames_in_every_way_is_believed_until_its_message_ends() {
    // A packet's length is a multiple of the false frames': nothing tells them from true ones.
    let mut random = Random(42);
    let cut = Cut::Writes(1449);
    let (trials, frames) = wrong(Payload::CborPairs, false, cut, &mut random);
    println!("{frames} wrong frames in {trials} of {TRIALS} trials: CborPairs, {cut:?}");
    assert!(trials > 0);
}
