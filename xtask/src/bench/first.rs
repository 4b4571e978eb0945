//! The first matched request of a connection: how much longer does its answer take than one over a direct connection?
//! Its connection has to be taken over, or was from the start, and the answer comes from the developer's machine. wrk can't
//! send it, so this is a client of its own.

use std::{
    collections::BTreeMap,
    fmt,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use lab::{Agent, Intercept, Lab};
use serde_json::{Value, json};

use super::{
    config::{APP_PORT, SMALL_BODY, SMALL_PATH},
    contender::{DIRECT, INSPECT, PROXY, await_live},
};

/// As the name of a scenario.
pub const NAME: &str = "first matched request";

/// Connections of each kind in a turn.
const CONNECTIONS: usize = 50;
/// Of the developer's server, which is the same as the app.
pub const LOCAL_PORT: u16 = 3000;
const MATCHED: (&str, &str) = ("x-developer", "bench");

/// What was on the connection before the request.
const KINDS: [(&str, usize); 2] = [("fresh connection", 0), ("existing connection", 1)];
const WAYS: [&str; 3] = [DIRECT, INSPECT, PROXY];

/// The times of all requests, by kind and way.
#[derive(Debug, Default)]
pub struct FirstRequests {
    times: BTreeMap<(&'static str, &'static str), Vec<Duration>>,
}

impl FirstRequests {
    /// Takes a turn.
    pub fn measure(&mut self, lab: &Lab, agent: &Agent) -> Result<()> {
        for way in WAYS {
            let intercept = (way != DIRECT).then(|| {
                Intercept::new(lab, agent, APP_PORT, LOCAL_PORT)
                    .header(MATCHED.0, MATCHED.1)
                    .argument("--datapath")
                    .argument(way)
                    .start(lab)
            });
            await_live(lab)?;
            for _ in 0..CONNECTIONS {
                for (kind, before) in KINDS {
                    let time = first_request(lab, before)?;
                    self.times.entry((kind, way)).or_default().push(time);
                }
            }
            drop(intercept);
        }
        Ok(())
    }

    fn quantile(&self, kind: &'static str, way: &'static str, quantile: f64) -> Option<Duration> {
        let mut times = self.times.get(&(kind, way))?.clone();
        times.sort();
        times.get((times.len() as f64 * quantile) as usize).copied()
    }

    pub fn json(&self) -> Value {
        let rows = KINDS.iter().flat_map(|(kind, _)| {
            WAYS.iter().map(move |way| {
                let micros =
                    |quantile| self.quantile(kind, way, quantile).map(|time| time.as_micros() as u64);
                json!({
                    "connection": kind,
                    "name": way,
                    "requests": self.times.get(&(*kind, *way)).map_or(0, Vec::len),
                    "p50_microseconds": micros(0.5),
                    "p99_microseconds": micros(0.99),
                })
            })
        });
        Value::Array(rows.collect())
    }
}

/// From the first byte of the request to the last of its answer, on a connection with so many live ones before it.
fn first_request(lab: &Lab, before: usize) -> Result<Duration> {
    let live = format!("GET {SMALL_PATH} HTTP/1.1\r\nHost: pod.test\r\n\r\n");
    let matched =
        format!("GET {SMALL_PATH} HTTP/1.1\r\nHost: pod.test\r\n{}: {}\r\n\r\n", MATCHED.0, MATCHED.1);
    let mut connection = lab.client.connect(lab.pod.at(APP_PORT));
    for _ in 0..before {
        connection.ask(&live);
    }
    let start = Instant::now();
    let answer = connection.ask(&matched);
    let time = start.elapsed();
    ensure!(answer.status == 200 && answer.body == SMALL_BODY.as_bytes(), "{answer:?}");
    Ok(time)
}

impl fmt::Display for FirstRequests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.times.is_empty() {
            return Ok(());
        }
        for (kind, _) in KINDS {
            let requests = self.times.get(&(kind, DIRECT)).map_or(0, Vec::len);
            writeln!(f, "\n{NAME}, {kind}: ms, less is better, {requests} requests each")?;
            writeln!(f, "  {:<11} {:<8} {:<8} more than direct", "", "p50", "p99")?;
            for way in WAYS {
                let at =
                    |quantile| self.quantile(kind, way, quantile).unwrap_or_default().as_secs_f64() * 1e3;
                let direct =
                    |quantile| self.quantile(kind, DIRECT, quantile).unwrap_or_default().as_secs_f64() * 1e3;
                let (p50, p99) = (at(0.5), at(0.99));
                writeln!(
                    f,
                    "  {way:<11} {p50:<8.2} {p99:<8.2} {:+.2} / {:+.2}",
                    p50 - direct(0.5),
                    p99 - direct(0.99)
                )?;
            }
        }
        Ok(())
    }
}
