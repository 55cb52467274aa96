//! Frames as tests make them and as a follower counts them.

use wsmon_common::frame::{Header, WINDOW};
use wsmon_common::stream::FrameSink;

#[derive(Clone, Debug)]
pub struct Frame {
    pub first: u8,
    pub payload: Vec<u8>,
}

/// The frames as they stand on the wire.
pub fn encode(frames: &[Frame], masked: bool) -> Vec<u8> {
    frames
        .iter()
        .flat_map(|frame| encode_one(frame, masked.then_some([1, 2, 3, 4])))
        .collect()
}

/// One frame, masked where there is a key.
pub fn encode_one(frame: &Frame, key: Option<[u8; 4]>) -> Vec<u8> {
    let bit = if key.is_some() { 0x80 } else { 0 };
    let mut bytes = vec![frame.first];
    match frame.payload.len() {
        len @ 0..126 => bytes.push(bit | len as u8),
        len @ 126..65536 => {
            bytes.push(bit | 0x7e);
            bytes.extend((len as u16).to_be_bytes());
        }
        len => {
            bytes.push(bit | 0x7f);
            bytes.extend((len as u64).to_be_bytes());
        }
    }
    let key = key.inspect(|key| bytes.extend(key)).unwrap_or_default();
    let masked = frame.payload.iter().zip(key.iter().cycle());
    bytes.extend(masked.map(|(byte, key)| byte ^ key));
    bytes
}

/// A frame as it was counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted {
    pub first: u8,
    pub payload_len: u64,
    pub header_len: u64,
    /// Of a control frame, the whole of it.
    pub control: Vec<u8>,
}

#[derive(Default)]
pub struct Seen(pub Vec<Counted>);

impl Seen {
    /// Bytes of the headers of all frames.
    pub fn header_bytes(&self) -> u64 {
        self.0.iter().map(|frame| frame.header_len).sum()
    }
}

impl FrameSink for Seen {
    fn frame(&mut self, header: &Header, window: &[u8; WINDOW], start: u32) {
        let is_whole = (0x8..=0xa).contains(&header.opcode()) && header.payload_len <= 125;
        let len = if is_whole {
            header.header_len as usize + header.payload_len as usize
        } else {
            0
        };
        let start = start as usize;
        self.0.push(Counted {
            first: header.first,
            payload_len: header.payload_len,
            header_len: u64::from(header.header_len),
            control: window[start..start + len].to_vec(),
        });
    }
}
