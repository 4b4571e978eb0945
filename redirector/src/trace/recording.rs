//! A request that is being served, until it is remembered. The one file here with a clock.

use super::{
    log::RequestLog,
    observation::{Observation, Taken},
};
use std::{sync::Arc, time::Instant};

/// Is remembered when it is dropped, with all that is known then: however serving it ended.
#[derive(Debug)]
pub struct Recording {
    log: Arc<RequestLog>,
    /// In a box, because most requests have none.
    seen: Option<Box<Observation>>,
    began: Instant,
}

impl Recording {
    /// `seen` begins now.
    #[must_use]
    pub fn begin(log: &Arc<RequestLog>, seen: Observation) -> Self {
        Self { log: Arc::clone(log), seen: Some(Box::new(seen)), began: Instant::now() }
    }

    /// Did the request meet what some intercept or observer looks for?
    #[must_use]
    pub fn met_somebody(&self) -> bool {
        self.seen.as_ref().is_some_and(|seen| !seen.met.is_empty())
    }

    pub fn took(&mut self, route: Taken) {
        if let Some(seen) = &mut self.seen {
            seen.route = route;
        }
    }

    /// The head of the final answer came.
    pub fn answered(&mut self, status: u16) {
        if let Some(seen) = &mut self.seen {
            seen.status = Some(status);
        }
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        if let Some(mut seen) = self.seen.take() {
            seen.micros = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX);
            self.log.push(*seen);
        }
    }
}
