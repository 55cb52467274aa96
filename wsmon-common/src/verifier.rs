//! What the kernel's verifier needs to be told, and what does nothing elsewhere.

/// The value as it is, of which the optimiser knows nothing any more: it would fold a comparison
/// or a mask that follows into an earlier one, of another register, which proves nothing to the
/// verifier about this one.
#[inline(always)]
pub fn opaque(value: u32) -> u64 {
    #[cfg_attr(
        not(target_arch = "bpf"),
        expect(unused_mut, reason = "for the kernel only")
    )]
    let mut value = u64::from(value);
    #[cfg(target_arch = "bpf")]
    // SAFETY: a move to itself; without any instruction the object's line numbers are refused.
    unsafe {
        core::arch::asm!("{0} = {0}", inout(reg) value, options(pure, nomem, nostack));
    }
    value
}
