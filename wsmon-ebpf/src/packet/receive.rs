//! Received segments: they come in arrival order, some of them never to be accepted, and on
//! several CPUs at once. One CPU at a time follows the stream; what comes before its turn is kept.

use aya_ebpf::{
    bindings::{__sk_buff, bpf_sock},
    helpers::generated::{bpf_loop, bpf_skb_load_bytes, bpf_skc_to_tcp_sock, bpf_tcp_sock},
};
use core::ffi::c_void;
use wsmon_common::{
    cursor::{
        APPEND_BELOW, Counter, Cursor, ISLAND_BYTES, ISLAND_CLAIMED, ISLAND_FREE, ISLAND_READY,
        ISLANDS, Island,
    },
    event::RECEIVED,
    stream::Chunk,
    verifier::opaque,
};

use super::{
    Found, TCP_LISTEN, checksum, connection, find, note_end,
    segment::{FIN, RST, Segment},
    source::{Packet, length},
};
use crate::{
    atomic::{fetch_add, load, swap},
    maps::{self, BUFFERS, CURSORS, FREE_BUFFERS, SLOTS, count},
    offsets::{MISSING, TCP_RCV_WND, TCP_RCV_WUP, read},
};

/// The largest window that is believed where the kernel's own is not known: larger than the
/// default limit of the receive buffer (`tcp_rmem`).
const ASSUMED_WINDOW: u32 = 1 << 26;

/// What is left to do for a connection whose received direction this CPU holds.
pub struct Rest {
    pub slot: u32,
    /// See `Drain::passed`.
    pub passed: u64,
}

/// Takes a received segment. `Some` if segments wait that are to be followed now.
#[inline(always)]
pub fn received(skb: *mut __sk_buff, rest: &mut Rest) -> Option<()> {
    let Found {
        segment,
        of,
        slot,
        cursor,
    } = find::<RECEIVED>(skb)?;
    // SAFETY: `skb` is the program's context. The maps' values live as long as the programs.
    let (sk, shared, high) =
        unsafe { ((*skb).__bindgen_anon_2.sk, &*cursor, (*slot).received.high) };
    if sk.is_null() {
        return None;
    }
    // SAFETY: not null.
    let listens = unsafe { (*sk).state } == TCP_LISTEN;
    let ends = segment.flags & (FIN | RST) != 0;
    let start = shared.received.offset(segment.sequence);
    // What follows the last byte that passed, while nothing is missing, TCP expects too.
    let is_expected = start == high && start <= shared.received.next && shared.waiting.get() == 0;
    // A listening socket has no window, and what it takes comes before its connection's packets.
    let rcv_nxt = if listens || (is_expected && segment.len != 0 && !ends) {
        segment.sequence
    } else {
        // SAFETY: not null.
        let tcp = unsafe { bpf_tcp_sock(sk) };
        if tcp.is_null() {
            return None;
        }
        // SAFETY: not null.
        unsafe { (*tcp).rcv_nxt }
    };
    let ahead = segment.sequence.wrapping_sub(rcv_nxt);
    if ends && !listens && is_end(sk, &segment, ahead) {
        // SAFETY: the maps' values live as long as the programs.
        note_end::<RECEIVED>(unsafe { &mut *slot }, segment.flags);
    }
    if segment.len == 0 || segment.flags & RST != 0 {
        return None;
    }
    let end_ahead = ahead.wrapping_add(segment.len);
    // Wholly old, or outside the receive window (RFC 9293, section 3.10.7.4).
    if end_ahead as i32 <= 0 || (ahead as i32 > 0 && ahead >= window(sk, rcv_nxt)) {
        return None;
    }
    let chunk = Chunk {
        start,
        len: segment.len,
    };
    // Payload needs no look at the checksum: what it says does not matter.
    if shared.received.next <= chunk.end() && !checksum::is_right(skb, &segment) {
        return None;
    }
    let mut source = Packet {
        skb,
        payload: segment.payload,
    };
    // Every byte that TCP has taken in came through here before: see `Drain::passed`.
    let passed = shared.received.offset(rcv_nxt);
    let held = claim(shared);
    // Read while the direction is held: what comes later cannot be missed by whoever lets go.
    let seen = shared.arrivals.get();
    let mut waits = true;
    if held && shared.waiting.get() == 0 {
        waits = !connection::follow::<RECEIVED>(&mut source, &chunk, of, slot, cursor);
        // SAFETY: as above; this CPU holds the direction.
        unsafe {
            if waits && passed > (*cursor).received.next {
                connection::lose::<RECEIVED>(&mut *slot, &mut *cursor, &chunk);
                waits = false;
            }
        }
    }
    // SAFETY: as above.
    let shared = unsafe { &*cursor };
    if waits {
        keep(skb, of.slot, segment.payload, segment.len, start);
        if !held && !claim(shared) {
            return None;
        }
    } else if release(shared, seen) {
        return None;
    }
    *rest = Rest {
        slot: of.slot,
        passed,
    };
    Some(())
}

