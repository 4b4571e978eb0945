//! Does the agent live?

use aya_ebpf::{helpers::bpf_ktime_get_ns, macros::map, maps::Array};
use redirector_common::HEARTBEAT_DEADLINE_NS;

/// When the agent last said that it is alive: `CLOCK_MONOTONIC` in nanoseconds.
#[map]
static HEARTBEAT: Array<u64> = Array::with_max_entries(1, 0);

#[inline(always)]
pub fn agent_alive() -> bool {
    let Some(beat) = HEARTBEAT.get_ptr(0) else { return false };
    // SAFETY: array slots live as long as the program; an aligned 8-byte read is not torn.
    let beat = unsafe { beat.read_volatile() };
    // SAFETY: no preconditions. The agent writes the same clock.
    let now = unsafe { bpf_ktime_get_ns() };
    // A beat that lands between the two reads is later than `now`: alive.
    now.saturating_sub(beat) < HEARTBEAT_DEADLINE_NS
}
