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
    /// Shared by nobody before it is remembered, which it is as it lies there.
    seen: Option<Arc<Observation>>,
    began: Instant,
}

impl Recording {
    /// `seen` begins now.
    #[must_use]
    pub fn begin(log: &Arc<RequestLog>, seen: Observation) -> Self {
        Self { log: Arc::clone(log), seen: Some(Arc::new(seen)), began: Instant::now() }
    }

    /// Did the request meet what some intercept or observer looks for?
    #[must_use]
    pub fn met_somebody(&self) -> bool {
        self.seen.as_ref().is_some_and(|seen| !seen.met.is_empty())
    }

    pub fn took(&mut self, route: Taken) {
        if let Some(seen) = self.seen() {
            seen.route = route;
        }
    }

    /// The head of the final answer came.
    pub fn answered(&mut self, status: u16) {
        if let Some(seen) = self.seen() {
            seen.status = Some(status);
        }
    }

    fn seen(&mut self) -> Option<&mut Observation> {
        Arc::get_mut(self.seen.as_mut()?)
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        let micros = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        if let Some(seen) = self.seen() {
            seen.micros = micros;
        }
        if let Some(seen) = self.seen.take() {
            self.log.push(seen);
        }
    }
}
