//! Atomic read-modify-write: the compiler has none for this target, the kernel has (xchg: Linux
//! 5.12). All of them are full barriers.

use core::arch::asm;
use wsmon_common::cursor::Shared;

/// Stores `value` and returns what was there.
#[inline(always)]
pub fn swap(cell: &Shared, value: u64) -> u64 {
    let mut value = value;
    // SAFETY: an atomic exchange on a valid, aligned word.
    unsafe {
        asm!("{0} = xchg_64({1} + 0, {0})", inout(reg) value, in(reg) cell.as_ptr(), options(nostack));
    }
    value
}

/// Adds `by`, wrapping, and returns what was there.
#[inline(always)]
pub fn fetch_add(cell: &Shared, by: u64) -> u64 {
    let mut by = by;
    // SAFETY: an atomic addition on a valid, aligned word.
    unsafe {
        asm!("{0} = atomic_fetch_add((u64 *)({1} + 0), {0})", inout(reg) by, in(reg) cell.as_ptr(), options(nostack));
    }
    by
}

/// Adds `by` to a 32-bit word, wrapping.
///
/// # Safety
///
/// `word` is valid and aligned.
#[inline(always)]
pub unsafe fn add(word: *mut u32, by: u32) {
    // SAFETY: by the contract.
    unsafe {
        asm!("lock *(u32 *)({0} + 0) += {1}", in(reg) word, in(wreg) by, options(nostack));
    }
}

/// What is there, ordered with everything before and after.
#[inline(always)]
pub fn load(cell: &Shared) -> u64 {
    fetch_add(cell, 0)
}
