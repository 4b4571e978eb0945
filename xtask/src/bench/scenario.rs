//! What the client does.

use super::config::{LARGE_PATH, SMALL_PATH};

/// What a scenario is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// Answers per second: more is better.
    Throughput,
    /// The median time of an answer in microseconds: less is better.
    Latency,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scenario {
    pub name: &'static str,
    pub unit: &'static str,
    pub measure: Measure,
    pub connections: usize,
    pub path: &'static str,
    /// Asks the server to close after each answer.
    pub close: bool,
}

pub const SCENARIOS: [Scenario; 5] = [
    Scenario {
        name: "keep-alive, 32 connections",
        unit: "requests/s",
        measure: Measure::Throughput,
        connections: 32,
        path: SMALL_PATH,
        close: false,
    },
    Scenario {
        name: "keep-alive, 256 connections",
        unit: "requests/s",
        measure: Measure::Throughput,
        connections: 256,
        path: SMALL_PATH,
        close: false,
    },
    Scenario {
        name: "latency p50, 1 connection",
        unit: "µs",
        measure: Measure::Latency,
        connections: 1,
        path: SMALL_PATH,
        close: false,
    },
    Scenario {
        name: "a new connection per request, 32 at once",
        unit: "requests/s",
        measure: Measure::Throughput,
        connections: 32,
        path: SMALL_PATH,
        close: true,
    },
    Scenario {
        name: "1 MiB answers, 8 connections",
        unit: "MiB/s",
        measure: Measure::Throughput,
        connections: 8,
        path: LARGE_PATH,
        close: false,
    },
];

/// Of a preview: the gateway stands between the client and the ingress, which is the app here.
pub const PREVIEWS: [Scenario; 3] = [
    Scenario {
        name: "preview, keep-alive, 32 connections",
        unit: "requests/s",
        measure: Measure::Throughput,
        connections: 32,
        path: SMALL_PATH,
        close: false,
    },
    Scenario {
        name: "preview, latency p50, 1 connection",
        unit: "µs",
        measure: Measure::Latency,
        connections: 1,
        path: SMALL_PATH,
        close: false,
    },
    Scenario {
        name: "preview, 1 MiB answers, 8 connections",
        unit: "MiB/s",
        measure: Measure::Throughput,
        connections: 8,
        path: LARGE_PATH,
        close: false,
    },
];

/// What a browser behind a tracing gateway sends: with the request line, Host and [`COOKIE`] about 420 bytes of head.
/// The baggage is there so that matchers have something to read.
pub const HEADERS: [&str; 5] = [
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
    "Accept: application/json, text/plain, */*",
    "Accept-Language: en-US,en;q=0.5",
    "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    "baggage: userId=alice,serverNode=DF%2028,isProduction=false",
];

pub const COOKIE: &str = "session=6f1c2a9e5b7d40e3a1c8; theme=dark";
