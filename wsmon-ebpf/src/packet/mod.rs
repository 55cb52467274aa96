//! Tap `packet`: `cgroup_skb` on both directions. The only verdict is to let the packet pass.

mod accept;
mod checksum;
mod connection;
pub mod receive;
mod segment;
pub mod source;

use aya_ebpf::{
    bindings::{__sk_buff, bpf_sock},
    helpers::generated::bpf_sk_fullsock,
    macros::cgroup_skb,
    programs::SkBuffContext,
};
use wsmon_common::{
    cursor::{Counter, SocketRef},
    event::SENT,
    slot::{
        SIDE_LOCAL, SIDE_NONE, SIDE_REMOTE, STATE_CANDIDATE, STATE_HANDSHAKE, STATE_OPEN, Slot,
    },
    stream::Chunk,
};

use self::{
    receive::Rest,
    segment::{FIN, RST, Segment},
    source::Packet,
};
use crate::maps::{self, SLOTS};

const PASS: i32 = 1;
const IPPROTO_TCP: u32 = 6;
const TCP_LISTEN: u32 = 10;

/// What the programs are handed for a packet.
#[derive(Clone, Copy)]
pub struct Socket {
    pub skb: *mut __sk_buff,
    /// A full socket.
    pub sk: *mut bpf_sock,
}

impl Socket {
    /// The full TCP socket of a packet.
    #[inline(always)]
    fn of(skb: *mut __sk_buff) -> Option<Self> {
        // SAFETY: `skb` is the program's context; the kernel fills in the socket or null.
        unsafe {
            let sk = (*skb).__bindgen_anon_2.sk;
            if sk.is_null() {
                return None;
            }
            let sk = bpf_sk_fullsock(sk);
            if sk.is_null() || (*sk).protocol != IPPROTO_TCP {
                None
            } else {
                Some(Self { skb, sk })
            }
        }
    }
}

#[cgroup_skb(egress)]
pub fn packet_egress(ctx: SkBuffContext) -> i32 {
    sent(ctx.skb.skb);
    PASS
}

#[cgroup_skb(ingress)]
pub fn packet_ingress(ctx: SkBuffContext) -> i32 {
    let mut rest = Rest { slot: 0, passed: 0 };
    // The stack of the first call is free again for the second.
    if received(ctx.skb.skb, &mut rest) {
        receive::drain(rest.slot, rest.passed);
    }
    PASS
}

#[inline(always)]
fn sent(skb: *mut __sk_buff) -> Option<()> {
    let socket = Socket::of(skb)?;
    let (segment, of) = connection_of::<SENT>(socket)?;
    let (slot, cursor) = maps::connection(of.slot)?;
    if segment.flags & (FIN | RST) != 0 {
        // SAFETY: the maps' values live as long as the programs.
        note_end::<SENT>(unsafe { &mut *slot }, segment.flags);
    }
    if segment.len == 0 {
        return None;
    }
    // SAFETY: as above.
    let start = unsafe { (*cursor).sent.offset(segment.sequence) };
    let chunk = Chunk {
        start,
        len: segment.len,
    };
    let mut source = Packet {
        skb,
        payload: segment.payload,
    };
    if !connection::follow::<SENT>(&mut source, &chunk, of, slot, cursor) {
        // SAFETY: as above. Sent segments come in order: what is missing passed before the tap
        // was there.
        unsafe { connection::lose::<SENT>(&mut *slot, &mut *cursor, &chunk) };
    }
    Some(())
}

#[inline(never)]
fn received(skb: *mut __sk_buff, rest: &mut Rest) -> bool {
    receive::received(skb, rest).is_some()
}

/// The connection that the packet belongs to, if it is one that is followed.
#[inline(always)]
fn connection_of<const DIRECTION: u8>(socket: Socket) -> Option<(Segment, SocketRef)> {
    // SAFETY: a full socket.
    let known = unsafe { maps::socket_ref(socket.sk.cast()) }.filter(is_current);
    // SAFETY: `skb` is the program's context.
    let segment = unsafe { Segment::read(socket.skb) };
    if segment.is_none() && known.is_some() {
        maps::count(Counter::Unparsed, 1);
    }
    let segment = segment?;
    let of = match known {
        Some(of) => of,
        None => accept::find::<DIRECTION>(socket, &segment)?,
    };
    Some((segment, of))
}

/// Whether the slot is still this connection's, and there is something to follow.
#[inline(always)]
fn is_current(of: &SocketRef) -> bool {
    SLOTS.get_ptr(of.slot).is_some_and(|slot| {
        // SAFETY: the map's values live as long as the programs.
        unsafe { (*slot).generation == of.generation && is_followed((*slot).state) }
    })
}

#[inline(always)]
fn is_followed(state: u8) -> bool {
    state == STATE_OPEN || state == STATE_HANDSHAKE || state == STATE_CANDIDATE
}

/// A FIN or RST passed.
#[inline(always)]
fn note_end<const DIRECTION: u8>(slot: &mut Slot, flags: u8) {
    let (side, direction) = if DIRECTION == SENT {
        (SIDE_LOCAL, &mut slot.sent)
    } else {
        (SIDE_REMOTE, &mut slot.received)
    };
    direction.tcp_flags |= flags & (FIN | RST);
    if slot.first_end == SIDE_NONE {
        slot.first_end = side;
    }
}