/// Whether TCP takes the segment for the end of the stream.
#[inline(always)]
fn is_end(sk: *mut bpf_sock, segment: &Segment, ahead: u32) -> bool {
    if segment.flags & RST != 0 {
        return ahead == 0;
    }
    ahead as i32 <= 0 || ahead < window(sk, segment.sequence.wrapping_sub(ahead))
}

/// Bytes from `rcv_nxt` to the end of the receive window (`tcp_receive_window`, Linux 6.18).
#[inline(always)]
fn window(sk: *mut bpf_sock, rcv_nxt: u32) -> u32 {
    let (wup, wnd) = (TCP_RCV_WUP.load(), TCP_RCV_WND.load());
    if wup == MISSING || wnd == MISSING {
        return ASSUMED_WINDOW;
    }
    // SAFETY: a full TCP socket; the offsets are those of `u32` fields of `struct tcp_sock`.
    unsafe {
        let tcp = bpf_skc_to_tcp_sock(sk.cast());
        if tcp.is_null() {
            return ASSUMED_WINDOW;
        }
        let wup: u32 = read(tcp.cast(), wup);
        let wnd: u32 = read(tcp.cast(), wnd);
        // One byte more is a window probe, which brings no news.
        wup.wrapping_add(wnd).wrapping_sub(rcv_nxt)
    }
}

/// Whether this CPU may follow the received direction from now on.
#[inline(always)]
fn claim(cursor: &Cursor) -> bool {
    swap(&cursor.busy, 1) == 0
}

/// Lets the next CPU follow. False if a segment came since `arrivals` was `seen`: then this CPU
/// is to drain.
#[inline(always)]
fn release(cursor: &Cursor, seen: u64) -> bool {
    swap(&cursor.busy, 0);
    cursor.arrivals.get() == seen || !claim(cursor)
}

/// Keeps a segment until its turn.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn keep(skb: *mut __sk_buff, slot: u32, payload: u32, len: u32, start: u64) -> u64 {
    let Some((_, cursor)) = maps::connection(slot) else {
        return 0;
    };
    // SAFETY: the maps' values live as long as the programs.
    let cursor = unsafe { &mut *cursor };
    if append(cursor, skb, payload, len, start) || add(cursor, skb, payload, len, start) {
        fetch_add(&cursor.arrivals, 1);
        return 1;
    }
    count(Counter::SegmentsDropped, 1);
    0
}

/// Keeps a segment together with the one before it. Several CPUs may keep, and one follow, at the
/// same time: an island is only touched between taking it and putting it back.
#[inline(always)]
fn append(cursor: &mut Cursor, skb: *mut __sk_buff, payload: u32, len: u32, start: u64) -> bool {
    let mut index = 0;
    while index < ISLANDS {
        let island = &mut cursor.islands[index];
        index += 1;
        if island.state.get() != ISLAND_READY || island.start + u64::from(island.len) != start {
            continue;
        }
        let before = swap(&island.state, ISLAND_CLAIMED);
        let fits = before == ISLAND_READY
            && island.start + u64::from(island.len) == start
            && fill_buffer(skb, payload, len, island.buffer, island.len);
        if fits {
            island.len += len;
        }
        if before != ISLAND_CLAIMED {
            swap(&island.state, before);
        }
        if fits {
            return true;
        }
    }
    false
}

/// Keeps a segment in a buffer of its own.
#[inline(always)]
fn add(cursor: &mut Cursor, skb: *mut __sk_buff, payload: u32, len: u32, start: u64) -> bool {
    let Ok(Some(buffer)) = FREE_BUFFERS.pop() else {
        return false;
    };
    if fill_buffer(skb, payload, len, buffer, 0) {
        let mut index = 0;
        while index < ISLANDS {
            let island = &mut cursor.islands[index];
            index += 1;
            if island.state.get() != ISLAND_FREE {
                continue;
            }
            let before = swap(&island.state, ISLAND_CLAIMED);
            if before == ISLAND_FREE {
                island.start = start;
                island.len = len;
                island.buffer = buffer;
                fetch_add(&cursor.waiting, 1);
                swap(&island.state, ISLAND_READY);
                return true;
            }
            if before != ISLAND_CLAIMED {
                swap(&island.state, before);
            }
        }
    }
    let _ = FREE_BUFFERS.push(buffer, 0);
    false
}

