//! What is counted, per port and per intercept.

use super::added_latency::AddedLatency;
use crate::{
    api::{DoorKind, InterceptCounts, PortCounts, RequestCounts, Route, Uncovered},
    byte_counts::ByteCounts,
    http1::RawReason,
    protocol::Protocol,
};
use std::sync::{
    Arc,
    atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
};

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
    /// What new connections of the app's began with: bits of [`PORT_HTTP2`](redirector_common::PORT_HTTP2) and others.
    pub began_with: AtomicU32,
    /// Connections (or what was left of them) spliced without being understood.
    pub uncovered: ByReason,
    /// Connections that were the app's before they were ours.
    pub parking: ParkingStats,
    /// Of all intercepts that the port has, and has had.
    pub outcomes: Outcomes,
    /// To and from the app.
    pub live_bytes: Arc<ByteCounts>,
    /// Into and out of the tunnels.
    pub developer_bytes: Arc<ByteCounts>,
    pub added_latency: AddedLatency,
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

/// Requests that matched an intercept, by what became of them.
#[derive(Debug, Default)]
pub struct Outcomes {
    matched: ByProtocol,
    answered: ByProtocol,
    away: ByProtocol,
    failed: ByProtocol,
}

/// Counts of one intercept, of all that had its name, and of its port: they move together.
#[derive(Debug)]
pub struct InterceptStats {
    own: Outcomes,
    namesakes: Arc<Outcomes>,
    port: Arc<PortStats>,
}

/// One count for each protocol.
#[derive(Debug, Default)]
pub struct ByProtocol([AtomicU64; Protocol::ALL.len()]);

/// One count for each reason.
#[derive(Debug, Default)]
pub struct ByReason([AtomicU64; Uncovered::ALL.len()]);

impl PortStats {
    pub fn read(&self) -> PortCounts {
        let requests = |protocol| RequestCounts {
            seen: self.requests.read(protocol),
            live: self.live.read(protocol),
            matched: self.outcomes.matched.read(protocol),
            answered: self.outcomes.answered.read(protocol),
            away: self.outcomes.away.read(protocol),
            failed: self.outcomes.failed.read(protocol),
        };
        let parked = self.parking.parked.load(Relaxed);
        let assigned = self.connections.load(Relaxed).saturating_sub(parked);
        PortCounts {
            connections: [(DoorKind::Assign, assigned), (DoorKind::Park, parked)].into(),
            open: self.open.load(Relaxed),
            requests: Protocol::ALL.map(|protocol| (protocol, requests(protocol))).into(),
            uncovered: Uncovered::ALL.map(|reason| (reason, self.uncovered.read(reason))).into(),
            parked,
            falsely_parked: self.parking.falsely.load(Relaxed),
            retired: self.parking.retired.load(Relaxed),
            given_back: self.parking.given_back.load(Relaxed),
            bytes: [(Route::Live, self.live_bytes.read()), (Route::Developer, self.developer_bytes.read())]
                .into(),
        }
    }
}

impl Outcomes {
    pub fn read(&self) -> InterceptCounts {
        InterceptCounts {
            matched: self.matched.total(),
            answered: self.answered.total(),
            away: self.away.total(),
            failed: self.failed.total(),
        }
    }
}

impl InterceptStats {
    /// `namesakes`: of this and all earlier intercepts of its name.
    pub fn new(port: Arc<PortStats>, namesakes: Arc<Outcomes>) -> Self {
        Self { own: Outcomes::default(), namesakes, port }
    }

    /// A request matched.
    pub fn matched(&self, protocol: Protocol) {
        self.each(|outcomes| &outcomes.matched, protocol);
    }

    /// A request that matched was answered by the developer.
    pub fn answered(&self, protocol: Protocol) {
        self.each(|outcomes| &outcomes.answered, protocol);
    }

    /// A request that matched went to the app, because the developer was away.
    pub fn away(&self, protocol: Protocol) {
        self.each(|outcomes| &outcomes.away, protocol);
    }

    /// A request that matched got an error: local server refused, tunnel lost in the middle.
    pub fn failed(&self, protocol: Protocol) {
        self.each(|outcomes| &outcomes.failed, protocol);
    }

    fn each(&self, which: impl Fn(&Outcomes) -> &ByProtocol, protocol: Protocol) {
        for outcomes in [&self.own, &*self.namesakes, &self.port.outcomes] {
            which(outcomes).bump(protocol);
        }
    }

    /// Of this intercept alone.
    pub fn read(&self) -> InterceptCounts {
        self.own.read()
    }

    /// Where the bytes of its requests are counted.
    pub fn bytes(&self) -> &Arc<ByteCounts> {
        &self.port.developer_bytes
    }
}

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

pub fn bump(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}
