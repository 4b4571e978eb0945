//! What is asked of an agent or a gateway about requests, and the answer.

use super::{mark::Mark, observation::Observation, traceparent::TraceId};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::{net::IpAddr, sync::Arc};

/// Most requests in an answer, of developers' and of others.
const MAX_ANSWER: usize = 2000;

/// Most ids, marks and windows in a question.
pub const MAX_QUESTION: usize = 256;

/// Asks for the requests to which any of this applies.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TraceQuery {
    /// Of the intercept, observer or preview with this name.
    #[serde(default)]
    pub name: Option<String>,
    /// With one of these contexts.
    #[serde(default)]
    pub marks: Vec<Mark>,
    #[serde(default)]
    pub traces: Vec<TraceId>,
    /// Under way in one of these.
    #[serde(default)]
    pub windows: Vec<Window>,
}

/// A time, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    pub from: Timestamp,
    pub to: Timestamp,
}

/// What one agent or gateway knows.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Traced {
    /// On the clock of who answers.
    pub now: Timestamp,
    pub hops: Vec<HopAddresses>,
    pub observations: Vec<Observation>,
}

/// The addresses of a target, by which it is known when it is a client elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HopAddresses {
    pub hop: String,
    pub addresses: Vec<IpAddr>,
}

impl TraceQuery {
    /// Whoever makes a longer question than that makes work, not sense.
    #[must_use]
    pub fn is_small(&self) -> bool {
        [self.marks.len(), self.traces.len(), self.windows.len()].iter().all(|count| *count <= MAX_QUESTION)
    }

    #[must_use]
    pub fn applies_to(&self, seen: &Observation) -> bool {
        self.name.as_ref().is_some_and(|name| seen.met.contains(name))
            || self.marks.iter().any(|mark| seen.carried.contains(mark))
            || seen.trace.is_some_and(|trace| self.traces.contains(&trace))
            || self.windows.iter().any(|window| seen.started <= window.to && seen.ended() >= window.from)
    }

    /// Those to which it applies, the newest of each kind.
    #[must_use]
    pub fn select(&self, all: Vec<Arc<Observation>>) -> Vec<Observation> {
        let found = all.into_iter().filter(|seen| self.applies_to(seen));
        let (developers, live) = found.partition(|seen| seen.is_developers());
        [developers, live].into_iter().flat_map(newest).map(Arc::unwrap_or_clone).collect()
    }
}

fn newest(mut found: Vec<Arc<Observation>>) -> Vec<Arc<Observation>> {
    found.sort_by_key(|seen| seen.started);
    found.drain(..found.len().saturating_sub(MAX_ANSWER));
    found
}
