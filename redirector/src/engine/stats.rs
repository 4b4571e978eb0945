//! What is counted, per port and per intercept.

use crate::api::{InterceptCounts, PortCounts};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Counts of one intercepted port.
#[derive(Debug, Default)]
pub struct PortStats {
    /// Connections accepted.
    pub connections: AtomicU64,
    /// Connections open now.
    pub open: AtomicU64,
    /// Requests whose head was read.
    pub requests: AtomicU64,
    /// Requests that went to the app.
    pub live: AtomicU64,
    /// Connections (or what was left of them) spliced without being understood.
    pub raw: AtomicU64,
}

impl PortStats {
    pub fn read(&self) -> PortCounts {
        PortCounts {
            connections: self.connections.load(Relaxed),
            open: self.open.load(Relaxed),
            requests: self.requests.load(Relaxed),
            live: self.live.load(Relaxed),
            raw: self.raw.load(Relaxed),
        }
    }
}

/// Counts of one intercept.
#[derive(Debug, Default)]
pub struct InterceptStats {
    /// Requests that matched.
    pub matched: AtomicU64,
    /// Requests that matched and were answered by the developer.
    pub answered: AtomicU64,
    /// Requests that matched and went to the app, because the developer was away.
    pub away: AtomicU64,
    /// Requests that matched and got an error: local server refused, tunnel lost in the middle.
    pub failed: AtomicU64,
}

impl InterceptStats {
    pub fn read(&self) -> InterceptCounts {
        InterceptCounts {
            matched: self.matched.load(Relaxed),
            answered: self.answered.load(Relaxed),
            away: self.away.load(Relaxed),
            failed: self.failed.load(Relaxed),
        }
    }
}

pub fn bump(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}
