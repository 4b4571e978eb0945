//! Words that begin anywhere.

/// The eight bytes at `bytes`, in the machine's order.
///
/// # Safety
/// So many must be there.
#[cfg(not(target_arch = "bpf"))]
#[inline(always)]
pub unsafe fn word_at(bytes: *const u8) -> u64 {
    // SAFETY: guaranteed by the caller.
    unsafe { bytes.cast::<u64>().read_unaligned() }
}

/// The eight bytes at `bytes`, in the machine's order. In one instruction, which the kernel allows where the machine can (all
/// that this runs on); the compiler does not know that, and would load bytes.
///
/// # Safety
/// So many must be there.
#[cfg(target_arch = "bpf")]
#[inline(always)]
pub unsafe fn word_at(bytes: *const u8) -> u64 {
    let word: u64;
    // SAFETY: guaranteed by the caller.
    unsafe {
        core::arch::asm!(
            "{word} = *(u64 *)({bytes} + 0)",
            word = out(reg) word,
            bytes = in(reg) bytes,
            options(pure, readonly, nostack, preserves_flags),
        );
    }
    word
}
