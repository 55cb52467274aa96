//! Follows a tracked connection: the heads of its handshake, then its frames.

use aya_ebpf::{bindings::__sk_buff, helpers::generated::bpf_loop};
use core::ffi::c_void;
use wsmon_common::{
    cursor::{Counter, Cursor, SocketRef},
    event::{LARGE_HEAD, MAX_HEAD, RECEIVED, SENT},
    frame::{Header, WINDOW},
    head::{HeadScanner, HeadWalk, Verdict},
    slot::{
        CLOSE_NONE, ROLE_SERVER, SIDE_LOCAL, SIDE_NONE, SIDE_REMOTE, STATE_ABANDONED,
        STATE_HANDSHAKE, STATE_OPEN, STATE_REFUSED, Slot, SlotDirection,
    },
    stream::{Chunk, Direction, Flow, FrameSink, Loss},
};

use super::source::{Bytes, Kept, Packet};
use crate::{
    emit,
    maps::{self, SLOTS},
};

/// The longest head that is followed to its end.
const LONGEST_HEAD: u64 = 1 << 20;

/// Takes a segment. False if it lies behind a gap, and nothing was done.
///
/// Nobody may hold references into the slot or the cursor: the head's function makes its own.
#[inline(always)]
pub fn follow<const DIRECTION: u8>(
    source: &mut Packet,
    chunk: &Chunk,
    of: SocketRef,
    slot: *mut Slot,
    cursor: *mut Cursor,
) -> bool {
    // SAFETY: the maps' values live as long as the programs.
    if unsafe { (*slot).state } != STATE_OPEN {
        let Packet { skb, payload } = *source;
        let head = if DIRECTION == SENT {
            head_sent
        } else {
            head_received
        };
        let came_to = head(skb, payload, of.slot, chunk.len, chunk.start);
        if came_to != OPENED {
            return came_to == FOLLOWED;
        }
    }
    // SAFETY: as above. What follows the head in the same segment is frames too.
    let (slot, cursor) = unsafe { (&mut *slot, &mut *cursor) };
    frames::<DIRECTION, _>(source, chunk, of, slot, cursor)
}

/// The same for a received segment that waited in a buffer.
#[inline(always)]
pub fn follow_kept(buffer: u32, chunk: &Chunk, index: u32) -> bool {
    let Some(slot) = SLOTS.get_ptr(index) else {
        return true;
    };
    // SAFETY: the maps' values live as long as the programs.
    if unsafe { (*slot).state } != STATE_OPEN {
        let came_to = head_kept(buffer, index, chunk.len, chunk.start);
        if came_to != OPENED {
            return came_to == FOLLOWED;
        }
    }
    frames_kept(buffer, index, chunk.len, chunk.start) == FOLLOWED
}

// Functions with global linkage are proved once, for any arguments, not once for every way that
// leads to them: the kernel's limit of instructions to look at is on the sum of those.

