//! Runs wrk and reads its result.

use std::{fs, net::SocketAddr, time::Duration};

use anyhow::{Context, Result, ensure};
use lab::Lab;
use serde_json::Value;

use super::{
    cores,
    scenario::{HEADERS, Scenario},
};
use crate::process;

/// Has wrk say in one line of JSON what it counted. (A script without `request` costs nothing while wrk runs.)
const SCRIPT: &str = r#"
done = function(summary, latency)
  local e = summary.errors
  io.write(string.format(
    '{"requests":%d,"duration":%d,"p50":%d,"p99":%d,' ..
    '"errors":{"connect":%d,"read":%d,"write":%d,"status":%d,"timeout":%d}}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    e.connect, e.read, e.write, e.status, e.timeout))
end
"#;

/// What wrk counted in one turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Answers, all of them good.
    pub requests: u64,
    pub duration: Duration,
    pub p50: Duration,
    pub p99: Duration,
}

impl Load {
    pub fn per_second(&self) -> f64 {
        self.requests as f64 / self.duration.as_secs_f64()
    }
}

/// Runs a scenario from the client, with this cookie; errors when a connection broke or an answer was an error.
pub fn run(lab: &Lab, scenario: &Scenario, to: SocketAddr, cookie: &str, seconds: u32) -> Result<Load> {
    let script = lab.directory().join("wrk.lua");
    fs::write(&script, SCRIPT)?;
    let threads = cores().min(scenario.connections);
    let mut wrk = lab.client.netns.command("wrk");
    wrk.args(["-t", &threads.to_string(), "-c", &scenario.connections.to_string()]);
    // Slow is not broken: a request may wait for long on a busy machine.
    wrk.args(["-d", &format!("{seconds}s"), "--timeout", "20s", "-s"]).arg(&script);
    wrk.args(HEADERS.iter().flat_map(|header| ["-H", header]));
    wrk.args(["-H", &format!("Cookie: {cookie}")]);
    if scenario.close {
        wrk.args(["-H", "Connection: close"]);
    }
    let output = process::read(wrk.arg(format!("http://{to}{}", scenario.path)))?;
    parse(&output).with_context(|| format!("wrk printed:\n{output}"))
}

fn parse(output: &str) -> Result<Load> {
    let line = output.lines().find(|line| line.starts_with('{')).context("no result")?;
    let result: Value = serde_json::from_str(line)?;
    let number = |name: &str| result[name].as_u64().with_context(|| format!("no {name}"));
    let errors = result["errors"].as_object().context("no errors")?;
    ensure!(
        errors.values().all(|count| count.as_u64() == Some(0)),
        "connections broke, or answers were not 2xx: {}",
        result["errors"]
    );
    let load = Load {
        requests: number("requests")?,
        duration: Duration::from_micros(number("duration")?),
        p50: Duration::from_micros(number("p50")?),
        p99: Duration::from_micros(number("p99")?),
    };
    ensure!(load.requests > 0, "not one answer");
    Ok(load)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(requests: u64, status: u64) -> String {
        format!(
            "Running 2s test\n{{\"requests\":{requests},\"duration\":2000000,\"p50\":90,\"p99\":400,\"errors\":\
             {{\"connect\":0,\"read\":0,\"write\":0,\"status\":{status},\"timeout\":0}}}}\n"
        )
    }

    #[test]
    fn a_result_is_answers_per_second() {
        assert_eq!(parse(&output(5000, 0)).unwrap().per_second(), 2500.0);
    }

    #[test]
    fn one_bad_answer_or_none_at_all_is_an_error() {
        assert!(parse(&output(5000, 1)).is_err());
        assert!(parse(&output(0, 0)).is_err());
        assert!(parse("unable to connect to 10.77.0.2:8080 Connection refused").is_err());
    }
}
