//! Sockets that have no slot: finds requests for a WebSocket among everything else. This is what
//! every other connection of the host pays for.

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::generated::{bpf_get_socket_cookie, bpf_skb_load_bytes, bpf_tcp_sock},
};
use wsmon_common::{
    cursor::{AddressPair, Counter, NOT_HTTP, SocketRef},
    event::{RECEIVED, SENT},
    head::{HeadScanner, Verdict},
    slot::{ROLE_CLIENT, ROLE_SERVER, STATE_CANDIDATE, STATE_FREE, Slot},
};

use super::{
    Socket, TCP_LISTEN, connection, is_current, receive,
    segment::{MAPPED, Segment},
    source::Packet,
};
use crate::{
    emit,
    maps::{self, FREE_SLOTS, PENDING, TRACE_NEW, count, count_slot, counted},
    socket_state,
};

const GET: u32 = u32::from_ne_bytes(*b"GET ");
/// A request behind an empty line, which a server ignores (RFC 9112, section 2.2).
const EMPTY_LINE: u32 = u32::from_ne_bytes(*b"\r\nGE");
const PROXY_V1: u32 = u32::from_ne_bytes(*b"PROX");
const PROXY_V2: u32 = u32::from_ne_bytes(*b"\r\n\r\n");
const HTTP: u32 = u32::from_ne_bytes(*b"HTTP");
const SWITCHING: u32 = u32::from_ne_bytes(*b" 101");
const AF_INET: u32 = 2;

/// The connection that a segment belongs to whose socket has no slot: one that waits for its
/// socket, or one that begins here.
#[inline(always)]
pub fn find<const DIRECTION: u8>(skb: *mut __sk_buff, segment: &Segment) -> Option<SocketRef> {
    let any_waits = counted(Counter::Pending) != 0;
    let mut begins = false;
    if segment.len != 0 {
        let first = first_bytes(skb, segment);
        begins = may_begin(first, segment.len);
        if !begins && !may_be_http(first) {
            note_not_http::<DIRECTION>(skb, segment);
        }
        if first == HTTP && !any_waits {
            note_missed_upgrade(skb, segment);
        }
    }
    if !begins && !any_waits {
        return None;
    }
    let find = if DIRECTION == SENT {
        find_sent
    } else {
        find_received
    };
    let found = find(skb, u32::from(begins));
    if found == NOTHING {
        return None;
    }
    Some(SocketRef {
        slot: found as u32,
        generation: (found >> 32) as u32,
    })
}

/// No connection; no slot has this number.
const NOTHING: u64 = u64::MAX;

