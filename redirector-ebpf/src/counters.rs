//! What became of packets.

use aya_ebpf::{macros::map, maps::PerCpuArray};
use redirector_common::Counter;

/// See [`Counter`].
#[map]
static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Counter::COUNT, 0);

#[inline(always)]
pub fn count(outcome: Counter) {
    if let Some(counter) = COUNTERS.get_ptr_mut(outcome as u32) {
        // SAFETY: a per-CPU slot; programs do not migrate while they run.
        unsafe { *counter += 1 };
    }
}
