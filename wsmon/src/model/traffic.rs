//! What passed, by direction: frames, messages, bytes.

use wsmon_common::slot::{CLOSE_NONE, Slot, SlotDirection};

use super::errors::{self, KINDS};
use super::histogram::{Histogram, SIZE_EDGES};
use super::view::{DirectionView, FramesView};
use crate::decode::Direction;

impl Direction {
    pub const ALL: [Self; 2] = [Self::Sent, Self::Received];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Received => "received",
        }
    }

    /// This direction's half of a slot.
    pub fn of(self, slot: &Slot) -> &SlotDirection {
        match self {
            Self::Sent => &slot.sent,
            Self::Received => &slot.received,
        }
    }
}

/// Counters of one direction, summed over connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traffic {
    /// By [`wsmon_common::slot::FRAME_CLASSES`].
    pub frames: [u64; 7],
    /// Text and binary.
    pub messages: [u64; 2],
    pub compressed_messages: u64,
    pub payload_bytes: u64,
    /// Its sum is the payload of all frames: the kernel keeps none of messages alone.
    pub message_sizes: Histogram,
    /// By [`KINDS`]: connections that had one.
    pub protocol_errors: [u64; KINDS.len()],
}

impl Default for Traffic {
    fn default() -> Self {
        Self {
            frames: [0; 7],
            messages: [0; 2],
            compressed_messages: 0,
            payload_bytes: 0,
            message_sizes: Histogram::new(&SIZE_EDGES),
            protocol_errors: [0; KINDS.len()],
        }
    }
}

impl Traffic {
    /// Adds a connection's counters. `deflate` says whether permessage-deflate was selected;
    /// while that is not known, nothing that depends on it is counted.
    pub fn add(&mut self, direction: &SlotDirection, deflate: Option<bool>) {
        for (own, more) in self.frames.iter_mut().zip(direction.frames) {
            *own += more;
        }
        for (own, more) in self.messages.iter_mut().zip(direction.messages) {
            *own += more;
        }
        if deflate == Some(true) {
            self.compressed_messages += direction.rsv1_messages;
        }
        let payload = direction.payload_passed();
        self.payload_bytes += payload;
        self.message_sizes.add_counts(&direction.sizes, payload);
        let violations = errors::violations(direction, deflate.unwrap_or(true));
        for (bit, count) in self.protocol_errors.iter_mut().enumerate() {
            *count += u64::from(violations >> bit & 1);
        }
    }
}

/// One connection's counters as people read them.
pub fn view(direction: &SlotDirection, deflate: Option<bool>) -> DirectionView {
    let [continuation, text, binary, close, ping, pong, reserved] = direction.frames;
    DirectionView {
        frames: FramesView {
            continuation,
            text,
            binary,
            close,
            ping,
            pong,
            reserved,
        },
        text_messages: direction.messages[0],
        binary_messages: direction.messages[1],
        compressed_messages: if deflate == Some(true) {
            direction.rsv1_messages
        } else {
            0
        },
        payload_bytes: direction.payload_passed(),
        wire_bytes: direction.wire(),
        unsynced_bytes: direction.unsynced_passed(),
        protocol_errors: errors::names(errors::violations(direction, deflate.unwrap_or(true)))
            .map(str::to_owned)
            .collect(),
        close_code: (direction.close_code != CLOSE_NONE).then_some(direction.close_code),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn direction() -> SlotDirection {
        let mut direction = Slot::EMPTY.sent;
        direction.frames = [1, 2, 3, 0, 4, 5, 0];
        direction.messages = [2, 3];
        direction.rsv1_messages = 2;
        direction.payload = 1000;
        (direction.high, direction.next) = (500, 600);
        direction.sizes[1] = 5;
        direction
    }

    #[test]
    fn connections_add_up() {
        let mut traffic = Traffic::default();
        traffic.add(&direction(), Some(true));
        traffic.add(&direction(), Some(false));
        assert_eq!(traffic.frames, [2, 4, 6, 0, 8, 10, 0]);
        assert_eq!(traffic.messages, [4, 6]);
        assert_eq!(traffic.payload_bytes, 1800);
        assert_eq!(traffic.message_sizes.count(), 10);
    }

    #[test]
    fn rsv1_is_compression_where_deflate_was_selected_and_an_error_elsewhere() {
        let mut traffic = Traffic::default();
        traffic.add(&direction(), None);
        assert_eq!(
            (traffic.compressed_messages, traffic.protocol_errors[1]),
            (0, 0)
        );
        traffic.add(&direction(), Some(true));
        assert_eq!(
            (traffic.compressed_messages, traffic.protocol_errors[1]),
            (2, 0)
        );
        traffic.add(&direction(), Some(false));
        assert_eq!(
            (traffic.compressed_messages, traffic.protocol_errors[1]),
            (2, 1)
        );
    }
}
