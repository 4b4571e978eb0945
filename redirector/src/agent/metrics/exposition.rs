//! The agent's counts in the text exposition format of Prometheus (version 0.0.4). `redirector/METRICS.md` lists them.

use crate::{
    agent::{
        ledger::{InterceptTotals, PortTotals, TargetTotals, Totals},
        registry::TunnelState,
    },
    api::{Bytes, RequestCounts, Route},
    engine::Buckets,
    protocol::Protocol,
    target::Target,
};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text::encode_registry},
    metrics::MetricType,
    registry::Registry,
};
use std::{
    fmt,
    time::{SystemTime, UNIX_EPOCH},
};

/// All that one answer tells.
#[derive(Debug)]
pub struct Scrape {
    pub totals: Totals,
    pub tunnels: Vec<TunnelState>,
    /// When the agent started.
    pub started: SystemTime,
}

type Labels = Vec<(&'static str, String)>;

impl Scrape {
    pub fn text(self) -> Result<String, fmt::Error> {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self));
        let mut text = String::new();
        encode_registry(&mut text, &registry)?;
        Ok(text)
    }

    fn ports<T>(&self, samples: impl Fn(&PortTotals) -> Vec<(Labels, T)>) -> Vec<(Labels, T)> {
        let ports = self.totals.ports.iter();
        ports.flat_map(|port| with_labels(of_port(&port.target, port.port), samples(port))).collect()
    }

    fn requests(&self) -> Vec<(Labels, u64)> {
        self.ports(|port| {
            let samples = |(protocol, counts): (&Protocol, &RequestCounts)| {
                [(Route::Live, counts.live), (Route::Developer, counts.answered + counts.failed)]
                    .map(|(route, count)| (vec![route_label(route), protocol_label(*protocol)], count))
            };
            port.counts.requests.iter().flat_map(samples).collect()
        })
    }

    fn connections(&self) -> Vec<(Labels, u64)> {
        self.ports(|port| {
            let doors = port.counts.connections.iter();
            doors.map(|(door, count)| (vec![("door", door.as_str().to_owned())], *count)).collect()
        })
    }

    fn uncovered(&self) -> Vec<(Labels, u64)> {
        self.ports(|port| {
            let reasons = port.counts.uncovered.iter();
            reasons.map(|(reason, count)| (vec![("reason", reason.as_str().to_owned())], *count)).collect()
        })
    }

    fn bytes(&self) -> Vec<(Labels, u64)> {
        self.ports(|port| {
            let samples = |(route, bytes): (&Route, &Bytes)| {
                [("request", bytes.request), ("response", bytes.response)].map(|(direction, count)| {
                    (vec![route_label(*route), ("direction", direction.to_owned())], count)
                })
            };
            port.counts.bytes.iter().flat_map(samples).collect()
        })
    }

    fn added_latency(&self) -> Vec<(Labels, Buckets)> {
        self.ports(|port| {
            let protocols = port.added_latency.iter();
            protocols.map(|(protocol, buckets)| (vec![protocol_label(*protocol)], buckets.clone())).collect()
        })
    }

    fn intercept_requests(&self) -> Vec<(Labels, u64)> {
        let samples = |intercept: &InterceptTotals| {
            let counts = intercept.counts;
            let outcomes = [("answered", counts.answered), ("away", counts.away), ("failed", counts.failed)];
            let labels = of_intercept(&intercept.target, intercept.port, &intercept.name);
            with_labels(
                labels,
                outcomes.map(|(outcome, count)| (vec![("outcome", outcome.to_owned())], count)),
            )
        };
        self.totals.intercepts.iter().flat_map(samples).collect()
    }

    fn tunnels(&self) -> Vec<(Labels, u64)> {
        let tunnels = self.tunnels.iter();
        tunnels
            .map(|tunnel| (of_intercept(&tunnel.target, tunnel.port, &tunnel.name), u64::from(tunnel.up)))
            .collect()
    }

    fn packets(&self) -> Vec<(Labels, u64)> {
        let samples = |TargetTotals { target, packets }: &TargetTotals| {
            let outcomes =
                packets.iter().map(|(name, count)| (vec![("outcome", (*name).to_owned())], *count));
            with_labels(vec![("target", target.to_string())], outcomes)
        };
        self.totals.targets.iter().flat_map(samples).collect()
    }
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let to = &mut encoder;
        counter(
            to,
            "redirector_requests_total",
            "Requests by the route they took; on the developer's route they count when answered or failed.",
            self.requests(),
        )?;
        counter(
            to,
            "redirector_intercept_requests_total",
            "Requests that matched an intercept, by what became of them.",
            self.intercept_requests(),
        )?;
        gauge(
            to,
            "redirector_intercept_tunnel_up",
            "Whether the tunnel to the developer is there (1) or away (0).",
            self.tunnels(),
        )?;
        counter(
            to,
            "redirector_connections_total",
            "Client connections taken, by the way they came.",
            self.connections(),
        )?;
        gauge(
            to,
            "redirector_open_connections",
            "Client connections that are open now.",
            self.ports(|port| vec![(Labels::new(), port.counts.open)]),
        )?;
        counter(
            to,
            "redirector_uncovered_connections_total",
            "Connections that were passed on without their requests being seen, by reason.",
            self.uncovered(),
        )?;
        counter(
            to,
            "redirector_traffic_bytes_total",
            "Bytes sent to apps and developers (request) and received from them (response).",
            self.bytes(),
        )?;
        histogram(
            to,
            "redirector_added_latency_seconds",
            "The time that the agent adds to a request of the live route.",
            self.added_latency(),
        )?;
        counter(
            to,
            "redirector_packets_total",
            "Packets that could have opened a connection to an intercepted port, by what the eBPF program did.",
            self.packets(),
        )?;
        gauge(
            to,
            "redirector_build_info",
            "Always 1; the version is a label.",
            vec![(vec![("version", env!("CARGO_PKG_VERSION").to_owned())], 1)],
        )?;
        let started = self.started.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        encoder
            .encode_descriptor(
                "process_start_time_seconds",
                "When the agent started, in seconds since the epoch.",
                None,
                MetricType::Gauge,
            )?
            .encode_gauge(&started)
    }
}

