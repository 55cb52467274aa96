//! Where the bytes of a segment are: in the packet, or in a buffer where they waited.

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::generated::{bpf_probe_read_kernel, bpf_skb_load_bytes},
};
use core::ffi::c_void;
use wsmon_common::{
    frame::{MAX_CONTROL_FRAME, WINDOW},
    head::{HEAD_LOAD, HEAD_WORDS, HeadSource},
    stream::{ByteSource, LOAD},
    verifier::opaque,
};

use crate::maps::BUFFERS;

/// The bytes of a segment.
pub trait Bytes: ByteSource + HeadSource {
    /// Copies `len` bytes from offset `from` of the segment.
    ///
    /// # Safety
    ///
    /// `to` has room for `len` bytes, and the verifier can see that.
    unsafe fn copy(&self, from: u32, to: *mut c_void, len: u32) -> bool;

    /// Of a segment that is sent: when, in nanoseconds of `CLOCK_MONOTONIC` (Linux 4.20 and newer);
    /// 0 if that is not known.
    fn timestamp(&self) -> u64;
}

/// A segment in the packet at hand.
#[derive(Clone, Copy)]
pub struct Packet {
    pub skb: *mut __sk_buff,
    /// Where the TCP payload begins, from the IP header on.
    pub payload: u32,
}

impl Bytes for Packet {
    #[inline(always)]
    fn timestamp(&self) -> u64 {
        // SAFETY: `skb` is the program's context.
        unsafe { (*self.skb).tstamp }
    }

    #[inline(always)]
    unsafe fn copy(&self, from: u32, to: *mut c_void, len: u32) -> bool {
        // SAFETY: by the contract of this function; the helper checks the offset.
        unsafe {
            bpf_skb_load_bytes(self.skb.cast(), self.payload.wrapping_add(from), to, len) == 0
        }
    }
}

/// A segment that waited.
#[derive(Clone, Copy)]
pub struct Kept {
    bytes: *const u8,
}

impl Kept {
    /// The segment in a buffer.
    #[inline(always)]
    pub fn new(buffer: u32) -> Option<Self> {
        BUFFERS.get_ptr(buffer).map(|bytes| Self {
            bytes: bytes.cast(),
        })
    }
}

impl Bytes for Kept {
    #[inline(always)]
    fn timestamp(&self) -> u64 {
        0
    }

    #[inline(always)]
    unsafe fn copy(&self, from: u32, to: *mut c_void, len: u32) -> bool {
        let from = (from & 0x1_ffff) as usize;
        // SAFETY: by the contract of this function; the source is read by a helper that checks
        // every access itself.
        unsafe { bpf_probe_read_kernel(to, len, self.bytes.wrapping_add(from).cast()) == 0 }
    }
}

macro_rules! loads {
    ($source:ty) => {
        impl ByteSource for $source {
            #[inline(always)]
            fn load(&mut self, from: u32, window: &mut [u8; WINDOW], at: u32, len: u32) -> bool {
                let at = opaque(at);
                let Some(len) = length(len, LOAD) else {
                    return false;
                };
                if at > u64::from(MAX_CONTROL_FRAME) {
                    return false;
                }
                // SAFETY: at + len stays inside the window, by the two comparisons.
                unsafe { self.copy(from, window.as_mut_ptr().add(at as usize).cast(), len) }
            }
        }

        impl HeadSource for $source {
            #[inline(always)]
            fn load_head(&mut self, from: u32, window: &mut [u64; HEAD_WORDS], len: u32) -> bool {
                let Some(len) = length(len, HEAD_LOAD) else {
                    return false;
                };
                // SAFETY: len is at most the window's size.
                unsafe { self.copy(from, window.as_mut_ptr().cast(), len) }
            }
        }
    };
}

loads!(Packet);
loads!(Kept);

/// A length from 1 to `most`, in a form that keeps its bounds: the optimiser would fold the
/// comparisons into earlier ones, of other registers, which tell the verifier nothing about this.
#[inline(always)]
pub fn length(value: u32, most: u32) -> Option<u32> {
    let above = opaque(value.wrapping_sub(1));
    if above >= u64::from(most) {
        return None;
    }
    Some(above as u32 + 1)
}
