//! Requests of previews are remembered: the gateway is where their path begins.

use super::{preview::LivePreview, proxy::Connection};
use crate::{
    http1::RequestView,
    protocol::Protocol,
    trace::{
        log::RequestLog,
        observation::{Observation, Taken, method_of, path_of, trace_ids},
        recording::Recording,
        traceparent::TraceIds,
    },
};
use http::{Version, request::Parts};
use httparse::Header;
use jiff::Timestamp;
use std::{net::SocketAddr, sync::Arc};

/// The gateway, as a hop.
pub const HOP: &str = "gateway";

/// Of a request as it goes to the ingress. `made`: the ids of the trace that was begun for it; then the gateway's own span
/// is the parent of all that follow.
pub fn recording(
    log: &Arc<RequestLog>,
    port: u16,
    parts: &Parts,
    live: &LivePreview,
    connection: Connection,
    made: Option<TraceIds>,
) -> Recording {
    let headers: Vec<Header<'_>> = (parts.headers.iter())
        .map(|(name, value)| Header { name: name.as_str(), value: value.as_bytes() })
        .collect();
    let request = RequestView::new(parts.method.as_str(), parts.uri.path(), &headers);
    let ids = trace_ids(&request);
    let seen = Observation {
        hop: HOP.to_owned(),
        port,
        client: SocketAddr::new(connection.peer, 0),
        method: method_of(parts.method.as_str()),
        path: path_of(parts.uri.path()),
        protocol: if parts.version == Version::HTTP_2 { Protocol::Http2 } else { Protocol::Http1 },
        trace: ids.map(|ids| ids.trace),
        parent: ids.map(|ids| ids.parent).filter(|_| made.is_none()),
        span: made.map(|ids| ids.parent),
        headers: live.sought.headers_of(&request),
        carried: live.sought.carried_by(&request),
        sought: live.sought.sought(),
        met: vec![live.preview.name.clone()],
        route: Taken::Ingress,
        status: None,
        started: Timestamp::now(),
        micros: 0,
    };
    Recording::begin(log, seen)
}
