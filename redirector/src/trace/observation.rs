//! One request, as one hop saw it.

use super::{
    contexts::{Contexts, Sought},
    mark::Mark,
    traceparent::{SpanId, TraceId, TraceIds},
};
use crate::{context::path_of_target, gateway::preview::PreviewHash, http1::RequestView, protocol::Protocol};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeSet,
    net::SocketAddr,
    time::{Duration, SystemTime},
};

/// Longest path that is remembered, in bytes.
const MAX_PATH: usize = 256;

/// Longest method that is remembered, in bytes.
const MAX_METHOD: usize = 32;

/// Most names of those who look for a request that are remembered of it.
pub const MAX_MET: usize = 8;

/// What is remembered of a request. Of header values only hashes, of the target no query. Whatever was sent, it is small.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Observation {
    /// The target where it was seen, or `gateway`.
    pub hop: String,
    /// That it was sent to.
    pub port: u16,
    pub client: SocketAddr,
    pub method: String,
    /// Without the query.
    pub path: String,
    pub protocol: Protocol,
    pub trace: Option<TraceId>,
    /// Who says to have sent it, within the trace.
    pub parent: Option<SpanId>,
    /// The hop's own span, where it is one that later hops can know: the gateway's that began the trace.
    #[serde(default)]
    pub span: Option<SpanId>,
    /// Headers by which context travels that were there, in lower case.
    pub headers: BTreeSet<String>,
    /// The contexts that were there.
    pub carried: BTreeSet<Mark>,
    /// Those that were looked for, besides keys.
    pub sought: Sought,
    /// The names of the intercepts and observers whose conditions it met, [`MAX_MET`] at most; of the preview, for a gateway.
    pub met: Vec<String>,
    /// The preview that it was for, for a gateway. Names can be used again, by others.
    #[serde(skip)]
    pub preview: Option<PreviewHash>,
    pub route: Taken,
    /// Of the final answer, if its head came.
    pub status: Option<u16>,
    pub started: Timestamp,
    /// From its head to the end of the answer, in microseconds.
    pub micros: u64,
}

/// The route that a request took.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Taken {
    App,
    /// To the developer of this intercept.
    Developer(String),
    /// To the app, because the developer of this intercept was away.
    Away(String),
    /// To the ingress.
    Ingress,
}

impl Observation {
    /// Of a request whose head has come to `hop` (target, or `gateway`, and port): it goes to the app for all that is known, and
    /// nobody in particular looks for it.
    #[must_use]
    pub fn of(
        request: &RequestView<'_>,
        protocol: Protocol,
        client: SocketAddr,
        (hop, port): (&str, u16),
        contexts: &Contexts,
        started: Timestamp,
    ) -> Self {
        let ids = trace_ids(request);
        Self {
            hop: hop.to_owned(),
            port,
            client,
            method: method_of(request.method),
            path: path_of(request.target),
            protocol,
            trace: ids.map(|ids| ids.trace),
            parent: ids.map(|ids| ids.parent),
            span: None,
            headers: contexts.headers_of(request),
            carried: contexts.carried_by(request),
            sought: contexts.sought(),
            met: Vec::new(),
            preview: None,
            route: Taken::App,
            status: None,
            started,
            micros: 0,
        }
    }

    /// Did it carry a context that was looked for?
    #[must_use]
    pub fn carries(&self) -> bool {
        !self.carried.is_empty()
    }

    /// Was it a developer's: by its context, or by what else an intercept takes?
    #[must_use]
    pub fn is_developers(&self) -> bool {
        self.carries() || matches!(self.route, Taken::Developer(_) | Taken::Away(_))
    }

    #[must_use]
    pub fn ended(&self) -> Timestamp {
        let span = Duration::from_micros(self.micros);
        self.started.checked_add(span).unwrap_or(self.started)
    }

    /// Start and end, for spans.
    #[must_use]
    pub fn times(&self) -> (SystemTime, SystemTime) {
        (self.started.into(), self.ended().into())
    }
}

/// The path of a request target, without its query and without the authority, in which a user's name and password may be;
/// cut to what is remembered.
#[must_use]
pub(super) fn path_of(target: &str) -> String {
    cut(path_of_target(target), MAX_PATH)
}

/// Cut to what is remembered.
#[must_use]
pub(super) fn method_of(method: &str) -> String {
    cut(method, MAX_METHOD)
}

pub(super) fn cut(text: &str, most: usize) -> String {
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

/// The ids in `traceparent`, if there is exactly one line and it is valid.
#[must_use]
pub(super) fn trace_ids(request: &RequestView<'_>) -> Option<TraceIds> {
    let mut lines = request.header_lines("traceparent");
    match (lines.next(), lines.next()) {
        (Some(line), None) => TraceIds::parse(line),
        _ => None,
    }
}
