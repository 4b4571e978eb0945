//! What Prometheus is told.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Write as _,
    process::Stdio,
};

use lab::{AgentOptions, Curl, Host, Lab, Process, eventually, eventually_some};
use serde_json::Value;

use crate::scene::{PORT, Route, Scene, for_alice, in_lab, served_by, who_answers};

/// Where the agent serves metrics.
const METRICS: u16 = 9465;

/// The table that users read.
const TABLE: &str = include_str!("../../../redirector/METRICS.md");

#[test]
fn a_known_series_of_requests_gives_known_counts() {
    with_metrics(|scene| {
        let lab = scene.lab;
        let mut connection = scene.connect();
        let (mut sent, mut received) = (0, 0);
        for _ in 0..5 {
            let request = Route::Live.request("POST", "/x", "Content-Length: 3\r\n", "abc");
            sent += request.len();
            received += connection.ask(request).raw.len();
        }
        for _ in 0..3 {
            assert_eq!(served_by(&connection.ask(Route::Alice.get("/"))), "alice");
        }
        assert_counts(
            lab,
            &[
                (r#"redirector_requests_total{route="live",protocol="http/1.1"}"#, 5),
                (r#"redirector_requests_total{route="developer",protocol="http/1.1"}"#, 3),
                (r#"redirector_requests_total{protocol="h2"}"#, 0),
                (r#"redirector_intercept_requests_total{intercept="alice",outcome="answered"}"#, 3),
                (r#"redirector_intercept_requests_total{intercept="alice",outcome="away"}"#, 0),
                (r#"redirector_intercept_requests_total{intercept="alice",outcome="failed"}"#, 0),
                (r#"redirector_intercept_tunnel_up{intercept="alice"}"#, 1),
                (r#"redirector_connections_total{door="assign"}"#, 1),
                ("redirector_open_connections", 1),
                ("redirector_uncovered_connections_total", 0),
                (r#"redirector_traffic_bytes_total{route="live",direction="request"}"#, sent as u64),
                (r#"redirector_traffic_bytes_total{route="live",direction="response"}"#, received as u64),
                (r#"redirector_added_latency_seconds_count{protocol="http/1.1"}"#, 5),
                (r#"redirector_added_latency_seconds_bucket{protocol="http/1.1",le="+Inf"}"#, 5),
            ],
        );
        let text = scrape(lab);
        assert!(value(&text, r#"redirector_packets_total{outcome="assigned"}"#) > 0.0, "{text}");
        assert!(value(&text, "redirector_added_latency_seconds_sum") > 0.0, "{text}");
        assert!(value(&text, r#"redirector_traffic_bytes_total{route="developer"}"#) > 0.0, "{text}");
        let target = format!(r#"target="{}",port="{PORT}""#, lab.pod.netns.target());
        assert!(text.contains(&format!("redirector_open_connections{{{target}}} 1")), "{text}");

        drop(connection);
        assert_counts(lab, &[("redirector_open_connections", 0), ("redirector_connections_total", 1)]);
    });
}

#[test]
fn each_of_several_pipelined_requests_has_its_added_latency() {
    with_metrics(|scene| {
        let mut connection = scene.connect();
        let requests =
            [Route::Live.get("/1"), Route::Live.get("/2"), Route::Alice.get("/"), Route::Live.get("/3")];
        connection.send(requests.concat());
        for route in [Route::Live, Route::Live, Route::Alice, Route::Live] {
            assert_eq!(served_by(&connection.response("GET")), route.server());
        }
        assert_counts(scene.lab, &[("redirector_added_latency_seconds_count", 3)]);
    });
}

#[test]
fn bytes_of_the_developers_route_are_those_of_requests_and_answers() {
    with_metrics(|scene| {
        let mut connection = scene.connect();
        let request = Route::Alice.request("POST", "/x", "Content-Length: 100000\r\n", &"x".repeat(100_000));
        let answer = connection.ask(&request);
        assert_eq!(served_by(&answer), "alice");
        assert_counts(
            scene.lab,
            &[
                (
                    r#"redirector_traffic_bytes_total{route="developer",direction="request"}"#,
                    request.len() as u64,
                ),
                (
                    r#"redirector_traffic_bytes_total{route="developer",direction="response"}"#,
                    answer.raw.len() as u64,
                ),
                (r#"redirector_traffic_bytes_total{route="live"}"#, 0),
            ],
        );
    });
}

#[test]
fn requests_that_fail_or_find_the_developer_away_are_counted_as_such() {
    in_lab(|lab| {
        let options = AgentOptions::metrics(METRICS);
        let Scene { alice, agent: _agent, alice_app, app: _app, .. } = Scene::with_agent(lab, &options);
        drop(alice_app);
        let mut connection = lab.client.connect(lab.pod.at(PORT));
        for _ in 0..2 {
            assert_eq!(connection.ask(Route::Alice.get("/")).status, 502);
        }
        alice.kill();
        assert_counts(lab, &[(r#"redirector_intercept_tunnel_up{intercept="alice"}"#, 0)]);
        for _ in 0..3 {
            assert_eq!(served_by(&connection.ask(Route::Alice.get("/"))), "app");
        }
        assert_counts(
            lab,
            &[
                (r#"redirector_intercept_requests_total{intercept="alice",outcome="answered"}"#, 0),
                (r#"redirector_intercept_requests_total{intercept="alice",outcome="failed"}"#, 2),
                (r#"redirector_intercept_requests_total{intercept="alice",outcome="away"}"#, 3),
                (r#"redirector_requests_total{route="developer"}"#, 2),
                (r#"redirector_requests_total{route="live"}"#, 3),
            ],
        );
    });
}

#[test]
fn counters_go_on_when_an_intercept_ends_and_comes_back() {
    in_lab(|lab| {
        let options = AgentOptions::metrics(METRICS);
        let Scene { alice, agent, alice_app: _alice_app, app: _app, .. } = Scene::with_agent(lab, &options);
        for route in Route::BOTH {
            assert_eq!(who_answers(lab, route.header()), route.server());
        }
        let counted = [
            (r#"redirector_requests_total{route="live"}"#, 1),
            (r#"redirector_intercept_requests_total{intercept="alice",outcome="answered"}"#, 1),
            (r#"redirector_connections_total"#, 2),
        ];
        assert_counts(lab, &counted);
        let packets = value(&scrape(lab), "redirector_packets_total");

        // What nobody has looked at yet counts, too.
        assert_eq!(who_answers(lab, Route::Live.header()), "app");
        // The last intercept of the target: everything is detached, and the eBPF program's maps are gone.
        assert!(alice.interrupt().success());
        eventually("nothing is attached", || lab.attached().is_empty());
        assert_counts(lab, &[(r#"redirector_requests_total{route="live"}"#, 2), counted[1]]);
        let text = scrape(lab);
        assert!(value(&text, "redirector_packets_total") > packets, "{text}");
        let packets = value(&text, "redirector_packets_total");
        assert!(!text.contains("redirector_intercept_tunnel_up{"), "{text}");

        let _back = for_alice(lab, &agent).start(lab);
        for route in Route::BOTH {
            assert_eq!(who_answers(lab, route.header()), route.server());
        }
        assert_counts(
            lab,
            &[
                (r#"redirector_requests_total{route="live"}"#, 3),
                (r#"redirector_intercept_requests_total{intercept="alice",outcome="answered"}"#, 2),
                (r#"redirector_connections_total"#, 5),
            ],
        );
        assert!(value(&scrape(lab), "redirector_packets_total") > packets);
        // What her own intercept has done is not what its namesake did.
        assert_eq!(agent.list()[0]["counts"]["answered"], 1);
    });
}

#[test]
fn no_port_is_open_for_metrics_unless_asked_for() {
    in_lab(|lab| {
        let scene = Scene::new(lab);
        assert_eq!(listening_ports(&lab.node), BTreeSet::from([7465]));
        drop(scene);
        let _scene = Scene::with_agent(lab, &AgentOptions::metrics(METRICS));
        assert_eq!(listening_ports(&lab.node), BTreeSet::from([7465, METRICS]));
    });
}

#[test]
fn the_port_for_metrics_gives_nothing_else() {
    with_metrics(|scene| {
        let lab = scene.lab;
        let address = lab.node.at(METRICS);
        for path in ["/", "/metrics/", "/v1/status", "/v1/intercepts", "/debug/pprof/"] {
            assert_eq!(Curl::on(&lab.client).get(address, path, &[]).answer().status, 404, "{path}");
        }
        for method in ["POST", "DELETE", "PUT"] {
            let url = format!("http://{address}/metrics");
            let answer = Curl::on(&lab.client).request(&url, &["--request", method], &[]).answer();
            assert_eq!(answer.status, 404, "{method}");
        }
        let head = lab.client.connect(address).ask("GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(head.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    });
}

#[test]
fn idle_connections_to_the_port_for_metrics_take_no_descriptors_from_live_traffic() {
    with_metrics(|scene| {
        let descriptors = || fs::read_dir(format!("/proc/{}/fd", scene.agent.pid())).unwrap().count();
        let before = descriptors();
        let _idle: Vec<_> = (0..120).map(|_| scene.lab.client.connect(scene.lab.node.at(METRICS))).collect();
        scene.assert_routing();
        assert!(descriptors() < before + 60, "{before} before");
    });
}

#[test]
fn promtool_has_nothing_to_say_against_the_metrics() {
    with_metrics(|scene| {
        scene.assert_routing();
        let mut promtool = scene.lab.node.netns.command("promtool");
        promtool
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = promtool.spawn().expect("promtool, from Debian's prometheus");
        child.stdin.take().expect("its input").write_all(scrape(scene.lab).as_bytes()).expect("to write");
        let output = child.wait_with_output().expect("promtool's verdict");
        let said = [output.stdout, output.stderr].concat();
        assert!(output.status.success() && said.is_empty(), "{}", String::from_utf8_lossy(&said));
    });
}

#[test]
fn a_real_prometheus_reads_the_metrics() {
    with_metrics(|scene| {
        let lab = scene.lab;
        assert_eq!(who_answers(lab, Route::Live.header()), "app");
        let directory = lab.directory().join("prometheus");
        fs::create_dir(&directory).expect("a directory");
        let config = directory.join("prometheus.yml");
        let address = lab.node.at(METRICS);
        let scrape = format!("[{{ job_name: redirector, static_configs: [{{ targets: ['{address}'] }}] }}]");
        fs::write(&config, format!("global: {{ scrape_interval: 1s }}\nscrape_configs: {scrape}\n"))
            .expect("prometheus.yml");
        let mut command = lab.client.netns.command("prometheus");
        command.arg(format!("--config.file={}", config.display()));
        command.arg(format!("--storage.tsdb.path={}", directory.join("data").display()));
        command.arg(format!("--web.listen-address={}", lab.client.at(9090)));
        let _prometheus = Process::spawn("prometheus", &mut command, lab.logs());

        let answer = eventually_some("Prometheus knows the metrics", || {
            let query = "redirector_requests_total%7Broute%3D%22live%22%2Cprotocol%3D%22http%2F1.1%22%7D";
            let url = format!("http://{}/api/v1/query?query={query}", lab.client.at(9090));
            let output = Curl::on(&lab.client).request(&url, &[], &[]).output();
            let body = output.stdout.split('\u{1}').next()?.to_owned();
            let answer: Value = serde_json::from_str(&body).ok()?;
            answer["data"]["result"].get(0).cloned()
        });
        assert_eq!(answer["value"][1], "1", "{answer}");
        assert_eq!(answer["metric"]["target"], lab.pod.netns.target(), "{answer}");
    });
}

#[test]
fn the_table_names_the_metrics_that_there_are() {
    with_metrics(|scene| {
        let text = scrape(scene.lab);
        let served: BTreeSet<&str> =
            text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
        let rows = TABLE.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
        assert_eq!(served, rows.collect());
    });
}

/// A scene whose agent serves metrics.
fn with_metrics(body: impl FnOnce(&Scene<'_>)) {
    in_lab(|lab| body(&Scene::with_agent(lab, &AgentOptions::metrics(METRICS))));
}

#[track_caller]
fn scrape(lab: &Lab) -> String {
    let answer = Curl::on(&lab.client).get(lab.node.at(METRICS), "/metrics", &[]).answer();
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.body
}

/// Waits until these series have these values: some counts come right after the answer that they count.
#[track_caller]
fn assert_counts(lab: &Lab, expected: &[(&str, u64)]) {
    let expected: BTreeMap<&str, f64> = expected.iter().map(|(series, n)| (*series, *n as f64)).collect();
    eventually(&format!("the metrics are {expected:#?}"), || {
        let text = scrape(lab);
        let now: BTreeMap<&str, f64> =
            expected.keys().map(|series| (*series, value(&text, series))).collect();
        if now != expected {
            eprintln!("not yet: {now:#?}");
        }
        now == expected
    });
}

/// The sum of the series with this name and (at least) these labels: `name{label="value",…}`.
fn value(text: &str, series: &str) -> f64 {
    let parts = |series: &str| {
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let labels = labels.trim_end_matches('}').split(',').filter(|label| !label.is_empty());
        (name.to_owned(), labels.map(str::to_owned).collect::<BTreeSet<String>>())
    };
    let (name, labels) = parts(series);
    let samples = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.rsplit_once(' '));
    samples
        .filter(|(series, _)| {
            let (its_name, its_labels) = parts(series);
            its_name == name && labels.is_subset(&its_labels)
        })
        .map(|(_, value)| value.parse::<f64>().expect("a number"))
        .sum()
}

/// The ports on which anything listens there.
fn listening_ports(host: &Host) -> BTreeSet<u16> {
    let output = host.netns.command("ss").args(["-Hltn"]).output().expect("ss");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines()
        .map(|line| line.split_whitespace().nth(3).and_then(|local| local.rsplit(':').next()?.parse().ok()))
        .map(|port| port.expect("a port"))
        .collect()
}
