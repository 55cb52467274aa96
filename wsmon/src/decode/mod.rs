//! From bytes that the kernel left in the ring buffer to events.

pub mod heads;
pub mod http;
mod proxy;
pub mod sanitise;

use std::mem::{offset_of, size_of};

use wsmon_common::event::{self, EventHeader};
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

/// A record of the ring buffer that cannot be read. The reader counts it and goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("a record of {0} bytes, too short for what it says it is")]
    Short(usize),
    #[error("a record of layout version {0}, not {expected}", expected = event::VERSION)]
    Version(u8),
    #[error("a record of unknown kind {0}")]
    Kind(u8),
    #[error("a record with unknown direction {0}")]
    Direction(u8),
}

type Head = event::Head<0>;
type Frame = event::Frame<0>;

impl<'a> Event<'a> {
    /// The connection that the event is about, if it comes from the ring buffer.
    pub fn connection(&self) -> Option<ConnectionId> {
        match self {
            Self::Head { id, .. }
            | Self::State { id, .. }
            | Self::Frame { id, .. }
            | Self::Process { id, .. } => Some(*id),
            Self::Slot { .. } => None,
        }
    }

    /// Reads a record of the ring buffer.
    pub fn parse(record: &'a [u8]) -> Result<Self, DecodeError> {
        let version = byte(record, offset_of!(EventHeader, version))?;
        if version != event::VERSION {
            return Err(DecodeError::Version(version));
        }
        let id = ConnectionId {
            slot: word(record, offset_of!(EventHeader, slot))?,
            generation: word(record, offset_of!(EventHeader, generation))?,
        };
        let time_ns = long(record, offset_of!(EventHeader, time_ns))?;
        match byte(record, offset_of!(EventHeader, kind))? {
            event::KIND_HEAD => Ok(Self::Head {
                id,
                direction: direction(record)?,
                at: word(record, offset_of!(Head, at))?,
                last: word(record, offset_of!(Head, last))? != 0,
                bytes: data(record, offset_of!(Head, data))?,
                time_ns,
            }),
            event::KIND_STATE => Ok(Self::State {
                id,
                ended: word(record, offset_of!(event::State, ended))? != 0,
                time_ns,
            }),
            event::KIND_FRAME => Ok(Self::Frame {
                id,
                direction: direction(record)?,
                time_ns,
                first: byte(record, offset_of!(Frame, first))?,
                masked: byte(record, offset_of!(Frame, masked))? != 0,
                payload_len: long(record, offset_of!(Frame, payload_len))?,
                frame: data(record, offset_of!(Frame, data))?,
            }),
            kind => Err(DecodeError::Kind(kind)),
        }
    }
}

const _: () = assert!(size_of::<EventHeader>() == 24);

fn direction(record: &[u8]) -> Result<Direction, DecodeError> {
    match byte(record, offset_of!(EventHeader, direction))? {
        event::SENT => Ok(Direction::Sent),
        event::RECEIVED => Ok(Direction::Received),
        other => Err(DecodeError::Direction(other)),
    }
}

/// The valid bytes of a record's data, which starts at `from`.
fn data(record: &[u8], from: usize) -> Result<&[u8], DecodeError> {
    let len = word(record, offset_of!(EventHeader, len))? as usize;
    record
        .get(from..)
        .and_then(|data| data.get(..len))
        .ok_or(DecodeError::Short(record.len()))
}

fn byte(record: &[u8], at: usize) -> Result<u8, DecodeError> {
    record
        .get(at)
        .copied()
        .ok_or(DecodeError::Short(record.len()))
}

fn word(record: &[u8], at: usize) -> Result<u32, DecodeError> {
    array(record, at).map(u32::from_ne_bytes)
}

fn long(record: &[u8], at: usize) -> Result<u64, DecodeError> {
    array(record, at).map(u64::from_ne_bytes)
}

fn array<const N: usize>(record: &[u8], at: usize) -> Result<[u8; N], DecodeError> {
    record
        .get(at..)
        .and_then(|rest| rest.first_chunk())
        .copied()
        .ok_or(DecodeError::Short(record.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A record as the kernel writes it: `fixed` is what stands between header and data.
    fn record(kind: u8, len: u32, fixed: &[u8], data: &[u8]) -> Vec<u8> {
        let mut bytes = vec![event::VERSION, kind, event::RECEIVED, 0];
        bytes.extend(7u32.to_ne_bytes());
        bytes.extend(3u32.to_ne_bytes());
        bytes.extend(len.to_ne_bytes());
        bytes.extend(99u64.to_ne_bytes());
        bytes.extend(fixed);
        bytes.extend(data);
        bytes
    }

    #[test]
    fn a_piece_of_a_head_is_as_long_as_it_says() {
        let fixed = [16u32.to_ne_bytes(), 1u32.to_ne_bytes()].concat();
        let bytes = record(event::KIND_HEAD, 5, &fixed, &[b'a'; 256]);
        let Ok(Event::Head {
            id,
            direction,
            at,
            last,
            bytes,
            time_ns,
        }) = Event::parse(&bytes)
        else {
            panic!("no head");
        };
        assert_eq!((id.slot, id.generation, time_ns), (7, 3, 99));
        assert_eq!((direction, at, last), (Direction::Received, 16, true));
        assert_eq!(bytes, b"aaaaa");
    }

    #[test]
    fn a_frame_with_its_control_data() {
        let mut fixed = 4u64.to_ne_bytes().to_vec();
        fixed.extend([0x89, 1, 6, 0, 0, 0, 0, 0]);
        let bytes = record(event::KIND_FRAME, 10, &fixed, &[1; event::CONTROL_DATA]);
        let Ok(Event::Frame {
            first,
            masked,
            payload_len,
            frame,
            ..
        }) = Event::parse(&bytes)
        else {
            panic!("no frame");
        };
        assert_eq!(
            (first, masked, payload_len, frame.len()),
            (0x89, true, 4, 10)
        );
    }

    #[test]
    fn what_is_not_understood_is_an_error() {
        let good = record(event::KIND_STATE, 0, &[0; 8], &[]);
        assert!(Event::parse(&good).is_ok());
        let mut other_version = good.clone();
        other_version[0] = event::VERSION + 1;
        assert_eq!(
            Event::parse(&other_version).unwrap_err(),
            DecodeError::Version(event::VERSION + 1)
        );
        let mut other_kind = good.clone();
        other_kind[1] = 200;
        assert_eq!(
            Event::parse(&other_kind).unwrap_err(),
            DecodeError::Kind(200)
        );
        let lying = record(event::KIND_HEAD, u32::MAX, &[0; 8], &[0; 256]);
        assert_eq!(
            Event::parse(&lying).unwrap_err(),
            DecodeError::Short(lying.len())
        );
    }

    #[test]
    fn no_prefix_of_a_record_makes_it_panic() {
        for kind in 0..5 {
            let whole = record(kind, 256, &[0xff; 16], &[0xff; 300]);
            for len in 0..whole.len() {
                let _ = Event::parse(&whole[..len]);
            }
        }
    }

    proptest! {
        #[test]
        fn any_record_is_survived(
            version in prop_oneof![Just(event::VERSION), any::<u8>()],
            kind in 0u8..5,
            rest in proptest::collection::vec(any::<u8>(), 0..1100),
        ) {
            let mut record = vec![version, kind];
            record.extend(rest);
            if let Ok(Event::Head { bytes, .. } | Event::Frame { frame: bytes, .. }) =
                Event::parse(&record)
            {
                prop_assert!(bytes.len() < record.len());
            }
        }
    }
}
