//! Medians and ratios, as a table and as JSON.

use std::{fmt, fs};

use serde_json::{Value, json};

use super::{
    contender::{DIRECT, NGINX, Sample},
    cores,
    first::FirstRequests,
    scenario::{Measure, Scenario},
};

/// All samples of a run.
#[derive(Debug)]
pub struct Report {
    seconds: u32,
    /// In the order in which they were measured first.
    scenarios: Vec<(Scenario, Vec<Row>)>,
    pub first_requests: FirstRequests,
}

/// A contender in a scenario.
#[derive(Debug)]
struct Row {
    contender: &'static str,
    /// One per round.
    samples: Vec<Sample>,
}

/// Of one value per round.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Spread {
    median: f64,
    min: f64,
    max: f64,
}

impl Spread {
    /// `None` of no values.
    fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let (low, high) = (values[(values.len() - 1) / 2], values[values.len() / 2]);
        Some(Self { median: (low + high) / 2.0, min, max })
    }

    fn json(self) -> Value {
        json!({ "median": self.median, "min": self.min, "max": self.max })
    }

    fn show(self, decimals: usize) -> String {
        let Self { median, min, max } = self;
        format!("{median:.decimals$} ({min:.decimals$}–{max:.decimals$})")
    }
}

impl Report {
    pub fn new(seconds: u32) -> Self {
        Self { seconds, scenarios: Vec::new(), first_requests: FirstRequests::default() }
    }

    pub fn add(&mut self, scenario: &Scenario, contender: &'static str, sample: Sample) {
        let known = self.scenarios.iter().position(|(known, _)| known == scenario);
        let index = known.unwrap_or_else(|| {
            self.scenarios.push((*scenario, Vec::new()));
            self.scenarios.len() - 1
        });
        let rows = &mut self.scenarios[index].1;
        match rows.iter_mut().find(|row| row.contender == contender) {
            Some(row) => row.samples.push(sample),
            None => rows.push(Row { contender, samples: vec![sample] }),
        }
    }

    pub fn json(&self) -> Value {
        let scenarios: Vec<Value> =
            self.scenarios.iter().map(|(scenario, rows)| scenario_json(scenario, rows)).collect();
        json!({ "kernel": kernel(), "cores": cores(), "seconds": self.seconds, "scenarios": scenarios,
            "first_matched_requests": self.first_requests.json() })
    }
}

fn scenario_json(scenario: &Scenario, rows: &[Row]) -> Value {
    let contenders: Vec<Value> = rows
        .iter()
        .map(|row| {
            json!({
                "name": row.contender,
                "value": Spread::of(row.values(scenario)).map(Spread::json),
                "ratio_to_direct": row.ratio(scenario, rows, DIRECT).map(Spread::json),
                "ratio_to_nginx": row.ratio(scenario, rows, NGINX).map(Spread::json),
                "cpu_microseconds_per_request": row.cpu().map(Spread::json),
                "program_nanoseconds_per_request": row.programs().map(Spread::json),
                "samples": row.samples.iter().map(sample_json).collect::<Vec<_>>(),
            })
        })
        .collect();
    json!({
        "name": scenario.name,
        "unit": scenario.unit,
        "more_is_better": scenario.measure == Measure::Throughput,
        "contenders": contenders,
    })
}

impl Row {
    /// What the scenario measures, one per round.
    fn values(&self, scenario: &Scenario) -> Vec<f64> {
        let value = |sample: &Sample| match scenario.measure {
            // An answer of the scenario in MiB/s is 1 MiB.
            Measure::Throughput => sample.load.per_second(),
            Measure::Latency => sample.load.p50.as_secs_f64() * 1e6,
        };
        self.samples.iter().map(value).collect()
    }

    /// To another contender in the same round: what slows a round down slows both.
    fn ratio(&self, scenario: &Scenario, rows: &[Self], to: &str) -> Option<Spread> {
        let reference = rows.iter().find(|row| row.contender == to)?;
        let rounds = self.values(scenario).into_iter().zip(reference.values(scenario));
        Spread::of(rounds.map(|(value, reference)| value / reference).collect())
    }

    /// Microseconds of the proxy per request.
    fn cpu(&self) -> Option<Spread> {
        Spread::of(self.samples.iter().filter_map(cpu_per_request).collect())
    }

    /// Nanoseconds of the agent's eBPF programs per request.
    fn programs(&self) -> Option<Spread> {
        let times = self.samples.iter().filter_map(|sample| Some(sample.programs?.as_nanos() as f64));
        Spread::of(times.collect())
    }
}

/// Shows nothing as a dash.
fn cell(spread: Option<Spread>, decimals: usize) -> String {
    spread.map_or_else(|| "–".to_owned(), |spread| spread.show(decimals))
}

fn cpu_per_request(sample: &Sample) -> Option<f64> {
    Some(sample.cpu?.as_secs_f64() * 1e6 / sample.load.requests as f64)
}

fn sample_json(sample: &Sample) -> Value {
    json!({
        "requests": sample.load.requests,
        "seconds": sample.load.duration.as_secs_f64(),
        "p50_microseconds": sample.load.p50.as_micros() as u64,
        "p99_microseconds": sample.load.p99.as_micros() as u64,
        "program_nanoseconds": sample.programs.map(|time| time.as_nanos() as u64),
        "cpu_seconds": sample.cpu.map(|cpu| cpu.as_secs_f64()),
    })
}

fn kernel() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned()
}

/// Medians over the rounds, with the lowest and the highest.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "Linux {}, {} cores; median (min–max) of turns of {} s",
            kernel(),
            cores(),
            self.seconds
        )?;
        for (scenario, rows) in &self.scenarios {
            let better = match scenario.measure {
                Measure::Throughput => "more is better",
                Measure::Latency => "less is better",
            };
            writeln!(f, "\n{}: {}, {better}", scenario.name, scenario.unit)?;
            write_row(
                f,
                "",
                ["", "ratio to direct", "ratio to nginx", "CPU µs/request", "eBPF ns/request"]
                    .map(str::to_owned),
            )?;
            for row in rows {
                let cells = [
                    cell(Spread::of(row.values(scenario)), 0),
                    cell(row.ratio(scenario, rows, DIRECT), 3),
                    cell(row.ratio(scenario, rows, NGINX), 2),
                    cell(row.cpu(), 2),
                    cell(row.programs(), 0),
                ];
                write_row(f, row.contender, cells)?;
            }
        }
        write!(f, "{}", self.first_requests)
    }
}

fn write_row(
    f: &mut fmt::Formatter<'_>,
    name: &str,
    [value, direct, nginx, cpu, ebpf]: [String; 5],
) -> fmt::Result {
    writeln!(f, "  {name:<11} {value:<24} {direct:<21} {nginx:<18} {cpu:<20} {ebpf}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle_of_sorted_values() {
        let odd = Spread::of(vec![9.0, 1.0, 2.0]).unwrap();
        assert_eq!(odd, Spread { median: 2.0, min: 1.0, max: 9.0 });
        assert_eq!(Spread::of(vec![4.0, 1.0, 3.0, 2.0]).unwrap().median, 2.5);
        assert_eq!(Spread::of(Vec::new()), None);
    }
}
