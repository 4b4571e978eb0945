//! Where a request went: three hops, none of which knows of redirector, seen by observers; one of them drops the context.

use lab::{
    Agent, AgentOptions, App, Collector, Curl, Developer, Forwards, Gateway, GatewayOptions, Host, Intercept,
    Lab, Nginx, Observer, Shop, Span, datapaths, eventually, eventually_some, http2_client,
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::{
    gateway::visit,
    scene::{LOCAL, PORT, in_lab, text},
};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

/// An edge, the frontend and the backend of a shop, all observed; and alice's intercept of the backend, by a key.
/// (Dropped in this order.)
struct Path {
    observers: Vec<Observer>,
    _alice: Developer,
    agent: Agent,
    _alice_backend: App,
    _edge: Nginx,
    shop: Shop,
    edge: Host,
    key: String,
}

impl Path {
    fn new(lab: &mut Lab, forwards: Forwards, options: &AgentOptions) -> Self {
        let shop = Shop::open(lab, forwards);
        let edge = lab.add_machine("edge");
        let nginx = Nginx::ingress(lab, &edge, PORT, shop.frontend_host.at(Shop::PORT));
        let alice_backend = Shop::developers_backend(lab, "alice");
        let agent = Agent::start_with(lab, options);
        let alice = Intercept::new(lab, &agent, Shop::PORT, Shop::LOCAL).name("alice").start(lab);
        let key = text(&agent.list()[0]["matcher"]["conditions"][0], "key");
        let observers = [&edge, &shop.frontend_host, &lab.pod]
            .map(|host| Observer::start(lab, &agent, host, PORT, &[]))
            .into_iter()
            .collect();
        Self { observers, _alice: alice, agent, _alice_backend: alice_backend, _edge: nginx, shop, edge, key }
    }

    /// Asks the edge with alice's context in all of its places; gives who answered, and what that was sent.
    fn ask(&self, lab: &Lab) -> Value {
        let key = &self.key;
        let headers = [
            format!("traceparent: 00-{TRACE}-{PARENT}-01"),
            format!("tracestate: redirector={key},vendor=1"),
            format!("baggage: redirector={key},user=s3cret"),
            format!("x-redirector-intercept: {key}"),
        ];
        let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
        let answer = Curl::on(&lab.client).get(self.edge.at(PORT), "/api/basket", &headers).answer();
        serde_json::from_str(&answer.body).expect("a report")
    }

    /// What `redirector trace` says once it has seen three hops.
    #[track_caller]
    fn trace(&self, what: &str) -> String {
        eventually_some("the path has three hops", || {
            let output = self.agent.run(&["trace", what]);
            (output.stdout.matches(" port 8080: GET ").count() == 3).then_some(output.stdout)
        })
    }

    fn names(&self, lab: &Lab) -> [String; 3] {
        [&self.edge, &self.shop.frontend_host, &lab.pod].map(|host| host.netns.target())
    }
}

#[test]
fn trace_shows_the_path_of_a_request_by_key_by_trace_id_and_by_name() {
    in_lab(|lab| {
        let path = Path::new(lab, Forwards::W3c, &AgentOptions::default());
        let report = path.ask(lab);
        assert_eq!(text(&report, "served_by"), "alice");
        let [edge, frontend, backend] = path.names(lab);
        for what in [&*path.key, TRACE, "alice"] {
            let shown = path.trace(what);
            let lines: Vec<&str> = shown.lines().collect();
            assert!(lines[0].starts_with(&format!("trace {TRACE}, ")), "{shown}");
            assert_eq!(lines[1], format!("{edge} port 8080: GET /api/basket from {}", lab.client.v4));
            assert!(shown.contains(&format!("└─ {frontend} port 8080: GET /api/basket\n")), "{shown}");
            assert!(shown.contains(&format!("   └─ {backend} port 8080: GET /api/basket\n")), "{shown}");
            assert!(shown.contains("with baggage, traceparent, tracestate\n"), "{shown}");
            assert!(shown.contains("200 by the developer of \"alice\", "), "{shown}");
            assert!(
                shown.contains(&format!("! {frontend} did not pass on x-redirector-intercept\n")),
                "{shown}"
            );
            assert!(
                !shown.contains('✗') && !shown.contains("s3cret") && !shown.contains(&path.key),
                "{shown}"
            );
        }
        let tree = &path.agent.json(&["trace", TRACE])[0];
        let last = &tree["children"][0]["children"][0];
        assert_eq!((&last["route"]["developer"], &last["status"]), (&json!("alice"), &json!(200)), "{tree}");
    });
}

#[test]
fn trace_names_the_hop_that_dropped_the_context_and_kept_the_trace() {
    in_lab(|lab| {
        let path = Path::new(lab, Forwards::TraceIds, &AgentOptions::default());
        assert_eq!(text(&path.ask(lab), "served_by"), "live");
        let shown = path.trace(&path.key);
        let [edge, frontend, _] = path.names(lab);
        let verdict = "dropped the context: it did not pass on baggage, tracestate, x-redirector-intercept\n";
        assert!(shown.contains(&format!("✗ {frontend} {verdict}")), "{shown}");
        assert!(shown.contains("no context (only traceparent)\n"), "{shown}");
        assert!(!shown.contains(&format!("{edge} dropped")) && shown.matches('✗').count() == 1, "{shown}");
    });
}

#[test]
fn trace_names_the_hop_that_dropped_everything() {
    in_lab(|lab| {
        let path = Path::new(lab, Forwards::Nothing, &AgentOptions::default());
        assert_eq!(text(&path.ask(lab), "served_by"), "live");
        let shown = path.trace(&path.key);
        let [_, frontend, _] = path.names(lab);
        assert!(shown.contains(&format!("✗ {frontend} probably dropped the context: ")), "{shown}");
        assert_eq!(shown.matches('✗').count(), 1, "{shown}");
    });
}

#[test]
fn what_several_agents_have_seen_is_one_path() {
    in_lab(|lab| {
        let shop = Shop::open(lab, Forwards::TraceIds);
        let edge = lab.add_machine("edge");
        let _nginx = Nginx::ingress(lab, &edge, PORT, shop.frontend_host.at(Shop::PORT));
        let agent = Agent::start(lab);
        let options = AgentOptions { state: "second".to_owned(), port: 7470, ..AgentOptions::default() };
        let second = Agent::start_with(lab, &options);
        let _observers = [
            Observer::start(lab, &agent, &edge, PORT, &["--header", "x-dev=alice"]),
            Observer::start(lab, &second, &shop.frontend_host, PORT, &["--header", "x-dev=alice"]),
            Observer::start(lab, &second, &lab.pod, PORT, &["--header", "x-dev=alice"]),
        ];
        let headers = [format!("traceparent: 00-{TRACE}-{PARENT}-01"), "x-dev: alice".to_owned()];
        let headers = headers.each_ref().map(String::as_str);
        assert_eq!(Curl::on(&lab.client).get(edge.at(PORT), "/api/basket", &headers).answer().status, 200);
        let frontend = shop.frontend_host.netns.target();
        eventually("both are asked", || {
            let mut command = lab.dev.netns.command(&lab::redirector_binary().to_string_lossy());
            command.args(["trace", TRACE]);
            for agent in [&agent, &second] {
                command
                    .args(["--agent", &agent.address().to_string(), "--token-file"])
                    .arg(agent.token_file());
            }
            // Nobody is there: the others are asked all the same.
            let nobody = edge.at(1).to_string();
            command.args(["--agent", &nobody, "--token-file"]).arg(agent.token_file());
            let shown = lab::CommandOutput::of(&mut command);
            shown.code == Some(0)
                && shown.stderr.contains(&format!("warning: what {nobody} has seen is not shown: "))
                && shown.stdout.lines().nth(1).is_some_and(|line| line.starts_with(&edge.netns.target()))
                && shown
                    .stdout
                    .contains(&format!("✗ {frontend} dropped the context: it did not pass on x-dev\n"))
        });
    });
}

#[test]
fn observers_take_no_requests_and_nothing_is_left_of_them() {
    in_lab(|lab| {
        let agent = Agent::start(lab);
        let _app = App::echo(lab, &lab.pod, "app", &[PORT]);
        for datapath in datapaths(&["auto", "inspect"]) {
            let observer =
                Observer::start(lab, &agent, &lab.pod, PORT, &["--datapath", datapath, "--name", "eye"]);
            let headers = ["x-redirector-intercept: abcdefghijklmnop"];
            let path = format!("/{datapath}");
            let answer = Curl::on(&lab.client).get(lab.pod.at(PORT), &path, &headers).answer();
            assert!(answer.body.contains("\"app\""), "{}", answer.body);
            eventually("the request was seen", || {
                agent.run(&["trace", "abcdefghijklmnop"]).stdout.contains(&path)
            });
            assert_eq!((agent.list().len(), agent.list()[0]["observes"] == json!(true)), (1, true));
            let explained =
                agent.json(&["explain", &lab.pod.netns.target(), "--port", "8080", "-H", headers[0]]);
            assert_eq!(explained, json!({ "taken_by": null, "intercepts": [] }));
            // One that nobody ends is let go.
            if datapath == "auto" {
                drop(observer);
            } else {
                observer.kill();
            }
            eventually("the observer is gone", || agent.list().is_empty());
            assert!(lab.attached().is_empty());
        }
        let none = agent.run(&["trace", "nobody"]);
        assert!(
            none.code == Some(1) && none.stdout.contains("No request of \"nobody\" was seen"),
            "{none:?}"
        );
    });
}

#[test]
fn tokens_see_the_requests_of_their_own_targets_only() {
    in_lab(|lab| {
        let agent = Agent::start(lab);
        let _app = App::echo(lab, &lab.pod, "app", &[PORT]);
        let _observer = Observer::start(lab, &agent, &lab.pod, PORT, &[]);
        let headers = ["x-redirector-intercept: abcdefghijklmnop"];
        assert_eq!(Curl::on(&lab.client).get(lab.pod.at(PORT), "/mine", &headers).answer().status, 200);
        eventually("the request was seen", || agent.run(&["trace", "abcdefghijklmnop"]).code == Some(0));
        let token = |target: &str| {
            let file = lab.directory().join("limited");
            let made = agent.json(&["token", "create", &format!("t{}", target.len()), "--target", target]);
            std::fs::write(&file, text(&made, "token")).expect("a token file");
            let mut command = lab.dev.netns.command(&lab::redirector_binary().to_string_lossy());
            command.args([
                "trace",
                "abcdefghijklmnop",
                "--agent",
                &agent.address().to_string(),
                "--token-file",
            ]);
            lab::CommandOutput::of(command.arg(&file))
        };
        assert!(token(&lab.pod.netns.target()).stdout.contains("/mine"));
        let other = token("netns:another");
        assert!(other.code == Some(1) && !other.stdout.contains("/mine"), "{other:?}");
    });
}

#[test]
fn spans_arrive_at_an_opentelemetry_collector_with_the_incoming_parents() {
    in_lab(|lab| {
        let collector = Collector::start(lab, &lab.dev);
        let arguments = vec!["--otlp".to_owned(), collector.endpoint()];
        let path = Path::new(lab, Forwards::W3c, &AgentOptions { arguments, ..AgentOptions::default() });
        let options = GatewayOptions::new(path.edge.at(PORT)).with(&["--otlp", &collector.endpoint()]);
        let gateway = Gateway::start(lab, &options);

        // A trace that begins at the client.
        assert_eq!(text(&path.ask(lab), "served_by"), "alice");
        let spans = |trace: &str, count: usize| {
            eventually_some("the spans of a trace", || {
                let spans: Vec<Span> =
                    collector.spans().into_iter().filter(|span| span.trace == trace).collect();
                (spans.len() >= count).then_some(spans)
            })
        };
        let hops = spans(TRACE, 3);
        let [edge, frontend, backend] = path.names(lab);
        for (hop, route) in [(&edge, "app"), (&frontend, "app"), (&backend, "developer")] {
            let span = hops.iter().find(|span| span.name == format!("GET {hop}")).expect("a span of the hop");
            assert_eq!(
                (&*span.parent, &*span.service, span.kind()),
                (PARENT, "redirector-agent", 2),
                "{span:?}"
            );
            assert_eq!(span.attribute("http.response.status_code").as_deref(), Some("200"));
            assert_eq!(span.attribute("url.path").as_deref(), Some("/api/basket"));
            assert_eq!(span.attribute("redirector.route").as_deref(), Some(route));
        }
        let client = hops
            .iter()
            .find(|span| span.name.ends_with(&edge))
            .and_then(|span| span.attribute("client.address"));
        assert_eq!(client, Some(lab.client.v4.to_string()));

        // One that begins at the gateway, which is the parent of all.
        let created = gateway.create(&lab.dev, &["--key", &path.key, "--name", "shown"]);
        let link = text(&created, "share_link");
        let link = format!("http://shop.test{}", &link[link.find("/_p/").expect("a path")..]);
        let cookie = visit(&lab.client, &gateway, &link, &[], &[]).cookie();
        let seen = visit(&lab.client, &gateway, "http://shop.test/api/basket", &[], &[&cookie]);
        assert!(seen.body.contains("\"alice\""), "{seen:?}");
        let own = eventually_some("the gateway's span", || {
            collector.spans().into_iter().find(|span| span.service == "redirector-gateway")
        });
        assert_eq!((&*own.name, &*own.parent), ("GET gateway", ""));
        let all = spans(&own.trace, 4);
        assert!(all.iter().all(|span| span.id == own.id || span.parent == own.id), "{all:?}");

        // And it is the origin of the path.
        let connection = gateway.connection();
        let connection: Vec<&str> = connection.iter().map(String::as_str).collect();
        let shown = path.agent.run(&[&["trace", &*path.key, "--last", "1"], &connection[..]].concat());
        let lines: Vec<&str> = shown.stdout.lines().collect();
        assert!(lines[1].starts_with("gateway: GET /api/basket from "), "{shown:?}");
        assert!(shown.stdout.contains(&format!("└─ {edge} port 8080: ")), "{shown:?}");
        assert!(shown.stdout.contains("the developer of \"alice\""), "{shown:?}");

        // What is on its way when they stop arrives.
        let count = |service: &str| collector.spans().iter().filter(|span| span.service == service).count();
        let [gateway_before, agent_before] = ["redirector-gateway", "redirector-agent"].map(count);
        assert_eq!(visit(&lab.client, &gateway, "http://shop.test/api/basket", &[], &[&cookie]).status, 200);
        assert!(gateway.stop().success());
        eventually("the last span of the gateway", || count("redirector-gateway") == gateway_before + 1);
        assert!(path.agent.stop(Signal::SIGTERM).success());
        eventually("the last spans of the agent", || count("redirector-agent") == agent_before + 3);
    });
}

#[test]
fn a_collector_that_is_away_delays_nobody() {
    in_lab(|lab| {
        // Nobody listens there.
        let arguments = vec!["--otlp".to_owned(), format!("http://{}:4318", lab.dev.v4)];
        let path = Path::new(lab, Forwards::W3c, &AgentOptions { arguments, ..AgentOptions::default() });
        for _ in 0..20 {
            assert_eq!(text(&path.ask(lab), "served_by"), "alice");
        }
        eventually("it is said", || path.agent.log().contains("the collector did not get"));
        assert_eq!(path.observers.len(), 3);
    });
}

/// Several lines, odd spaces and cases, percent-encoding: all of it is legal.
const CONTEXT: [(&str, &str); 7] = [
    ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ("tracestate", "redirector=abcdefghijklmnop,vendor=a b"),
    ("tracestate", "other@x=1,,  third=t61rcWkgMzE"),
    ("baggage", "user = Am%C3%A9lie;p=1 ;q , redirector=abcdefghijklmnop"),
    ("baggage", "empty=,%6bey=1"),
    ("x-redirector-intercept", "abcdefghijklmnop"),
    ("x-dev", "alice"),
];

#[test]
fn context_reaches_the_developer_byte_for_byte() {
    in_lab(|lab| {
        let _app = App::echo(lab, &lab.pod, "app", &[PORT]);
        let _alice_app = App::echo(lab, &lab.dev, "alice", &[LOCAL]);
        let agent = Agent::start(lab);
        let _alice = crate::scene::for_alice(lab, &agent).start(lab);
        let lines: String = CONTEXT.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let request = format!("GET /x HTTP/1.1\r\nHost: pod.test\r\n{lines}\r\n");
        let report = lab.client.connect(lab.pod.at(PORT)).ask(request).json();
        assert_eq!(text(&report, "served_by"), "alice");
        let sent: Vec<Value> = CONTEXT.iter().map(|(name, value)| json!([name, value])).collect();
        assert_eq!(report["headers"].as_array().expect("headers")[1..], sent);
    });
}

#[test]
fn context_reaches_the_developer_byte_for_byte_in_http2() {
    in_lab(|lab| {
        let _app = App::http2(lab, &lab.pod, "app", &[PORT]);
        let _alice_app = App::http2(lab, &lab.dev, "alice", &[LOCAL]);
        let agent = Agent::start(lab);
        let _alice = crate::scene::for_alice(lab, &agent).start(lab);
        let mut headers = serde_json::Map::new();
        for (name, value) in CONTEXT {
            headers
                .entry(name)
                .or_insert_with(|| json!([]))
                .as_array_mut()
                .expect("a list")
                .push(json!(value));
        }
        let own = [(":method", "GET"), (":path", "/x"), (":authority", "pod.test:8080")];
        headers.extend(own.map(|(name, value)| (name.to_owned(), json!(value))));
        let request = json!({ "headers": headers });
        let answers = http2_client(lab, &lab.client, lab.pod.at(PORT), &json!({ "requests": [request] }));
        let report = answers.report(0);
        assert_eq!(text(&report, "served_by"), "alice");
        let came = report["headers"].as_array().expect("headers");
        for (name, _) in CONTEXT {
            let values = |list: &mut dyn Iterator<Item = (String, String)>| {
                list.filter(|(other, _)| other == name).map(|(_, value)| value).collect::<Vec<_>>()
            };
            let sent = values(&mut CONTEXT.iter().map(|(name, value)| (name.to_string(), value.to_string())));
            let got = values(&mut came.iter().map(|line| (text_at(line, 0), text_at(line, 1))));
            assert_eq!(got, sent, "{report}");
        }
    });
}

fn text_at(line: &Value, at: usize) -> String {
    line[at].as_str().unwrap_or_default().to_owned()
}
