//! HTTP/2 from the gateway to the ingress: gRPC, and everything else beside it.

use lab::{
    Agent, App, Certificate, Gateway, GatewayOptions, Intercept, Kind, Lab, Nginx, Process, Stream,
    WebSockets, eventually, grpc_client, websocket_dialog,
};
use serde_json::{Value, json};

use crate::{
    gateway::{INGRESS, KEY, open, visit},
    scene::{LOCAL, PORT, in_lab},
};

const GRPC: u16 = PORT + 1;

/// nginx with HTTP/2 in TLS as ingress, an app behind it, and the gateway in front. (Dropped in this order.)
struct Site {
    gateway: Gateway,
    _ingress: Nginx,
    _app: App,
}

impl Site {
    fn new(lab: &Lab, app: App) -> Self {
        let certificate = Certificate::new(lab, &["shop.test"], Kind::Ecdsa);
        let ca = certificate.path().to_string_lossy().into_owned();
        Self::with(lab, app, Some(&certificate), &["--ingress-tls", "--ingress-ca", &ca])
    }

    /// The ingress is known to speak HTTP/2, and is not asked.
    fn without_tls(lab: &Lab, app: App) -> Self {
        Self::with(lab, app, None, &[])
    }

    fn with(lab: &Lab, app: App, certificate: Option<&Certificate>, arguments: &[&str]) -> Self {
        let behind = [lab.pod.at(PORT), lab.pod.at(GRPC)];
        let ingress = Nginx::http2_ingress(lab, &lab.node, INGRESS, behind, certificate);
        let options = GatewayOptions::new(lab.node.at(INGRESS)).with(arguments);
        let options = options.with(&["--ingress-http2", "--ingress-l5", "shop.test"]);
        Self { gateway: Gateway::start(lab, &options), _ingress: ingress, _app: app }
    }
}

/// gRPC calls to the gateway with a cookie.
fn calls(lab: &Lab, gateway: &Gateway, cookie: &str, action: &[&str]) -> Value {
    let metadata = cookie.replacen(": ", "=", 1);
    let arguments = [&[&*metadata], action].concat();
    grpc_client(lab, &lab.client, &gateway.address().to_string(), &arguments)
}

#[test]
fn grpc_reaches_the_developer_with_a_preview_and_the_app_without() {
    for site in [Site::new, Site::without_tls] {
        in_lab(|lab| {
            let site = site(lab, App::grpc(lab, &lab.pod, "app", &[GRPC]));
            let _alice_app = App::grpc(lab, &lab.dev, "alice", &[LOCAL]);
            let agent = Agent::start(lab);
            let alice = Intercept::new(lab, &agent, GRPC, LOCAL).header("x-redirector-intercept", KEY);
            let _alice = alice.start(lab);
            let (_, cookie) = open(lab, &site.gateway, &[]);
            for (cookie, server) in [(&*cookie, "alice"), ("cookie: session=1", "app")] {
                let said = calls(lab, &site.gateway, cookie, &["dialog"]);
                assert_eq!(said["unary"]["initial"]["served-by"], server, "{said:?}");
                assert_eq!(said["status"]["reason"], format!("asked of {server}"), "trailers come along");
                assert_eq!(
                    (&said["deadline"], &said["cancelled"]),
                    (&"DEADLINE_EXCEEDED".into(), &"CANCELLED".into())
                );
            }
            // nginx closes a connection after a thousand requests.
            let many = calls(lab, &site.gateway, &cookie, &["calls", "3000"]);
            assert_eq!(many, json!({ "errors": [], "served": { "alice": 3000 } }));
        });
    }
}

/// What a client may bring itself, beside what a preview puts in.
const SMUGGLED: [&[&str]; 8] = [
    &["x-redirector-intercept: ponmlkjihgfedcba"],
    &["X-Redirector-Intercept: a", "x_redirector_intercept: ponmlkjihgfedcba"],
    &["baggage: user=bob, redirector=ponmlkjihgfedcba;p=1", "baggage: r%65director=ponmlkjihgfedcba,b=2"],
    &[
        "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "tracestate: a=1,redirector=x,b=2",
    ],
    &["traceparent: nonsense", "tracestate: a=1,redirector=x"],
    &["cookie: a=1; redirector-preview=junk; b=2"],
    &["cookie: a=1", "cookie: redirector-preview=junk"],
    &["te: trailers", "trailer: x-redirector-intercept"],
];

/// What the app behind the gateway is sent, each time of what is smuggled, by visitors of both protocols, without a preview and
/// with one.
fn arrived(lab: &Lab, gateway: &Gateway) -> Vec<Vec<Vec<String>>> {
    let (_, cookie) = open(lab, gateway, &[]);
    let mut all = Vec::new();
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        for preview in [None, Some(&*cookie)] {
            for smuggled in SMUGGLED {
                let headers: Vec<&str> = preview.into_iter().chain(smuggled.iter().copied()).collect();
                let seen = visit(&lab.client, gateway, "http://shop.test/", &[version], &headers);
                let names = ["x-redirector-intercept", "baggage", "tracestate", "cookie", "trailer"];
                // A preview that there is not.
                let is_unknown = preview.is_none() && smuggled.iter().any(|header| header.contains("junk"));
                assert_eq!(seen.status, if is_unknown { 404 } else { 200 }, "{version} {smuggled:?}");
                if is_unknown {
                    all.push(Vec::new());
                    continue;
                }
                let report = seen.report();
                let text = report.0.to_string();
                assert!(!text.contains("ponmlkjihgfedcba") && !text.contains("junk"), "{smuggled:?}: {text}");
                let is_previews = preview.is_some();
                assert_eq!(
                    report.all(names[0]).contains(&KEY.to_owned()),
                    is_previews,
                    "{smuggled:?}: {text}"
                );
                all.push(names.map(|name| report.all(name)).to_vec());
            }
        }
    }
    all
}

