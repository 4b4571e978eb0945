//! The last requests that an agent or a gateway remembers.

use super::observation::Observation;
use crate::otlp::Exporter;
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

/// How many requests are remembered that were developers', and how many that were not: live traffic at an observed port
/// does not drive the others out. At most about 2 KiB each.
const REMEMBERED: usize = 4096;

/// The last requests, and who else is told of them.
#[derive(Debug, Default)]
pub struct RequestLog {
    rings: Mutex<Rings>,
    exporter: Option<Exporter>,
}

#[derive(Debug, Default)]
struct Rings {
    developers: VecDeque<Arc<Observation>>,
    live: VecDeque<Arc<Observation>>,
}

impl RequestLog {
    #[must_use]
    pub fn new(exporter: Option<Exporter>) -> Self {
        Self { rings: Mutex::default(), exporter }
    }

    /// Takes a moment, and never waits for anybody who is slow.
    pub fn push(&self, observation: Arc<Observation>) {
        let is_developers = observation.is_developers();
        if let Some(exporter) = self.exporter.as_ref().filter(|_| is_developers) {
            exporter.export(&observation);
        }
        let mut rings = self.rings.lock().unwrap_or_else(PoisonError::into_inner);
        let ring = if is_developers { &mut rings.developers } else { &mut rings.live };
        let oldest = if ring.len() == REMEMBERED { ring.pop_front() } else { None };
        ring.push_back(observation);
        drop(rings);
        // Others need not wait for that.
        drop(oldest);
    }

    /// Those who are told of requests have heard of all so far, or take too long.
    pub async fn flush(&self) {
        if let Some(exporter) = &self.exporter {
            exporter.flush().await;
        }
    }

    /// All that are remembered, those of developers first, and of each kind the oldest first.
    #[must_use]
    pub fn read(&self) -> Vec<Arc<Observation>> {
        let rings = self.rings.lock().unwrap_or_else(PoisonError::into_inner);
        rings.developers.iter().chain(&rings.live).cloned().collect()
    }
}
