//! Segments whose checksum the kernel has not verified yet when this tap sees them: it does so
//! after the hook for those of more than 76 bytes (`CHECKSUM_BREAK`, Linux 5.10 to 6.18) where the
//! network card did not.

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::generated::{bpf_loop, bpf_probe_read_kernel, bpf_skb_load_bytes},
};
use core::ffi::c_void;
use wsmon_common::verifier::opaque;

use super::segment::Segment;
use crate::{
    maps,
    offsets::{MISSING, SKB_CSUM_VALID, SKB_CSUM_VALID_MASK},
};

/// Segments up to this length, TCP header included, were verified before the hook.
const CHECKSUM_BREAK: u32 = 76;
/// Bytes that are added up at a time.
const STEP: usize = 64;

/// Whether TCP will take the segment for undamaged.
#[inline(always)]
pub fn is_right(skb: *mut __sk_buff, segment: &Segment) -> bool {
    segment.payload - segment.tcp_at + segment.len <= CHECKSUM_BREAK
        || is_verified(skb)
        || adds_up(skb, segment.tcp_at, u32::from(segment.is_ipv6)) != 0
}

/// `skb->csum_valid`, which no program may read otherwise.
#[inline(always)]
fn is_verified(skb: *mut __sk_buff) -> bool {
    let offset = SKB_CSUM_VALID.load();
    if offset == MISSING {
        return true;
    }
    let mut byte = 0u8;
    // SAFETY: the context is the packet's structure in the kernel; the helper checks the access.
    unsafe {
        let from = skb.cast::<u8>().wrapping_add(offset as usize);
        bpf_probe_read_kernel((&raw mut byte).cast(), 1, from.cast());
    }
    u32::from(byte) & SKB_CSUM_VALID_MASK.load() != 0
}

struct Sum {
    skb: *mut __sk_buff,
    at: u32,
    len: u32,
    zero: u32,
    total: u64,
    words: [u32; STEP / 4],
}

/// Adds up the pseudo header and the segment (RFC 9293, section 3.1): 1 if the checksum is right.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn adds_up(skb: *mut __sk_buff, tcp_at: u32, is_ipv6: u32) -> u64 {
    // SAFETY: `skb` is the program's context.
    let end = unsafe { (*skb).len };
    let len = end.wrapping_sub(tcp_at);
    let zero = maps::zero() as u32;
    let mut sum = Sum {
        skb,
        at: tcp_at,
        len: end,
        zero,
        total: 0,
        words: [0; STEP / 4],
    };
    let addresses = (&raw mut sum.words).cast::<c_void>();
    // SAFETY: the words have room for both addresses; the helper checks the offset.
    unsafe {
        if is_ipv6 != 0 {
            bpf_skb_load_bytes(skb.cast(), 8, addresses, 32);
        } else {
            bpf_skb_load_bytes(skb.cast(), 12, addresses, 8);
        }
    }
    sum.add_words();
    sum.total += u64::from(6u16.to_be())
        + u64::from((len as u16).to_be())
        + u64::from(((len >> 16) as u16).to_be());
    // SAFETY: the callback takes what is passed, which outlives the call.
    unsafe {
        bpf_loop(
            len / STEP as u32 + 1,
            add_step as *mut c_void,
            (&raw mut sum).cast(),
            0,
        )
    };
    let mut folded = sum.total;
    let mut times = 0;
    while times < 4 {
        folded = (folded & 0xffff) + (folded >> 16);
        times += 1;
    }
    u64::from(folded == 0xffff)
}

impl Sum {
    #[inline(always)]
    fn add_words(&mut self) {
        let mut index = 0;
        while index < STEP / 4 {
            self.total += u64::from(self.words[index]);
            self.words[index] = 0;
            index += 1;
        }
    }
}

extern "C" fn add_step(_index: u64, sum: *mut Sum) -> u64 {
    // SAFETY: see `adds_up`.
    let sum = unsafe { &mut *sum };
    let at = sum.at ^ sum.zero;
    let left = sum.len.wrapping_sub(at);
    if left == 0 || left > sum.len {
        return 1;
    }
    let to = (&raw mut sum.words).cast::<c_void>();
    // SAFETY: the words have room; the helper checks the offset.
    unsafe {
        if left >= STEP as u32 {
            bpf_skb_load_bytes(sum.skb.cast(), at, to, STEP as u32);
        } else {
            let len = opaque(left) as u32 & (STEP as u32 - 1);
            if len == 0 {
                return 1;
            }
            bpf_skb_load_bytes(sum.skb.cast(), at, to, len);
        }
    }
    sum.at = at + STEP as u32;
    sum.add_words();
    0
}
