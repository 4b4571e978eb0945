//! The counts of an agent's whole life. They stay when an intercept, a port or a target ends, and go on when it comes
//! back under the same name: a counter that somebody watches never goes backwards.

use crate::{
    api::{InterceptCounts, PortCounts},
    engine::{Buckets, InterceptStats, Outcomes, PortStats},
    protocol::Protocol,
    target::Target,
};
use redirector_common::Counter;
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

/// How many targets, ports and intercepts are remembered that are no more. Beyond that the one that was used first
/// is forgotten: its series ends.
const REMEMBERED: usize = 512;

/// All counts of one agent.
#[derive(Debug, Default)]
pub struct Ledger(Mutex<Books>);

#[derive(Debug, Default)]
struct Books {
    targets: Book<Target, TargetStats>,
    ports: Book<(Target, u16), PortStats>,
    intercepts: Book<(Target, u16, String), Outcomes>,
}

/// Counts of one target.
#[derive(Debug, Default)]
pub struct TargetStats {
    /// By what became of them.
    packets: [AtomicU64; Counter::COUNT as usize],
}

/// All counts at one moment.
#[derive(Debug, Default)]
pub struct Totals {
    pub targets: Vec<TargetTotals>,
    pub ports: Vec<PortTotals>,
    pub intercepts: Vec<InterceptTotals>,
}

/// What came to one target.
#[derive(Debug)]
pub struct TargetTotals {
    pub target: Target,
    /// By what became of them.
    pub packets: BTreeMap<&'static str, u64>,
}

/// What came to one port.
#[derive(Debug)]
pub struct PortTotals {
    pub target: Target,
    pub port: u16,
    pub counts: PortCounts,
    pub added_latency: Vec<(Protocol, Buckets)>,
}

/// What came of the requests of all intercepts of one name.
#[derive(Debug)]
pub struct InterceptTotals {
    pub target: Target,
    pub port: u16,
    pub name: String,
    pub counts: InterceptCounts,
}

impl Ledger {
    pub fn target(&self, target: &Target) -> Arc<TargetStats> {
        self.with(|books| books.targets.entry(target.clone()))
    }

    pub fn port(&self, target: &Target, port: u16) -> Arc<PortStats> {
        self.with(|books| books.ports.entry((target.clone(), port)))
    }

    /// For a new intercept.
    pub fn intercept(&self, target: &Target, port: u16, name: &str) -> InterceptStats {
        let namesakes = self.with(|books| books.intercepts.entry((target.clone(), port, name.to_owned())));
        InterceptStats::new(self.port(target, port), namesakes)
    }

    pub fn read(&self) -> Totals {
        self.with(|books| Totals {
            targets: (books.targets.iter())
                .map(|(target, stats)| TargetTotals { target: target.clone(), packets: stats.packets() })
                .collect(),
            ports: books
                .ports
                .iter()
                .map(|((target, port), stats)| port_totals(target, *port, stats))
                .collect(),
            intercepts: (books.intercepts.iter())
                .map(|((target, port, name), outcomes)| InterceptTotals {
                    target: target.clone(),
                    port: *port,
                    name: name.clone(),
                    counts: outcomes.read(),
                })
                .collect(),
        })
    }

    fn with<T>(&self, work: impl FnOnce(&mut Books) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl TargetStats {
    pub fn add_packets(&self, outcome: Counter, amount: u64) {
        self.packets[outcome as usize].fetch_add(amount, Relaxed);
    }

    pub fn packets(&self) -> BTreeMap<&'static str, u64> {
        Counter::ALL
            .into_iter()
            .map(|(outcome, name)| (name, self.packets[outcome as usize].load(Relaxed)))
            .collect()
    }
}

fn port_totals(target: &Target, port: u16, stats: &PortStats) -> PortTotals {
    PortTotals {
        target: target.clone(),
        port,
        counts: stats.read(),
        added_latency: Protocol::ALL.map(|protocol| (protocol, stats.added_latency.read(protocol))).to_vec(),
    }
}

/// Counts by name, the one that was asked for last at the end.
#[derive(Debug)]
struct Book<K, V>(Vec<(K, Arc<V>)>);

impl<K, V> Default for Book<K, V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<K: PartialEq, V: Default> Book<K, V> {
    fn entry(&mut self, key: K) -> Arc<V> {
        let entry = match self.0.iter().position(|(known, _)| *known == key) {
            Some(at) => self.0.remove(at),
            None => (key, Arc::default()),
        };
        let value = Arc::clone(&entry.1);
        self.0.push(entry);
        self.forget();
        value
    }

    /// What is in use is never forgotten.
    fn forget(&mut self) {
        let ended = |entry: &(K, Arc<V>)| Arc::strong_count(&entry.1) == 1;
        let mut surplus = self.0.iter().filter(|entry| ended(entry)).count().saturating_sub(REMEMBERED);
        self.0.retain(|entry| {
            let forgotten = surplus > 0 && ended(entry);
            surplus -= usize::from(forgotten);
            !forgotten
        });
    }

    fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.0.iter().map(|(key, value)| (key, &**value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target() -> Target {
        "netns:shop".parse().unwrap()
    }

    #[test]
    fn an_intercept_that_comes_back_counts_on() {
        let ledger = Ledger::default();
        let first = ledger.intercept(&target(), 80, "alice");
        first.matched(Protocol::Http1);
        first.answered(Protocol::Http1);
        drop(first);
        let second = ledger.intercept(&target(), 80, "alice");
        second.matched(Protocol::Http2);
        second.failed(Protocol::Http2);
        assert_eq!(second.read(), InterceptCounts { matched: 1, failed: 1, ..InterceptCounts::default() });

        let totals = ledger.read();
        let counts = InterceptCounts { matched: 2, answered: 1, away: 0, failed: 1 };
        assert_eq!(totals.intercepts.iter().map(|i| i.counts).collect::<Vec<_>>(), [counts]);
        let requests = &totals.ports[0].counts.requests;
        assert_eq!((requests[&Protocol::Http1].answered, requests[&Protocol::Http2].failed), (1, 1));
    }

    #[test]
    fn what_is_in_use_is_remembered_and_what_has_ended_not_for_ever() {
        let ledger = Ledger::default();
        let in_use = ledger.port(&target(), 80);
        for port in 1000..3000 {
            drop(ledger.port(&target(), port));
        }
        // The newest was in use when it was made.
        let totals = ledger.read();
        assert_eq!(totals.ports.len(), 1 + REMEMBERED + 1);
        assert_eq!((totals.ports[0].port, totals.ports.last().unwrap().port), (80, 2999));
        drop(in_use);
    }
}