/// `name` ends in `_total`.
fn counter(
    to: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    samples: Vec<(Labels, u64)>,
) -> fmt::Result {
    let encoder = to.encode_descriptor(name, help, None, MetricType::Counter)?;
    // `encode_counter` would append `_total` to the samples only, as OpenMetrics wants it.
    write(encoder, samples, |encoder, value| encoder.encode_gauge(&value))
}

fn gauge(to: &mut DescriptorEncoder<'_>, name: &str, help: &str, samples: Vec<(Labels, u64)>) -> fmt::Result {
    let encoder = to.encode_descriptor(name, help, None, MetricType::Gauge)?;
    write(encoder, samples, |encoder, value| encoder.encode_gauge(&value))
}

fn histogram(
    to: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    samples: Vec<(Labels, Buckets)>,
) -> fmt::Result {
    let encoder = to.encode_descriptor(name, help, None, MetricType::Histogram)?;
    write(encoder, samples, |encoder, buckets| {
        encoder.encode_histogram::<NoLabelSet>(buckets.sum, buckets.count, &buckets.counts, None)
    })
}

fn write<T>(
    mut encoder: MetricEncoder<'_>,
    samples: Vec<(Labels, T)>,
    value: impl Fn(&mut MetricEncoder<'_>, T) -> fmt::Result,
) -> fmt::Result {
    for (labels, sample) in samples {
        value(&mut encoder.encode_family(&labels)?, sample)?;
    }
    Ok(())
}

fn of_port(target: &Target, port: u16) -> Labels {
    vec![("target", target.to_string()), ("port", port.to_string())]
}

fn of_intercept(target: &Target, port: u16, name: &str) -> Labels {
    let mut labels = of_port(target, port);
    labels.push(("intercept", name.to_owned()));
    labels
}

fn route_label(route: Route) -> (&'static str, String) {
    ("route", route.as_str().to_owned())
}

fn protocol_label(protocol: Protocol) -> (&'static str, String) {
    ("protocol", protocol.as_str().to_owned())
}

/// The same samples, with these labels before their own.
fn with_labels<T>(labels: Labels, samples: impl IntoIterator<Item = (Labels, T)>) -> Vec<(Labels, T)> {
    samples.into_iter().map(|(own, value)| ([labels.clone(), own].concat(), value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{agent::ledger::Ledger, api::Uncovered};
    use std::{
        collections::{BTreeMap, BTreeSet},
        time::Duration,
    };

    const TABLE: &str = include_str!("../../../METRICS.md");

    fn example() -> String {
        let target: Target = "netns:shop".parse().unwrap();
        let ledger = Ledger::default();
        ledger.target(&target).add_packets(redirector_common::Counter::Assigned, 3);
        let port = ledger.port(&target, 8080);
        port.requests.bump(Protocol::Http1);
        port.live.bump(Protocol::Http1);
        port.uncovered.bump(Uncovered::Tls);
        port.live_bytes.sent(100);
        port.added_latency.observe(Protocol::Http1, Duration::from_micros(20));
        ledger.intercept(&target, 8080, "alice").answered(Protocol::Http2);
        let tunnels = vec![TunnelState { target, port: 8080, name: "alice".to_owned(), up: true }];
        Scrape { totals: ledger.read(), tunnels, started: UNIX_EPOCH + Duration::from_millis(1500) }
            .text()
            .unwrap()
    }

    /// Name → (type, labels), from an answer.
    fn metrics(text: &str) -> BTreeMap<String, (String, BTreeSet<String>)> {
        let mut metrics = BTreeMap::new();
        let mut current = String::new();
        for line in text.lines() {
            if let Some(declared) = line.strip_prefix("# TYPE ") {
                let (name, kind) = declared.split_once(' ').unwrap();
                current = name.to_owned();
                metrics.insert(current.clone(), (kind.to_owned(), BTreeSet::new()));
            } else if !line.starts_with('#') {
                assert!(line.starts_with(&current), "{line} stands below {current}");
                let labels = line.split_once('{').map_or("", |(_, rest)| rest.split_once('}').unwrap().0);
                let names = labels.split(',').filter_map(|label| label.split_once('=')).map(|(name, _)| name);
                let known = &mut metrics.get_mut(&current).unwrap().1;
                known.extend(names.filter(|name| *name != "le").map(str::to_owned));
            }
        }
        metrics
    }

    /// The same from the rows of the table: `| name | type | labels | meaning |`.
    fn documented() -> BTreeMap<String, (String, BTreeSet<String>)> {
        let names = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
        let rows = TABLE.lines().filter(|line| line.starts_with("| `"));
        rows.map(|row| {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            let labels = names(cells[3]).into_iter().collect();
            (names(cells[1])[0].clone(), (cells[2].to_owned(), labels))
        })
        .collect()
    }

    #[test]
    fn the_table_names_the_metrics_that_there_are() {
        assert_eq!(metrics(&example()), documented());
        for reason in Uncovered::ALL {
            assert!(TABLE.contains(&format!("`{}`", reason.as_str())), "{reason:?} is not in the table");
        }
        for (_, outcome) in redirector_common::Counter::ALL {
            assert!(TABLE.contains(&format!("`{outcome}`")), "{outcome} is not below the table");
        }
    }

    #[test]
    fn samples_have_the_name_of_their_type_line_and_whole_label_sets() {
        let text = example();
        for line in [
            "# TYPE redirector_requests_total counter",
            r#"redirector_requests_total{target="netns:shop",port="8080",route="live",protocol="http/1.1"} 1"#,
            r#"redirector_requests_total{target="netns:shop",port="8080",route="developer",protocol="h2"} 1"#,
            r#"redirector_intercept_requests_total{target="netns:shop",port="8080",intercept="alice",outcome="answered"} 1"#,
            r#"redirector_intercept_tunnel_up{target="netns:shop",port="8080",intercept="alice"} 1"#,
            r#"redirector_uncovered_connections_total{target="netns:shop",port="8080",reason="tls"} 1"#,
            r#"redirector_traffic_bytes_total{target="netns:shop",port="8080",route="live",direction="request"} 100"#,
            r#"redirector_packets_total{target="netns:shop",outcome="assigned"} 3"#,
            r#"redirector_added_latency_seconds_count{target="netns:shop",port="8080",protocol="http/1.1"} 1"#,
            "process_start_time_seconds 1.5",
        ] {
            assert!(text.lines().any(|had| had == line), "{line} is not in\n{text}");
        }
    }
}