/// Copies a segment's bytes to offset `at` of a buffer.
#[inline(always)]
fn fill_buffer(skb: *mut __sk_buff, payload: u32, len: u32, buffer: u32, at: u32) -> bool {
    let Some(bytes) = BUFFERS.get_ptr_mut(buffer) else {
        return false;
    };
    let (Some(len), at) = (length(len, ISLAND_BYTES as u32), opaque(at)) else {
        return false;
    };
    if at >= APPEND_BELOW as u64 {
        return false;
    }
    // SAFETY: `at` and `len` together stay inside the buffer, by what they are at most.
    unsafe {
        let to = bytes.cast::<u8>().add(at as usize);
        bpf_skb_load_bytes(skb.cast(), payload, to.cast(), len) == 0
    }
}

struct Drain {
    slot: u32,
    held: bool,
    cursor: *mut Cursor,
    /// Stream offset up to which TCP had taken the stream in when the packet at hand arrived.
    /// Whatever is before it has been followed or is kept: what is neither was never seen.
    passed: u64,
}

/// Follows kept segments for as long as one of them is next, then lets go of the direction.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn drain(index: u32, passed: u64) -> u64 {
    let Some(cursor) = CURSORS.get_ptr_mut(index) else {
        return 0;
    };
    let mut drain = Drain {
        slot: index,
        held: true,
        cursor,
        passed,
    };
    // SAFETY: the callback takes what is passed, which outlives the call.
    unsafe {
        bpf_loop(
            MAX_TURNS,
            drain_one as *mut c_void,
            (&raw mut drain).cast(),
            0,
        )
    };
    if drain.held {
        // SAFETY: as above.
        unsafe { swap(&(*drain.cursor).busy, 0) };
    }
    0
}

/// Rounds of one call of `drain`: more than enough, as each takes a segment.
const MAX_TURNS: u32 = 64;

extern "C" fn drain_one(_index: u64, drain: *mut Drain) -> u64 {
    // SAFETY: see `drain`.
    let drain = unsafe { &mut *drain };
    // SAFETY: the maps' values live as long as the programs.
    let cursor = unsafe { &mut *drain.cursor };
    let seen = load(&cursor.arrivals);
    let first = first_island(cursor);
    if first < ISLANDS {
        let next = cursor.received.next;
        let start = cursor.islands[first].start;
        if start <= next || drain.passed > next && !is_any_claimed(cursor) {
            // Only whoever holds the direction frees islands: this one is ready, or being added
            // to.
            if swap(&cursor.islands[first].state, ISLAND_CLAIMED) != ISLAND_READY {
                return 0;
            }
            let Island { len, buffer, .. } = cursor.islands[first];
            let chunk = Chunk { start, len };
            let followed = connection::follow_kept(buffer, &chunk, drain.slot);
            // SAFETY: as above; what was called made its own references.
            let cursor = unsafe { &mut *drain.cursor };
            if !followed && let Some(slot) = SLOTS.get_ptr_mut(drain.slot) {
                // SAFETY: as above.
                connection::lose::<RECEIVED>(unsafe { &mut *slot }, cursor, &chunk);
            }
            free_island(cursor, first, buffer);
            return 0;
        }
    }
    swap(&cursor.busy, 0);
    if load(&cursor.arrivals) == seen || !claim(cursor) {
        drain.held = false;
        return 1;
    }
    0
}

/// The kept segment that comes first in the stream; [`ISLANDS`] if there is none.
#[inline(never)]
fn first_island(cursor: &Cursor) -> usize {
    let mut first = ISLANDS;
    let mut first_start = u64::MAX;
    let mut index = 0;
    while index < ISLANDS {
        let island = &cursor.islands[index];
        if load(&island.state) == ISLAND_READY && island.start < first_start {
            first = index;
            first_start = island.start;
        }
        index += 1;
    }
    first
}

/// Whether a segment is just being added to an island: it may be the one that is next.
#[inline(never)]
fn is_any_claimed(cursor: &Cursor) -> bool {
    let mut any = false;
    let mut index = 0;
    while index < ISLANDS {
        any |= load(&cursor.islands[index].state) == ISLAND_CLAIMED;
        index += 1;
    }
    any
}

#[inline(always)]
fn free_island(cursor: &mut Cursor, index: usize, buffer: u32) {
    let _ = FREE_BUFFERS.push(buffer, 0);
    fetch_add(&cursor.waiting, 1u64.wrapping_neg());
    if index < ISLANDS {
        swap(&cursor.islands[index].state, ISLAND_FREE);
    }
}

/// Gives back what a connection kept that has ended. Its slot's next owner does so too.
#[inline(always)]
pub fn free_islands(cursor: &mut Cursor) {
    let mut index = 0;
    while index < ISLANDS {
        if load(&cursor.islands[index].state) == ISLAND_READY {
            let buffer = cursor.islands[index].buffer;
            free_island(cursor, index, buffer);
        }
        index += 1;
    }
}

/// The connection ended: gives back what it kept, unless a segment is just being followed.
#[inline(always)]
pub fn end(cursor: &mut Cursor) {
    if cursor.waiting.get() != 0 && claim(cursor) {
        free_islands(cursor);
        swap(&cursor.busy, 0);
    }
}
