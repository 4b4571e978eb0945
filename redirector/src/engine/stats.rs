//! What is counted, per port and per intercept.

use crate::{
    api::{InterceptCounts, PortCounts, Uncovered},
    http1::RawReason,
    protocol::Protocol,
};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Counts of one intercepted port.
#[derive(Debug, Default)]
pub struct PortStats {
    /// Connections accepted.
    pub connections: AtomicU64,
    /// Connections open now.
    pub open: AtomicU64,
    /// Requests whose head was read.
    pub requests: ByProtocol,
    /// Requests that went to the app.
    pub live: ByProtocol,
    /// Connections (or what was left of them) spliced without being understood.
    pub uncovered: ByReason,
    /// Connections that were the app's before they were ours.
    pub parking: ParkingStats,
}

/// Counts of connections that changed, or were to change, from the app to the agent.
#[derive(Debug, Default)]
pub struct ParkingStats {
    pub parked: AtomicU64,
    /// Parked for a request that did not match after all.
    pub falsely: AtomicU64,
    /// Parked, and ended by us because they were idle.
    pub retired: AtomicU64,
    /// Stayed with the app, because something was in doubt.
    pub given_back: AtomicU64,
}

/// One count for each protocol.
#[derive(Debug, Default)]
pub struct ByProtocol([AtomicU64; Protocol::ALL.len()]);

/// One count for each reason.
#[derive(Debug, Default)]
pub struct ByReason([AtomicU64; Uncovered::ALL.len()]);

impl ByProtocol {
    pub fn bump(&self, protocol: Protocol) {
        bump(&self.0[protocol as usize]);
    }

    pub fn read(&self, protocol: Protocol) -> u64 {
        self.0[protocol as usize].load(Relaxed)
    }

    pub fn total(&self) -> u64 {
        Protocol::ALL.into_iter().map(|protocol| self.read(protocol)).sum()
    }
}

impl ByReason {
    pub fn bump(&self, reason: Uncovered) {
        bump(&self.0[reason as usize]);
    }

    pub fn read(&self, reason: Uncovered) -> u64 {
        self.0[reason as usize].load(Relaxed)
    }

    pub fn total(&self) -> u64 {
        Uncovered::ALL.into_iter().map(|reason| self.read(reason)).sum()
    }
}

impl From<RawReason> for Uncovered {
    fn from(reason: RawReason) -> Self {
        match reason {
            RawReason::Tls => Self::Tls,
            RawReason::Http2 => Self::Http2,
            RawReason::NotHttp1 => Self::NotHttp,
            _ => Self::Malformed,
        }
    }
}

impl PortStats {
    pub fn read(&self) -> PortCounts {
        PortCounts {
            connections: self.connections.load(Relaxed),
            open: self.open.load(Relaxed),
            requests: self.requests.total(),
            live: self.live.total(),
            raw: self.uncovered.total(),
            parked: self.parking.parked.load(Relaxed),
            falsely_parked: self.parking.falsely.load(Relaxed),
            retired: self.parking.retired.load(Relaxed),
            given_back: self.parking.given_back.load(Relaxed),
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
