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

const KEEP_ALIVE: Scenario = Scenario {
    name: "keep-alive, 32 connections",
    unit: "requests/s",
    measure: Measure::Throughput,
    connections: 32,
    path: SMALL_PATH,
    close: false,
};

const LATENCY: Scenario = Scenario {
    name: "latency p50, 1 connection",
    unit: "µs",
    measure: Measure::Latency,
    connections: 1,
    ..KEEP_ALIVE
};

const LARGE: Scenario = Scenario {
    name: "1 MiB answers, 8 connections",
    unit: "MiB/s",
    connections: 8,
    path: LARGE_PATH,
    ..KEEP_ALIVE
};

pub const SCENARIOS: [Scenario; 5] = [
    KEEP_ALIVE,
    Scenario { name: "keep-alive, 256 connections", connections: 256, ..KEEP_ALIVE },
    LATENCY,
    Scenario { name: "a new connection per request, 32 at once", close: true, ..KEEP_ALIVE },
    LARGE,
];

/// Of a preview: the gateway stands between the client and the ingress, which is the app here.
pub const PREVIEWS: [Scenario; 3] = [
    Scenario { name: "preview, keep-alive, 32 connections", ..KEEP_ALIVE },
    Scenario { name: "preview, latency p50, 1 connection", ..LATENCY },
    Scenario { name: "preview, 1 MiB answers, 8 connections", ..LARGE },
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
