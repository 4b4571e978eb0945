//! The time that the agent adds to a request of the live route, as a histogram.

use crate::protocol::Protocol;
use std::{
    array,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// Upper bounds of the buckets, in nanoseconds; one more holds the rest.
const BOUNDS: [u64; 15] = [
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    1_000_000_000,
];

/// Added latency of the requests that went to the app, by protocol.
///
/// Of one request it is the sum of two times: from the read that completed its head to the end of the write that
/// passed the head on to the app; and from the read that brought the head of its (final) answer to the end of the
/// write that passed that head on to the client. So it includes parsing, matching and both writes, and neither the
/// app's own time nor the bodies that come later. Over HTTP/2 a write ends when the connection has taken the head, which
/// it writes together with those of other streams. It does not include what the kernel does on the way, nor the
/// connection to the app, which is made when the client's is accepted. A peer that takes no bytes makes writes wait,
/// and that counts. A request is observed when its answer's head has been written: one that never gets an answer is
/// not in the histogram.
#[derive(Debug, Default)]
pub struct AddedLatency([Histogram; Protocol::ALL.len()]);

#[derive(Debug, Default)]
struct Histogram {
    counts: [AtomicU64; BOUNDS.len() + 1],
    nanoseconds: AtomicU64,
}

/// A histogram at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Buckets {
    /// In seconds.
    pub sum: f64,
    pub count: u64,
    /// Upper bound in seconds (the last is infinite), and how many fell between it and the one before.
    pub counts: Vec<(f64, u64)>,
}

impl AddedLatency {
    pub fn observe(&self, protocol: Protocol, added: Duration) {
        let histogram = &self.0[protocol as usize];
        let nanoseconds = u64::try_from(added.as_nanos()).unwrap_or(u64::MAX);
        let bucket = BOUNDS.partition_point(|bound| *bound < nanoseconds);
        histogram.counts[bucket].fetch_add(1, Relaxed);
        histogram.nanoseconds.fetch_add(nanoseconds, Relaxed);
    }

    pub fn read(&self, protocol: Protocol) -> Buckets {
        let histogram = &self.0[protocol as usize];
        let counts: [u64; BOUNDS.len() + 1] = array::from_fn(|bucket| histogram.counts[bucket].load(Relaxed));
        let bounds = BOUNDS.iter().map(|bound| seconds(*bound)).chain([f64::INFINITY]);
        Buckets {
            sum: seconds(histogram.nanoseconds.load(Relaxed)),
            count: counts.iter().sum(),
            counts: bounds.zip(counts).collect(),
        }
    }
}

fn seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_its_own_bucket() {
        let latency = AddedLatency::default();
        for micros in [0, 10, 11, 25, 2_000_000] {
            latency.observe(Protocol::Http1, Duration::from_micros(micros));
        }
        let buckets = latency.read(Protocol::Http1);
        assert_eq!(buckets.count, 5);
        assert!((buckets.sum - 2.000_046).abs() < 1e-9);
        assert_eq!(buckets.counts[..3], [(0.000_01, 2), (0.000_025, 2), (0.000_05, 0)]);
        assert_eq!(buckets.counts.last(), Some(&(f64::INFINITY, 1)));
        assert_eq!(latency.read(Protocol::Http2).count, 0);
    }
}
