//! Requests are remembered: those that met an intercept, and all at a port that somebody observes.

use super::{addresses::ClientAddr, connection::PortContext, intercept::Intercept};
use crate::{
    context::Matcher,
    http1::RequestView,
    protocol::Protocol,
    trace::{
        log::RequestLog,
        mark::Marks,
        observation::{Observation, Taken, context_headers, path_of, trace_ids},
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
        let met = all().filter(|one| one.matcher.matches(request)).map(|one| one.name.clone()).collect();
        let matchers: Vec<&Matcher> = all().map(|one| &one.matcher).collect();
        Some(self.recorder.begin(request, protocol, client, met, &matchers))
    }
}

impl Recorder {
    /// `met`: the names of those whose conditions it meets; `matchers`: all conditions of the port.
    fn begin(
        &self,
        request: &RequestView<'_>,
        protocol: Protocol,
        client: ClientAddr,
        met: Vec<String>,
        matchers: &[&Matcher],
    ) -> Recording {
        let ids = trace_ids(request);
        let marks = Marks::read(request, matchers.iter().copied());
        let seen = Observation {
            hop: self.hop.to_string(),
            port: self.port,
            client: client.0,
            method: request.method.to_owned(),
            path: path_of(request.target),
            protocol,
            trace: ids.map(|ids| ids.trace),
            parent: ids.map(|ids| ids.parent),
            span: None,
            headers: context_headers(request, matchers.iter().copied()),
            carried: marks.carried,
            sought: marks.sought,
            met,
            route: Taken::App,
            status: None,
            started: Timestamp::now(),
            micros: 0,
        };
        Recording::begin(&self.log, seen)
    }
}
