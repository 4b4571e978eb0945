//! What a request is as a span: of a server, with the attributes of the semantic conventions for HTTP (1.23 and later),
//! and what redirector knows besides. Pure, but for random ids.

use crate::{
    protocol::Protocol,
    trace::{
        observation::{Observation, Taken},
        traceparent::TraceIds,
    },
};
use opentelemetry::{
    Array, InstrumentationScope, KeyValue, StringValue, Value,
    trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState},
};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

/// Its parent is who sent the request, as the request said. A request that is part of no trace begins one.
pub fn span(seen: &Observation) -> SpanData {
    let made = TraceIds::random();
    let trace = TraceId::from_bytes(seen.trace.unwrap_or(made.trace).to_bytes());
    let own = SpanId::from_bytes(seen.span.unwrap_or(made.parent).to_bytes());
    let parent = seen.parent.map_or(SpanId::INVALID, |parent| SpanId::from_bytes(parent.to_bytes()));
    let (start_time, end_time) = seen.times();
    let status = match seen.status {
        Some(status) if status < 500 => Status::Unset,
        _ => Status::error(""),
    };
    SpanData {
        span_context: SpanContext::new(trace, own, TraceFlags::SAMPLED, false, TraceState::NONE),
        parent_span_id: parent,
        parent_span_is_remote: parent != SpanId::INVALID,
        span_kind: SpanKind::Server,
        name: format!("{} {}", seen.method, seen.hop).into(),
        start_time,
        end_time,
        attributes: attributes(seen),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status,
        instrumentation_scope: InstrumentationScope::builder("redirector")
            .with_version(env!("CARGO_PKG_VERSION"))
            .build(),
    }
}

fn attributes(seen: &Observation) -> Vec<KeyValue> {
    let (route, intercept) = match &seen.route {
        Taken::App => ("app", None),
        Taken::Ingress => ("ingress", None),
        Taken::Developer(name) => ("developer", Some(name)),
        Taken::Away(name) => ("away", Some(name)),
    };
    let version = match seen.protocol {
        Protocol::Http1 => "1.1",
        Protocol::Http2 => "2",
    };
    let headers: Vec<StringValue> = seen.headers.iter().cloned().map(StringValue::from).collect();
    let mut attributes = vec![
        KeyValue::new("http.request.method", seen.method.clone()),
        KeyValue::new("url.path", seen.path.clone()),
        KeyValue::new("client.address", seen.client.ip().to_canonical().to_string()),
        KeyValue::new("client.port", i64::from(seen.client.port())),
        KeyValue::new("server.port", i64::from(seen.port)),
        KeyValue::new("network.protocol.name", "http"),
        KeyValue::new("network.protocol.version", version),
        KeyValue::new("redirector.hop", seen.hop.clone()),
        KeyValue::new("redirector.route", route),
        KeyValue::new("redirector.context.headers", Value::Array(Array::String(headers))),
    ];
    attributes
        .extend(seen.status.map(|status| KeyValue::new("http.response.status_code", i64::from(status))));
    attributes.extend(intercept.map(|name| KeyValue::new("redirector.intercept", name.clone())));
    attributes
}