// Global linkage: see `connection`.

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn find_sent(skb: *mut __sk_buff, begins: u32) -> u64 {
    pack(look::<SENT>(skb, begins != 0))
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn find_received(skb: *mut __sk_buff, begins: u32) -> u64 {
    pack(look::<RECEIVED>(skb, begins != 0))
}

#[inline(always)]
fn pack(found: Option<SocketRef>) -> u64 {
    match found {
        Some(of) => u64::from(of.generation) << 32 | u64::from(of.slot),
        None => NOTHING,
    }
}

/// The first four bytes of the payload, in memory order; less if there are not so many.
#[inline(always)]
fn first_bytes(skb: *mut __sk_buff, segment: &Segment) -> u32 {
    let mut first = 0u32;
    let to = (&raw mut first).cast();
    let len = if segment.len >= 4 { 4 } else { 1 };
    // SAFETY: four bytes for a u32; the helper checks the offset.
    unsafe { bpf_skb_load_bytes(skb.cast(), segment.payload, to, len) };
    first
}

/// Whether a payload can be the beginning of a request by GET, or of a PROXY prefix.
#[inline(always)]
fn may_begin(first: u32, len: u32) -> bool {
    if len >= 4 {
        return first == GET || first == EMPTY_LINE || first == PROXY_V1 || first == PROXY_V2;
    }
    first == u32::from(b'G') || first == u32::from(b'P') || first == u32::from(b'\r')
}

/// Counts an upgrade whose request was not seen: it came before the programs, or behind another
/// request that was not answered yet.
#[inline(never)]
fn note_missed_upgrade(skb: *mut __sk_buff, segment: &Segment) {
    // The version, a space and the status: `HTTP/1.1 101`.
    let mut status = 0u32;
    let at = segment.payload.wrapping_add(8);
    // SAFETY: four bytes for a u32; the helper checks the offset.
    unsafe { bpf_skb_load_bytes(skb.cast(), at, (&raw mut status).cast(), 4) };
    if status == SWITCHING {
        count(Counter::Untracked, 1);
    }
}

/// Whether bytes can begin an HTTP/1.1 connection: a method, a status line, a PROXY prefix or an
/// empty line.
#[inline(always)]
fn may_be_http(first: u32) -> bool {
    let byte = u32::from_le(first) as u8;
    byte.is_ascii_uppercase() || byte == b'\r' || byte == b'\n'
}

/// Remembers a connection whose very first bytes are not HTTP/1.1, until its socket is another
/// connection's: see `socket_state`.
#[inline(never)]
fn note_not_http<const DIRECTION: u8>(skb: *mut __sk_buff, segment: &Segment) {
    if !socket_state::forgets_reused_sockets() {
        return;
    }
    // SAFETY: `skb` is the program's context, and has a socket.
    unsafe {
        let sk = (*skb).__bindgen_anon_2.sk;
        if sk.is_null() {
            return;
        }
        let tcp = bpf_tcp_sock(sk);
        if tcp.is_null() || (*sk).state == TCP_LISTEN {
            return;
        }
        let is_first = if DIRECTION == RECEIVED {
            (*tcp).bytes_received == 0 && (*tcp).rcv_nxt == segment.sequence
        } else {
            // The SYN counts as a byte.
            (*tcp).bytes_acked <= 1 && (*tcp).snd_una == segment.sequence
        };
        if is_first {
            let remote = u32::from(u16::from_be((*sk).dst_port));
            let nothing = SocketRef {
                slot: NOT_HTTP,
                generation: 0,
            };
            maps::note_socket(sk.cast(), (*sk).src_port, remote, nothing);
        }
    }
}

#[inline(always)]
fn look<const DIRECTION: u8>(skb: *mut __sk_buff, begins: bool) -> Option<SocketRef> {
    let socket = Socket::of(skb)?;
    // SAFETY: `skb` is the program's context.
    let segment = unsafe { Segment::read(skb)? };
    // SAFETY: a full socket.
    let listens = unsafe { (*socket.sk).state } == TCP_LISTEN;
    if listens && DIRECTION == SENT {
        return None;
    }
    let pair = if listens {
        // SAFETY: `skb` is the program's context.
        unsafe { segment.addresses(socket.skb)? }
    } else {
        addresses(socket)
    };
    match claim_pending::<DIRECTION>(socket, &segment, &pair, listens) {
        None if begins => begin::<DIRECTION>(socket, &segment, &pair, listens),
        found => found,
    }
}

/// Addresses and ports of the socket itself.
#[inline(always)]
fn addresses(socket: Socket) -> AddressPair {
    // SAFETY: a full socket.
    unsafe {
        let sk = &*socket.sk;
        let mut pair = AddressPair {
            local: MAPPED,
            remote: MAPPED,
            local_port: sk.src_port,
            remote_port: u32::from(u16::from_be(sk.dst_port)),
        };
        if sk.family == AF_INET {
            pair.local[3] = sk.src_ip4;
            pair.remote[3] = sk.dst_ip4;
        } else {
            pair.local = [sk.src_ip6[0], sk.src_ip6[1], sk.src_ip6[2], sk.src_ip6[3]];
            pair.remote = [sk.dst_ip6[0], sk.dst_ip6[1], sk.dst_ip6[2], sk.dst_ip6[3]];
        }
        pair
    }
}

/// Goes on with a request that arrived on the listening socket.
#[inline(always)]
fn claim_pending<const DIRECTION: u8>(
    socket: Socket,
    segment: &Segment,
    pair: &AddressPair,
    listens: bool,
) -> Option<SocketRef> {
    if counted(Counter::Pending) == 0 {
        return None;
    }
    // SAFETY: the value is copied at once.
    let of = unsafe { *PENDING.get(pair)? };
    if !listens && PENDING.remove(pair).is_ok() {
        count(Counter::Pending, -1);
    }
    let (slot, cursor) = maps::connection(of.slot)?;
    if !is_current(of, slot) {
        return None;
    }
    if listens {
        return Some(of);
    }
    // SAFETY: a full socket.
    if !unsafe { maps::set_socket_ref(socket.sk.cast(), of) } {
        count(Counter::StorageFailed, 1);
        return None;
    }
    // SAFETY: the maps' values live as long as the programs; `skb` is the program's context.
    unsafe {
        (*slot).cookie = bpf_get_socket_cookie(socket.skb.cast());
        (*cursor).socket = socket.sk as u64;
        if (*cursor).unanchored != 0 && DIRECTION == SENT {
            (*cursor).unanchored = 0;
            (*cursor).sent.anchor_at(segment.sequence);
        }
    }
    Some(of)
}

/// 1 if the segment holds a whole head that asks for something else than a WebSocket, or none.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn is_other_request(skb: *mut __sk_buff, payload: u32, len: u32) -> u64 {
    let walked = connection::walk(Packet { skb, payload }, HeadScanner::request(), 0, len);
    u64::from(match walked.verdict {
        Verdict::NotHttp => true,
        Verdict::End => !walked.scanner.has_upgrade(),
        Verdict::More => false,
    })
}

