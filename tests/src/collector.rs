//! Who collects spans: the OpenTelemetry Collector's receiver of OTLP.

use std::net::SocketAddr;

use serde_json::Value;

use crate::{
    lab::{Host, Lab},
    log::Stream,
    process::Process,
    tools::collector,
};

/// A collector in the lab. Dropping it kills it.
#[derive(Debug)]
pub struct Collector {
    process: Process,
    address: SocketAddr,
}

/// A span that came in, as OTLP JSON has it.
#[derive(Clone, Debug)]
pub struct Span {
    pub service: String,
    pub name: String,
    pub trace: String,
    pub id: String,
    /// Empty: it has none.
    pub parent: String,
    value: Value,
}

impl Collector {
    /// Where OTLP over HTTP is expected.
    const PORT: u16 = 4318;

    #[must_use]
    pub fn start(lab: &Lab, host: &Host) -> Self {
        let address = host.at(Self::PORT);
        let mut command = host.netns.command(&collector().to_string_lossy());
        let mut process = Process::spawn("collector", command.arg(address.to_string()), lab.logs());
        process.wait_for_line("ready");
        Self { process, address }
    }

    /// As an argument of `--otlp`.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What came in so far.
    #[must_use]
    pub fn spans(&self) -> Vec<Span> {
        let lines = self.process.log().lines(Stream::Stdout);
        let exports = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        exports
            .flat_map(|export| list(&export, "resourceSpans").iter().flat_map(spans).collect::<Vec<_>>())
            .collect()
    }
}

impl Span {
    /// An attribute, as text.
    #[must_use]
    pub fn attribute(&self, key: &str) -> Option<String> {
        attribute(&self.value, key)
    }

    #[must_use]
    pub fn kind(&self) -> u64 {
        self.value["kind"].as_u64().unwrap_or_default()
    }
}

fn spans(resource: &Value) -> Vec<Span> {
    let service = attribute(&resource["resource"], "service.name").unwrap_or_default();
    let scopes = list(resource, "scopeSpans").iter();
    let spans = scopes.flat_map(|scope| list(scope, "spans"));
    let span = |value: &Value| {
        let text = |field: &str| value[field].as_str().unwrap_or_default().to_owned();
        Span {
            service: service.clone(),
            name: text("name"),
            trace: text("traceId"),
            id: text("spanId"),
            parent: text("parentSpanId"),
            value: value.clone(),
        }
    };
    spans.map(span).collect()
}

fn attribute(of: &Value, key: &str) -> Option<String> {
    let found = list(of, "attributes").iter().find(|attribute| attribute["key"] == key)?;
    let value = found["value"].as_object()?.values().next()?;
    Some(value.as_str().map_or_else(|| value.to_string(), str::to_owned))
}

fn list<'a>(of: &'a Value, field: &str) -> &'a [Value] {
    of[field].as_array().map_or(&[], Vec::as_slice)
}
