//! How long to wait before dialling a lost agent again: exponential with jitter, pure.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::time::Duration;

const FIRST: Duration = Duration::from_millis(100);
const LAST: Duration = Duration::from_secs(5);

/// Counts failures in a row. Delays double from 100 ms up to 5 s; the upper half of each is random, so that many
/// developers don't dial a restarted agent in step.
#[derive(Clone, Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The wait after one more failure. `random` picks the point within the jitter; see [`random`].
    pub fn next_delay(&mut self, random: u32) -> Duration {
        let full = FIRST.saturating_mul(1_u32.checked_shl(self.failures).unwrap_or(u32::MAX)).min(LAST);
        self.failures = self.failures.saturating_add(1);
        full / 2 + (full / 2).mul_f64(f64::from(random) / f64::from(u32::MAX))
    }

    /// Forgets the failures; call it when a connection has worked.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

/// A random number good enough for jitter: the standard library seeds each hasher differently.
#[must_use]
pub fn random() -> u32 {
    (RandomState::new().build_hasher().finish() >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn without_luck_delays_double_up_to_five_seconds() {
        let mut backoff = Backoff::new();
        let delays: Vec<u128> = (0..8).map(|_| backoff.next_delay(u32::MAX).as_millis()).collect();
        assert_eq!(delays, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        backoff.reset();
        assert_eq!(backoff.next_delay(u32::MAX).as_millis(), 100);
    }

    proptest! {
        #[test]
        fn every_delay_is_between_50_ms_and_5_s(failures in 0_u32..200, random: u32) {
            let mut backoff = Backoff { failures };
            let delay = backoff.next_delay(random);
            prop_assert!(delay >= FIRST / 2 && delay <= LAST);
            prop_assert_eq!(backoff.failures, failures + 1);
        }
    }
}