/// A request may begin here: takes a slot unless it is seen whole and asks for something else.
#[inline(always)]
fn begin<const DIRECTION: u8>(
    socket: Socket,
    segment: &Segment,
    pair: &AddressPair,
    listens: bool,
) -> Option<SocketRef> {
    if is_other_request(socket.skb, segment.payload, segment.len) != 0 {
        return None;
    }
    let Ok(Some(index)) = FREE_SLOTS.pop() else {
        count(Counter::Untracked, 1);
        if !listens && socket_state::forgets_reused_sockets() {
            // Or its answer would count it once more.
            let nothing = SocketRef {
                slot: NOT_HTTP,
                generation: 0,
            };
            maps::note_socket(socket.sk.cast(), pair.local_port, pair.remote_port, nothing);
        }
        return None;
    };
    let (slot, cursor) = maps::connection(index)?;
    // SAFETY: the maps' values live as long as the programs, and nobody else has this slot.
    let (slot, cursor) = unsafe { (&mut *slot, &mut *cursor) };
    let of = SocketRef {
        slot: index,
        generation: slot.generation.wrapping_add(1),
    };
    clear(slot);
    slot.generation = of.generation;
    slot.role = if DIRECTION == RECEIVED {
        ROLE_SERVER
    } else {
        ROLE_CLIENT
    };
    slot.traced = TRACE_NEW.get(0).map_or(0, |&traced| traced as u8);
    set_addresses(slot, pair);
    slot.request_ns = emit::now();
    receive::free_islands(cursor);
    cursor.reset();
    let (asks, answers) = if DIRECTION == RECEIVED {
        (&mut cursor.received, &mut cursor.sent)
    } else {
        (&mut cursor.sent, &mut cursor.received)
    };
    asks.anchor_at(segment.sequence);
    // SAFETY: `skb` is the program's context.
    match unsafe { segment.acknowledged(socket.skb) } {
        Some(next) => answers.anchor_at(next),
        None => cursor.unanchored = 1,
    }
    if !listens {
        cursor.socket = socket.sk as u64;
    }
    // Before anybody can find the slot.
    slot.state = STATE_CANDIDATE;
    let kept = if listens {
        let kept = PENDING.insert(pair, of, 1).is_ok();
        count(
            if kept {
                Counter::Pending
            } else {
                Counter::PendingFull
            },
            1,
        );
        kept
    } else {
        // SAFETY: `skb` is the program's context.
        slot.cookie = unsafe { bpf_get_socket_cookie(socket.skb.cast()) };
        // SAFETY: a full socket.
        let kept = unsafe { maps::set_socket_ref(socket.sk.cast(), of) };
        if !kept {
            count(Counter::StorageFailed, 1);
        }
        kept
    };
    if !kept {
        slot.state = STATE_FREE;
        let _ = FREE_SLOTS.push(index, 0);
        return None;
    }
    count_slot(pair.local_port, pair.remote_port);
    if !listens && socket_state::forgets_reused_sockets() {
        maps::note_socket(socket.sk.cast(), pair.local_port, pair.remote_port, of);
    }
    Some(of)
}

/// Sets every byte to zero but the generation's, without a copy on the stack.
#[inline(always)]
fn clear(slot: &mut Slot) {
    let words = (&raw mut *slot).cast::<u64>();
    let mut index = 0;
    while index < size_of::<Slot>() / 8 {
        // SAFETY: inside the slot, which is aligned to 64 bytes.
        unsafe { words.add(index).write_volatile(0) };
        index += 1;
    }
}

#[inline(always)]
fn set_addresses(slot: &mut Slot, pair: &AddressPair) {
    let mut index = 0;
    while index < 4 {
        let local = pair.local[index].to_ne_bytes();
        let remote = pair.remote[index].to_ne_bytes();
        let mut byte = 0;
        while byte < 4 {
            slot.local[index * 4 + byte] = local[byte];
            slot.remote[index * 4 + byte] = remote[byte];
            byte += 1;
        }
        index += 1;
    }
    slot.local_port = pair.local_port as u16;
    slot.remote_port = pair.remote_port as u16;
}
