//! Requests are remembered: those that met an intercept, and all at a port that somebody observes.

use super::{addresses::ClientAddr, connection::PortContext, intercept::Intercept};
use crate::{
    http1::RequestView,
    protocol::Protocol,
    trace::{
        contexts::Contexts,
        log::RequestLog,
        observation::{MAX_MET, Observation},
        recording::Recording,
    },
};
use jiff::Timestamp;
use std::sync::Arc;

/// Where the requests of one port are remembered.
#[derive(Clone, Debug)]
pub struct Recorder {
    /// The target.
    pub hop: Arc<str>,
    pub port: u16,
    pub log: Arc<RequestLog>,
}

impl PortContext {
    /// Of a request that is to be remembered. `taken_by`: the intercept that gets it.
    pub(super) fn recording(
        &self,
        request: &RequestView<'_>,
        protocol: Protocol,
        client: ClientAddr,
        taken_by: Option<&Intercept>,
    ) -> Option<Recording> {
        if taken_by.is_none() && !self.routes.is_observed() {
            return None;
        }
        let (intercepts, observers) = (self.routes.snapshot(), self.routes.observers());
        let all = || intercepts.iter().chain(observers.iter());
        let met = all().filter(|one| one.matcher.matches(request)).map(|one| one.name.clone());
        let met = met.take(MAX_MET).collect();
        Some(self.recorder.begin(request, protocol, client, met, &self.routes.contexts()))
    }
}

impl Recorder {
    /// `met`: the names of those whose conditions it meets; `contexts`: those of the port.
    fn begin(
        &self,
        request: &RequestView<'_>,
        protocol: Protocol,
        client: ClientAddr,
        met: Vec<String>,
        contexts: &Contexts,
    ) -> Recording {
        let (at, now) = ((&*self.hop, self.port), Timestamp::now());
        let seen = Observation { met, ..Observation::of(request, protocol, client.0, at, contexts, now) };
        Recording::begin(&self.log, seen)
    }
}
