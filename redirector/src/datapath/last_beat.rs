//! When the agent last told the eBPF programs that it is alive, for its own threads to know.

use nix::time::{ClockId, clock_gettime};
use redirector_common::HEARTBEAT_DEADLINE_NS;
use std::{
    sync::atomic::{AtomicU64, Ordering::SeqCst},
    time::Duration,
};

/// Nanoseconds of `CLOCK_MONOTONIC`, as in the programs' map.
#[derive(Debug, Default)]
pub struct LastBeat(AtomicU64);

impl LastBeat {
    /// The time of a beat, which is now.
    pub(super) fn beat(&self) -> u64 {
        let now = now();
        self.0.store(now, SeqCst);
        now
    }

    /// The programs may soon take the agent for one that hangs.
    pub fn is_late(&self) -> bool {
        now().saturating_sub(self.0.load(SeqCst)) > HEARTBEAT_DEADLINE_NS / 2
    }
}

fn now() -> u64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default().as_nanos() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beat_is_late_long_before_the_agent_counts_as_hung() {
        let last = LastBeat::default();
        assert!(last.is_late(), "there was none");
        let at = last.beat();
        assert!(!last.is_late());
        last.0.store(at - HEARTBEAT_DEADLINE_NS * 3 / 4, SeqCst);
        assert!(last.is_late());
    }
}