/// The head was followed as far as the segment goes.
const FOLLOWED: u64 = 0;
/// The segment lies behind a gap.
const GAP: u64 = 1;
/// The head was followed to its end, and frames begin.
const OPENED: u64 = 2;

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn head_sent(skb: *mut __sk_buff, payload: u32, slot: u32, len: u32, start: u64) -> u64 {
    head::<SENT, _>(Packet { skb, payload }, slot, Chunk { start, len })
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn head_received(
    skb: *mut __sk_buff,
    payload: u32,
    slot: u32,
    len: u32,
    start: u64,
) -> u64 {
    head::<RECEIVED, _>(Packet { skb, payload }, slot, Chunk { start, len })
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn head_kept(buffer: u32, slot: u32, len: u32, start: u64) -> u64 {
    match Kept::new(buffer) {
        Some(source) => head::<RECEIVED, _>(source, slot, Chunk { start, len }),
        None => FOLLOWED,
    }
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn frames_kept(buffer: u32, slot: u32, len: u32, start: u64) -> u64 {
    let (Some(mut source), Some((connection, cursor))) =
        (Kept::new(buffer), maps::connection(slot))
    else {
        return FOLLOWED;
    };
    // SAFETY: the maps' values live as long as the programs.
    let (connection, cursor) = unsafe { (&mut *connection, &mut *cursor) };
    let of = SocketRef {
        slot,
        generation: connection.generation,
    };
    let chunk = Chunk { start, len };
    if frames::<RECEIVED, _>(&mut source, &chunk, of, connection, cursor) {
        FOLLOWED
    } else {
        GAP
    }
}

/// Bytes are missing before this segment, for good.
#[inline(always)]
pub fn lose<const DIRECTION: u8>(slot: &mut Slot, cursor: &mut Cursor, chunk: &Chunk) {
    if slot.state == STATE_OPEN {
        let (direction, counters) = pick::<DIRECTION>(slot, cursor);
        direction.lose(counters, chunk.end(), Loss::Gap);
    } else {
        // A head with a hole in it cannot be read.
        let state = if slot.response_ns == 0 {
            STATE_ABANDONED
        } else {
            STATE_REFUSED
        };
        end(slot, state);
    }
}

#[inline(always)]
fn pick<'a, const DIRECTION: u8>(
    slot: &'a mut Slot,
    cursor: &'a mut Cursor,
) -> (&'a mut Direction, &'a mut SlotDirection) {
    if DIRECTION == SENT {
        (&mut cursor.sent, &mut slot.sent)
    } else {
        (&mut cursor.received, &mut slot.received)
    }
}

struct FrameTurn<S> {
    source: S,
    chunk: Chunk,
    direction: *mut Direction,
    counters: *mut SlotDirection,
    tracer: Tracer,
}

struct Tracer {
    slot: u32,
    direction: u8,
    traced: bool,
}

impl FrameSink for Tracer {
    #[inline(always)]
    fn wants_all(&self) -> bool {
        self.traced
    }

    #[inline(always)]
    fn frame(&mut self, _header: &Header, window: &[u8; WINDOW], start: u32) {
        if self.traced {
            emit::frame(self.slot, self.direction, window, start);
        }
    }
}

#[inline(always)]
fn frames<const DIRECTION: u8, S: Bytes + Copy>(
    source: &mut S,
    chunk: &Chunk,
    of: SocketRef,
    slot: &mut Slot,
    cursor: &mut Cursor,
) -> bool {
    let traced = slot.traced != 0;
    let first_close = slot.first_close;
    let (direction, counters) = pick::<DIRECTION>(slot, cursor);
    let end = chunk.end();
    if end > counters.high {
        counters.high = end;
    }
    let sent_ns = if DIRECTION == SENT {
        source.timestamp()
    } else {
        0
    };
    counters.activity_ns = if sent_ns == 0 {
        maps::counted(Counter::Clock)
    } else {
        sent_ns
    };
    if chunk.start > direction.anchor {
        direction.anchor = chunk.start;
    }
    if direction.can_skip(end) {
        return true;
    }
    if chunk.start > direction.next && direction.is_synced() {
        return false;
    }
    let tracer = Tracer {
        slot: of.slot,
        direction: DIRECTION,
        traced,
    };
    let mut flow = direction.open_chunk(counters, chunk, source);
    if flow == Flow::Next {
        flow = if DIRECTION == SENT {
            direction.take_short(counters, chunk, &tracer)
        } else {
            // A received segment needs the stack.
            short_frames(direction, counters, chunk, &tracer)
        };
    }
    if flow == Flow::Next {
        let mut turn = FrameTurn {
            source: *source,
            chunk: *chunk,
            direction,
            counters,
            tracer,
        };
        // A frame has at least two bytes, and the first step may only load.
        let most = (chunk.len >> 1) + 2;
        // SAFETY: the callback takes what is passed, which outlives the call.
        unsafe {
            bpf_loop(
                most,
                next_frame::<S> as *mut c_void,
                (&raw mut turn).cast(),
                0,
            )
        };
    }
    let counters = if DIRECTION == SENT {
        &slot.sent
    } else {
        &slot.received
    };
    if counters.close_code != CLOSE_NONE && first_close == SIDE_NONE {
        slot.first_close = if DIRECTION == SENT {
            SIDE_LOCAL
        } else {
            SIDE_REMOTE
        };
    }
    true
}

extern "C" fn next_frame<S: Bytes>(_index: u64, turn: *mut FrameTurn<S>) -> u64 {
    // SAFETY: see `frames`.
    unsafe {
        let turn = &mut *turn;
        let flow = short_frames(
            &mut *turn.direction,
            &mut *turn.counters,
            &turn.chunk,
            &turn.tracer,
        );
        if flow == Flow::Done {
            return 1;
        }
        let flow = (*turn.direction).step(
            &mut *turn.counters,
            &turn.chunk,
            &mut turn.source,
            &mut turn.tracer,
        );
        u64::from(flow == Flow::Done)
    }
}

/// A function of its own: the stack that it takes is free again for what comes after.
#[inline(never)]
fn short_frames(
    direction: &mut Direction,
    counters: &mut SlotDirection,
    chunk: &Chunk,
    tracer: &Tracer,
) -> Flow {
    direction.take_short(counters, chunk, tracer)
}

#[inline(always)]
fn head<const DIRECTION: u8, S: Bytes + Copy>(source: S, index: u32, chunk: Chunk) -> u64 {
    let Some((slot, cursor)) = maps::connection(index) else {
        return FOLLOWED;
    };
    // SAFETY: the maps' values live as long as the programs.
    let (slot, cursor) = unsafe { (&mut *slot, &mut *cursor) };
    let of = SocketRef {
        slot: index,
        generation: slot.generation,
    };
    let is_request = (slot.role == ROLE_SERVER) == (DIRECTION == RECEIVED);
    let direction = if DIRECTION == SENT {
        &mut cursor.sent
    } else {
        &mut cursor.received
    };
    if chunk.start > direction.anchor {
        direction.anchor = chunk.start;
    }
    let next = direction.next;
    if chunk.end() <= next {
        return FOLLOWED;
    }
    if is_request && cursor.request_done != 0 {
        cursor.early = 1;
        direction.next = chunk.end();
        return FOLLOWED;
    }
    if chunk.start > next {
        return GAP;
    }
    let start = if is_request {
        &mut cursor.request_start
    } else {
        &mut cursor.response_start
    };
    if *start == 0 {
        *start = next;
    }
    let start = *start;
    let from = (next - chunk.start) as u32;
    let scanner = if is_request {
        cursor.request
    } else {
        cursor.response
    };
    let walk = walk(source, scanner, from, chunk.len);
    direction.next = chunk.start + u64::from(walk.at);
    let head_len = direction.next - start;
    if is_request {
        cursor.request = walk.scanner;
    } else {
        cursor.response = walk.scanner;
    }
    let mut pieces = Pieces {
        source,
        of,
        direction: DIRECTION,
        ends: walk.verdict == Verdict::End,
        from,
        to: walk.at,
        at: (next - start) as u32,
        zero: maps::zero() as u32,
    };
    let most = MAX_HEAD / LARGE_HEAD as u32 + 1;
    // SAFETY: the callback takes what is passed, which outlives the call.
    unsafe {
        bpf_loop(
            most,
            emit_piece::<S> as *mut c_void,
            (&raw mut pieces).cast(),
            0,
        )
    };
    if is_request {
        request(slot, cursor, &walk, head_len, walk.at < chunk.len);
    } else {
        response::<DIRECTION>(of, slot, cursor, &walk, head_len);
    }
    if slot.state == STATE_OPEN {
        OPENED
    } else {
        FOLLOWED
    }
}

#[inline(always)]
fn request(slot: &mut Slot, cursor: &mut Cursor, walk: &Walked, len: u64, more: bool) {
    let has_upgrade = walk.scanner.has_upgrade();
    if has_upgrade {
        slot.state = STATE_HANDSHAKE;
    }
    match walk.verdict {
        Verdict::End if has_upgrade => {
            cursor.request_done = 1;
            cursor.early = u32::from(more);
        }
        Verdict::More if len < LONGEST_HEAD => {}
        _ => end(slot, STATE_ABANDONED),
    }
}

#[inline(always)]
fn response<const DIRECTION: u8>(
    of: SocketRef,
    slot: &mut Slot,
    cursor: &mut Cursor,
    walk: &Walked,
    len: u64,
) {
    let status = walk.scanner.status();
    slot.status = status;
    if slot.response_ns == 0 && (status == 101 || status >= 200) {
        slot.response_ns = emit::now();
    }
    match walk.verdict {
        Verdict::End if status == 101 && cursor.request_done != 0 => {
            open::<DIRECTION>(slot, cursor);
            emit::state(of, STATE_OPEN, false);
        }
        Verdict::More if len < LONGEST_HEAD && (status < 200) => {}
        _ => {
            end(slot, STATE_REFUSED);
            emit::state(of, STATE_REFUSED, true);
        }
    }
}

#[inline(always)]
fn open<const RESPONSE: u8>(slot: &mut Slot, cursor: &mut Cursor) {
    let is_server = slot.role == ROLE_SERVER;
    let (sent, received) = (cursor.sent.next, cursor.received.next);
    cursor.sent.begin_frames(&mut slot.sent, sent, !is_server);
    cursor
        .received
        .begin_frames(&mut slot.received, received, is_server);
    if cursor.early != 0 {
        if RESPONSE == SENT {
            cursor
                .received
                .lose(&mut slot.received, received, Loss::Early);
        } else {
            cursor.sent.lose(&mut slot.sent, sent, Loss::Early);
        }
    }
    slot.state = STATE_OPEN;
}

#[inline(always)]
fn end(slot: &mut Slot, state: u8) {
    slot.state = state;
    slot.end_ns = emit::now();
}

/// What a walk over a head came to.
pub struct Walked {
    pub scanner: HeadScanner,
    pub verdict: Verdict,
    pub at: u32,
}

struct WalkTurn<S> {
    walk: HeadWalk,
    source: S,
}

/// Runs a scanner from offset `from` over a segment of `len` bytes.
#[inline(always)]
pub fn walk<S: Bytes>(source: S, scanner: HeadScanner, from: u32, len: u32) -> Walked {
    let walk = HeadWalk::new(scanner, from, len, maps::zero() as u32);
    let most = walk.steps();
    let mut turn = WalkTurn { walk, source };
    // SAFETY: the callback takes what is passed, which outlives the call.
    unsafe { bpf_loop(most, walk_on::<S> as *mut c_void, (&raw mut turn).cast(), 0) };
    Walked {
        scanner: turn.walk.scanner,
        verdict: turn.walk.verdict,
        at: turn.walk.at,
    }
}

extern "C" fn walk_on<S: Bytes>(_index: u64, turn: *mut WalkTurn<S>) -> u64 {
    // SAFETY: see `walk`.
    unsafe { u64::from((*turn).walk.step(&mut (*turn).source)) }
}

/// A part of a head that is sent, piece by piece.
struct Pieces<S> {
    source: S,
    of: SocketRef,
    direction: u8,
    /// The head ends at `to`.
    ends: bool,
    /// Offsets in the segment.
    from: u32,
    to: u32,
    /// Offset in the head of what begins at `from`.
    at: u32,
    zero: u32,
}

extern "C" fn emit_piece<S: Bytes>(_index: u64, pieces: *mut Pieces<S>) -> u64 {
    // SAFETY: see `head`.
    let pieces = unsafe { &mut *pieces };
    let (from, at) = (pieces.from ^ pieces.zero, pieces.at ^ pieces.zero);
    let left = pieces.to.wrapping_sub(from);
    if left == 0 || at >= MAX_HEAD {
        return 1;
    }
    let len = if left > LARGE_HEAD as u32 {
        LARGE_HEAD as u32
    } else {
        left
    };
    let last = pieces.ends && len == left;
    let direction = pieces.direction;
    emit::head(
        &pieces.source,
        &emit::Piece {
            of: pieces.of,
            direction,
            last,
            from,
            at,
            len,
        },
    );
    pieces.from = from.wrapping_add(len);
    pieces.at = at.wrapping_add(len);
    0
}
