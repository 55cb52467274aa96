//! Joins the pieces in which heads leave the kernel.

use std::collections::HashMap;

use wsmon_common::event::MAX_HEAD;

use super::{ConnectionId, Direction};

/// Heads that may be under way at once; pieces of further ones are dropped and counted.
const MAX_PENDING: usize = 4096;
/// How long the rest of a head is waited for.
const PATIENCE_NS: u64 = 60_000_000_000;

/// Heads of which pieces are still to come.
#[derive(Debug, Default)]
pub struct Heads {
    pending: HashMap<(ConnectionId, Direction), Pending>,
    lost: u64,
}

#[derive(Debug)]
struct Pending {
    bytes: Vec<u8>,
    first_ns: u64,
    /// A piece is missing: what follows it cannot be used.
    gap: bool,
}

/// A head, or as much of it as there is.
#[derive(Debug, PartialEq, Eq)]
pub struct JoinedHead {
    pub bytes: Vec<u8>,
    /// When its first piece passed.
    pub first_ns: u64,
    /// Whether its end is there.
    pub whole: bool,
}

impl Heads {
    /// Takes a piece; gives the head that it completes.
    pub fn add(
        &mut self,
        id: ConnectionId,
        direction: Direction,
        at: u32,
        last: bool,
        piece: &[u8],
        time_ns: u64,
    ) -> Option<JoinedHead> {
        let key = (id, direction);
        if at == 0 {
            // A new head on the same connection takes the place of one that never ended.
            self.pending.remove(&key);
        }
        if self.pending.len() >= MAX_PENDING && !self.pending.contains_key(&key) {
            self.lost += 1;
            return None;
        }
        let head = self.pending.entry(key).or_insert_with(|| Pending {
            bytes: Vec::with_capacity(piece.len()),
            first_ns: time_ns,
            gap: false,
        });
        head.gap |= at as usize != head.bytes.len();
        let room = (MAX_HEAD as usize).saturating_sub(head.bytes.len());
        if !head.gap {
            head.bytes
                .extend_from_slice(&piece[..piece.len().min(room)]);
        }
        let full = piece.len() >= room;
        if !last && !full {
            return None;
        }
        let cut = head.gap || piece.len() > room;
        let head = self.pending.remove(&key)?;
        if head.gap {
            self.lost += 1;
        }
        Some(JoinedHead {
            bytes: head.bytes,
            first_ns: head.first_ns,
            whole: last && !cut,
        })
    }

    /// Drops what is pending of a connection, and gives it as far as it came.
    pub fn take(&mut self, id: ConnectionId, direction: Direction) -> Option<JoinedHead> {
        let head = self.pending.remove(&(id, direction))?;
        Some(JoinedHead {
            bytes: head.bytes,
            first_ns: head.first_ns,
            whole: false,
        })
    }

    /// Drops heads whose end never came.
    pub fn expire(&mut self, now_ns: u64) {
        self.pending
            .retain(|_, head| now_ns.saturating_sub(head.first_ns) < PATIENCE_NS);
    }

    /// Heads of which pieces were lost.
    pub fn lost(&self) -> u64 {
        self.lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: ConnectionId = ConnectionId {
        slot: 1,
        generation: 1,
    };

    #[test]
    fn pieces_make_a_head() {
        let mut heads = Heads::default();
        assert_eq!(heads.add(ID, Direction::Sent, 0, false, b"GET /", 5), None);
        assert_eq!(
            heads.add(ID, Direction::Received, 0, false, b"HTTP", 6),
            None
        );
        let head = heads
            .add(ID, Direction::Sent, 5, true, b"\r\n\r\n", 9)
            .unwrap();
        assert_eq!(head.bytes, b"GET /\r\n\r\n");
        assert_eq!((head.first_ns, head.whole), (5, true));
        assert_eq!(heads.lost(), 0);
    }

    #[test]
    fn a_lost_piece_leaves_what_stood_before_it() {
        let mut heads = Heads::default();
        heads.add(ID, Direction::Sent, 0, false, b"GET /", 5);
        heads.add(ID, Direction::Sent, 261, false, b"Host: a", 5);
        let head = heads
            .add(ID, Direction::Sent, 268, true, b"\r\n\r\n", 9)
            .unwrap();
        assert_eq!((&head.bytes[..], head.whole), (&b"GET /"[..], false));
        assert_eq!(heads.lost(), 1);
    }

    #[test]
    fn a_head_over_8_kib_ends_there() {
        let mut heads = Heads::default();
        let piece = [b'a'; 1024];
        for i in 0..7 {
            assert!(
                heads
                    .add(ID, Direction::Sent, i * 1024, false, &piece, 1)
                    .is_none()
            );
        }
        let head = heads
            .add(ID, Direction::Sent, 7 * 1024, false, &piece, 1)
            .unwrap();
        assert_eq!((head.bytes.len(), head.whole), (8192, false));
    }

    #[test]
    fn a_new_head_takes_the_place_of_one_that_never_ended() {
        let mut heads = Heads::default();
        heads.add(ID, Direction::Sent, 0, false, b"GET /old", 5);
        let head = heads
            .add(ID, Direction::Sent, 0, true, b"GET /new", 7)
            .unwrap();
        assert_eq!((&head.bytes[..], head.first_ns), (&b"GET /new"[..], 7));
    }

    #[test]
    fn the_number_of_heads_is_bounded() {
        let mut heads = Heads::default();
        for slot in 0..MAX_PENDING as u32 + 10 {
            let id = ConnectionId {
                slot,
                generation: 1,
            };
            heads.add(id, Direction::Sent, 0, false, b"GET /", 5);
        }
        assert_eq!((heads.pending.len(), heads.lost()), (MAX_PENDING, 10));
        heads.expire(5 + PATIENCE_NS);
        assert!(heads.pending.is_empty());
    }
}
