//! The last requests that an agent or a gateway remembers.

use super::observation::Observation;
use crate::otlp::Exporter;
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

/// How many requests are remembered that carried a context, and how many that did not: live traffic at an observed port
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
    carrying: VecDeque<Arc<Observation>>,
    bare: VecDeque<Arc<Observation>>,
}

impl RequestLog {
    #[must_use]
    pub fn new(exporter: Option<Exporter>) -> Self {
        Self { rings: Mutex::default(), exporter }
    }

    /// Takes a moment, and never waits for anybody who is slow.
    pub fn push(&self, observation: Observation) {
        let carries = observation.carries();
        let observation = Arc::new(observation);
        if let Some(exporter) = self.exporter.as_ref().filter(|_| carries) {
            exporter.export(&observation);
        }
        let mut rings = self.rings.lock().unwrap_or_else(PoisonError::into_inner);
        let ring = if carries { &mut rings.carrying } else { &mut rings.bare };
        if ring.len() == REMEMBERED {
            ring.pop_front();
        }
        ring.push_back(observation);
    }

    /// All that are remembered, those that carried a context first, and of each kind the oldest first.
    #[must_use]
    pub fn read(&self) -> Vec<Arc<Observation>> {
        let rings = self.rings.lock().unwrap_or_else(PoisonError::into_inner);
        rings.carrying.iter().chain(&rings.bare).cloned().collect()
    }
}
