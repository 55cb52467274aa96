//! Events into the ring buffer. What finds no room is counted.

use aya_ebpf::helpers::generated::{
    bpf_ktime_get_ns, bpf_ringbuf_discard, bpf_ringbuf_reserve, bpf_ringbuf_submit,
};
use core::ffi::c_void;
use wsmon_common::{
    cursor::{Counter, SocketRef},
    event::{
        CONTROL_DATA, EventHeader, Frame, Head, KIND_FRAME, KIND_HEAD, KIND_STATE, LARGE_HEAD,
        SMALL_HEAD, State,
    },
    frame::{Header, WINDOW, WINDOW_START_MASK},
};

use crate::{
    maps::{EVENTS, SLOTS, count},
    packet::source::{Bytes, length},
};

/// Nanoseconds of `CLOCK_MONOTONIC`.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: no preconditions.
    unsafe { bpf_ktime_get_ns() }
}

#[inline(always)]
fn reserve<T>() -> *mut T {
    let map = (&raw const EVENTS).cast_mut().cast();
    // SAFETY: the map is a ring buffer; the size is a constant.
    let record: *mut T = unsafe { bpf_ringbuf_reserve(map, size_of::<T>() as u64, 0) }.cast();
    if record.is_null() {
        count(Counter::EventsLost, 1);
    }
    record
}

/// A connection's state changed.
#[inline(always)]
pub fn state(of: SocketRef, state: u8, ended: bool) {
    let record = reserve::<State>();
    if record.is_null() {
        return;
    }
    // SAFETY: the record is ours until it is submitted, and has room for the type.
    unsafe {
        (*record).header = EventHeader::new(KIND_STATE, 0, of.slot, of.generation, 0, now());
        (*record).state = u32::from(state);
        (*record).ended = u32::from(ended);
        bpf_ringbuf_submit(record.cast::<c_void>(), 0);
    }
}

/// Where a piece of a head stands.
pub struct Piece {
    pub of: SocketRef,
    pub direction: u8,
    pub last: bool,
    /// Offset in the chunk.
    pub from: u32,
    /// Offset in the head.
    pub at: u32,
    /// Bytes, 1 to [`LARGE_HEAD`].
    pub len: u32,
}

/// A piece of a head.
#[inline(always)]
pub fn head(source: &impl Bytes, piece: &Piece) {
    if piece.len <= SMALL_HEAD as u32 {
        head_of::<SMALL_HEAD>(source, piece);
    } else {
        head_of::<LARGE_HEAD>(source, piece);
    }
}

#[inline(always)]
fn head_of<const N: usize>(source: &impl Bytes, piece: &Piece) {
    let record = reserve::<Head<N>>();
    if record.is_null() {
        return;
    }
    let len = length(piece.len, N as u32).unwrap_or(0);
    // SAFETY: the record is ours until it is submitted or discarded, and has room for the type;
    // len is at most N where the copy is made.
    unsafe {
        if len == 0 || !source.copy(piece.from, (&raw mut (*record).data).cast(), len) {
            bpf_ringbuf_discard(record.cast::<c_void>(), 0);
            return;
        }
        (*record).header = EventHeader::new(
            KIND_HEAD,
            piece.direction,
            piece.of.slot,
            piece.of.generation,
            len,
            now(),
        );
        (*record).at = piece.at;
        (*record).last = u32::from(piece.last);
        bpf_ringbuf_submit(record.cast::<c_void>(), 0);
    }
}

/// A frame of a traced connection.
#[inline(never)]
pub fn frame(slot: u32, direction: u8, window: &[u8; WINDOW], start: u32) {
    // SAFETY: the map's values live as long as the programs.
    let generation = SLOTS
        .get_ptr(slot)
        .map_or(0, |slot| unsafe { (*slot).generation });
    let of = &SocketRef { slot, generation };
    let header = &Header::read(window, start);
    let control = header.is_control() && header.payload_len <= 125;
    if control {
        let record = reserve::<Frame<CONTROL_DATA>>();
        if record.is_null() {
            return;
        }
        let len = header.header_len + header.payload_len as u32;
        // SAFETY: the record is ours until it is submitted, and has room for the type.
        unsafe {
            fill(record, of, direction, header, len);
            let at = (start & WINDOW_START_MASK) as usize;
            let mut index = 0;
            while index < CONTROL_DATA {
                (*record).data[index] = window[at + index];
                index += 1;
            }
            bpf_ringbuf_submit(record.cast::<c_void>(), 0);
        }
    } else {
        let record = reserve::<Frame<0>>();
        if record.is_null() {
            return;
        }
        // SAFETY: the record is ours until it is submitted, and has room for the type.
        unsafe {
            fill(record, of, direction, header, 0);
            bpf_ringbuf_submit(record.cast::<c_void>(), 0);
        }
    }
}

/// # Safety
///
/// `record` points to room for the type.
#[inline(always)]
unsafe fn fill<const N: usize>(
    record: *mut Frame<N>,
    of: &SocketRef,
    direction: u8,
    header: &Header,
    len: u32,
) {
    // SAFETY: by the contract of this function.
    unsafe {
        (*record).header =
            EventHeader::new(KIND_FRAME, direction, of.slot, of.generation, len, now());
        (*record).payload_len = header.payload_len;
        (*record).first = header.first;
        (*record).masked = u8::from(header.masked);
        (*record).header_len = header.header_len as u8;
    }
}