#[test]
fn what_a_client_smuggles_in_is_taken_out_and_merged_as_over_http1() {
    let mut by_ingress = Vec::new();
    in_lab(|lab| {
        let app = App::echo(lab, &lab.pod, "app", &[PORT]);
        let _ingress = Nginx::ingress(lab, &lab.node, INGRESS, lab.pod.at(PORT));
        let options = GatewayOptions::new(lab.node.at(INGRESS)).with(&["--ingress-l5", "shop.test"]);
        by_ingress.push(arrived(lab, &Gateway::start(lab, &options)));
        drop(app);
    });
    for site in [Site::new, Site::without_tls] {
        in_lab(|lab| {
            let site = site(lab, App::echo(lab, &lab.pod, "app", &[PORT]));
            by_ingress.push(arrived(lab, &site.gateway));
        });
    }
    let baggage = format!("redirector={KEY},user=bob,b=2");
    assert_eq!(by_ingress[0][SMUGGLED.len() + 2][1], [baggage]);
    assert_eq!(by_ingress[1], by_ingress[0]);
    assert_eq!(by_ingress[2], by_ingress[0]);
}

#[test]
fn an_http2_ingress_is_sent_pages_and_websockets_too() {
    in_lab(|lab| {
        let site = Site::new(lab, App::echo(lab, &lab.pod, "app", &[PORT]));
        let (_, cookie) = open(lab, &site.gateway, &[]);
        let body = "a=1&b=2";
        let seen = visit(&lab.client, &site.gateway, "http://any.test/form", &["--data", body], &[&cookie]);
        let report = seen.report();
        assert_eq!(report.header("x-redirector-intercept"), KEY);
        assert_eq!(report.header("host"), "shop.test");
        assert_eq!(report.header("content-length"), body.len().to_string());
    });
    in_lab(|lab| {
        let site = Site::new(lab, App::websocket(lab, &lab.pod, WebSockets::Python, "app", &[PORT]));
        let url = format!("ws://{}/socket", site.gateway.address());
        let dialog = websocket_dialog(lab, &lab.client, WebSockets::Python, &url, &[]).json();
        assert_eq!(dialog["texts"][19], "app: message 19");
    });
}

#[test]
fn requests_survive_that_the_ingress_ends_its_connections() {
    in_lab(|lab| {
        let site = Site::new(lab, App::echo(lab, &lab.pod, "app", &[PORT]));
        let url = format!("http://{}/[1-5000]", site.gateway.address());
        let arguments = ["--parallel", "--parallel-max", "32", "--output", "/dev/null"];
        let format = ["--silent", "--write-out", "%{http_code}\\n"];
        let mut curl = lab.client.netns.command("curl");
        let output = curl.args(arguments).args(format).arg(&url).output().expect("curl");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let good = text.lines().filter(|code| *code == "200").count();
        assert_eq!(good, 5000, "{:?}", text.lines().filter(|code| *code != "200").collect::<Vec<_>>());
    });
}

#[test]
fn open_streams_do_not_keep_others_waiting() {
    in_lab(|lab| {
        let site = Site::new(lab, App::echo(lab, &lab.pod, "app", &[PORT]));
        // More than one connection to the ingress takes.
        let streams = 2 * Nginx::HTTP2_STREAMS + 1;
        let url = format!("http://{}/events?[1-{streams}]", site.gateway.address());
        let mut curl = lab.client.netns.command("curl");
        curl.args([
            "--silent",
            "--no-buffer",
            "--parallel",
            "--parallel-immediate",
            "--parallel-max",
            "300",
            &url,
        ]);
        let visitors = Process::spawn("visitors", &mut curl, lab.logs());
        eventually("all streams are open", || {
            let lines = visitors.log().lines(Stream::Stdout);
            lines.iter().filter(|line| line.contains("data: open")).count() == streams
        });
        let seen = visit(&lab.client, &site.gateway, "http://any.test/", &["--max-time", "20"], &[]);
        assert_eq!(seen.report().header("host"), "shop.test");
    });
}

#[test]
fn http2_to_the_ingress_needs_to_know_its_hosts() {
    in_lab(|lab| {
        let options = GatewayOptions::new(lab.node.at(INGRESS)).with(&["--ingress-http2"]);
        let refused = Gateway::refused(lab, &options);
        assert!(refused.code == Some(1) && refused.stderr.contains("--ingress-l5, or"), "{refused:?}");
    });
}
