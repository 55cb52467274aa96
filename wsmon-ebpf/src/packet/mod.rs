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
    cursor::{Counter, Cursor, NOT_HTTP, SocketRef},
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
use crate::maps;

const PASS: i32 = 1;
const IPPROTO_TCP: u32 = 6;
const TCP_LISTEN: u32 = 10;

/// A packet and its socket.
#[derive(Clone, Copy)]
pub struct Socket {
    pub skb: *mut __sk_buff,
    /// A full TCP socket.
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
    let skb = ctx.skb.skb;
    if Known::of(skb) != Known::Uninteresting {
        let mut rest = Rest { slot: 0, passed: 0 };
        // The stack of the first call is free again for the second.
        if received(skb, &mut rest) {
            receive::drain(rest.slot, rest.passed);
        }
    }
    PASS
}

#[inline(always)]
fn sent(skb: *mut __sk_buff) -> Option<()> {
    let Found {
        segment,
        of,
        slot,
        cursor,
    } = find::<SENT>(skb)?;
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

/// A packet of a connection that is followed.
#[derive(Clone, Copy)]
struct Found {
    segment: Segment,
    of: SocketRef,
    slot: *mut Slot,
    cursor: *mut Cursor,
}

/// What is known of a packet's connection by its ports.
#[derive(Clone, Copy, PartialEq)]
enum Known {
    /// There is no socket, or nothing of its connection needs a look.
    Uninteresting,
    /// The slot that the socket had last.
    Slot(SocketRef),
    /// The socket may have a slot.
    Maybe,
    /// The socket has no slot.
    Nothing,
}

impl Known {
    /// What every packet of the host goes through: mind each nanosecond, and call nothing, as
    /// each return costs more than all of this where the processor must be guarded against
    /// mispredicting it.
    #[inline(always)]
    fn of(skb: *mut __sk_buff) -> Self {
        // SAFETY: `skb` is the program's context; the kernel fills in the socket or null. The
        // table's entries live as long as the programs.
        unsafe {
            let sk = (*skb).__bindgen_anon_2.sk;
            if sk.is_null() {
                return Self::Uninteresting;
            }
            if (*sk).src_port == 0 {
                // A socket that is closed has given its port back; its RST leaves after that.
                return Self::Maybe;
            }
            let Some(pair) =
                maps::port_pair((*sk).src_port, u32::from(u16::from_be((*sk).dst_port)))
            else {
                return Self::Uninteresting;
            };
            if (*pair).socket == sk as u64 {
                if (*pair).slot == NOT_HTTP {
                    return Self::Uninteresting;
                }
                return Self::Slot(SocketRef {
                    slot: (*pair).slot,
                    generation: (*pair).generation,
                });
            }
            if (*pair).slots == 0 {
                Self::Nothing
            } else {
                Self::Maybe
            }
        }
    }
}

/// The connection that a packet belongs to, if it is one that is followed.
#[inline(always)]
fn find<const DIRECTION: u8>(skb: *mut __sk_buff) -> Option<Found> {
    let of = match Known::of(skb) {
        Known::Uninteresting => return None,
        Known::Slot(of) => Some(of),
        Known::Maybe => {
            // SAFETY: a full socket.
            Socket::of(skb).and_then(|socket| unsafe { maps::socket_ref(socket.sk.cast()) })
        }
        Known::Nothing => None,
    };
    if let Some(of) = of {
        let (slot, cursor) = maps::connection(of.slot)?;
        // SAFETY: `skb` is the program's context. The maps' values live as long as the programs.
        // An entry of the table that is just being written can name another socket's slot.
        let is_its_own = unsafe { (*cursor).socket == (*skb).__bindgen_anon_2.sk as u64 };
        if is_its_own && is_current(of, slot) {
            // SAFETY: `skb` is the program's context.
            let segment = unsafe { Segment::read(skb) };
            if segment.is_none() {
                maps::count(Counter::Unparsed, 1);
            }
            return Some(Found {
                segment: segment?,
                of,
                slot,
                cursor,
            });
        }
    }
    // SAFETY: `skb` is the program's context.
    let segment = unsafe { Segment::read(skb)? };
    let of = accept::find::<DIRECTION>(skb, &segment)?;
    let (slot, cursor) = maps::connection(of.slot)?;
    Some(Found {
        segment,
        of,
        slot,
        cursor,
    })
}

/// Whether the slot is still this connection's, and there is something to follow.
#[inline(always)]
fn is_current(of: SocketRef, slot: *const Slot) -> bool {
    // SAFETY: the map's values live as long as the programs.
    unsafe { (*slot).generation == of.generation && is_followed((*slot).state) }
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
