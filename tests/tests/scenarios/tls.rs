//! Requests inside TLS are routed, and TLS itself is what it was: the app's own certificate, versions, names, sessions.

use std::{fs, net::SocketAddr};

use lab::{
    Agent, App, Certificate, Curl, Developer, Kind, Lab, Nginx, WebSockets, eventually, s_client,
    websocket_dialog,
};
use serde_json::Value;

use crate::scene::{DIRECT, LOCAL, PORT, Route, for_alice, in_lab, text};

/// What a TLS client of these tests is told beyond its defaults.
const VERSIONS: [&[&str]; 2] = [&["--tlsv1.2", "--tls-max", "1.2"], &["--tlsv1.3"]];

/// The echo app speaking TLS in the pod, alice's plain echo app on her machine, and an intercept with the app's key.
pub struct TlsScene<'a> {
    pub alice: Developer,
    pub agent: Agent,
    _alice_app: App,
    _app: App,
    pub certificate: Certificate,
    pub lab: &'a Lab,
}

impl<'a> TlsScene<'a> {
    pub fn new(lab: &'a Lab, kind: Kind) -> Self {
        Self::with(lab, kind, &[])
    }

    /// With options for both apps.
    pub fn with(lab: &'a Lab, kind: Kind, options: &[&str]) -> Self {
        let certificate = Certificate::new(lab, &["pod.test"], kind);
        let app = App::tls_echo(lab, &lab.pod, "app", &[PORT, DIRECT], &certificate, options);
        let alice_app = App::echo_with(lab, &lab.dev, "alice", &[LOCAL], options);
        let agent = Agent::start(lab);
        let alice = with_keys(for_alice(lab, &agent), &[&certificate]).start(lab);
        Self { alice, agent, _alice_app: alice_app, _app: app, certificate, lab }
    }

    /// A request to the app at `port`, over TLS that the client verifies by the app's own certificate.
    pub fn request(&self, curl: Curl, port: u16, path: &str, more: &[&str], headers: &[&str]) -> Curl {
        https(curl, self.lab, &self.certificate, port, path, more, headers)
    }

    /// Asserts that requests inside TLS are routed.
    #[track_caller]
    pub fn assert_routing(&self) {
        for route in Route::BOTH {
            let curl = self.request(Curl::on(&self.lab.client), PORT, "/whoami", &[], &[route.header()]);
            assert!(curl.answer().body.contains(&format!("\"served_by\": \"{}\"", route.server())));
        }
    }
}

/// An intercept that has the keys of these certificates.
pub fn with_keys(intercept: lab::Intercept, certificates: &[&Certificate]) -> lab::Intercept {
    certificates.iter().fold(intercept, |intercept, certificate| {
        let [file, key] = certificate.files();
        intercept.argument("--tls-cert").argument(&file).argument("--tls-key").argument(&key)
    })
}

/// `GET https://NAME:PORT/PATH` from the pod, where NAME is the certificate's.
pub fn https(
    curl: Curl,
    lab: &Lab,
    certificate: &Certificate,
    port: u16,
    path: &str,
    more: &[&str],
    headers: &[&str],
) -> Curl {
    let name = certificate.name();
    let resolve = format!("{name}:{port}:{}", lab.pod.v4);
    let [file, _] = certificate.files();
    let arguments = [&["--cacert", &file, "--resolve", &resolve], more].concat();
    curl.request(&format!("https://{name}:{port}{path}"), &arguments, headers)
}

#[test]
fn requests_inside_tls_are_routed_one_by_one() {
    for kind in Kind::BOTH {
        in_lab(|lab| {
            let scene = TlsScene::new(lab, kind);
            for (version, first) in [(VERSIONS[0], 0), (VERSIONS[1], 0), (VERSIONS[1], 1)] {
                let routes: Vec<Route> = Route::BOTH.into_iter().cycle().skip(first).take(10).collect();
                let answers = routes
                    .iter()
                    .fold(Curl::on(&lab.client), |curl, route| {
                        scene.request(curl, PORT, "/whoami", version, &[route.header()])
                    })
                    .answers();
                let connects: u32 = answers.iter().map(|answer| answer.connects).sum();
                assert_eq!(connects, 1, "one connection: {answers:?}");
                for (route, answer) in routes.iter().zip(&answers) {
                    let report: Value = serde_json::from_str(&answer.body).expect("a report");
                    assert_eq!(text(&report, "served_by"), route.server(), "{kind:?} {version:?}");
                    if *route == Route::Live {
                        assert_eq!(
                            text(&report, "peer"),
                            lab.client.v4.to_string(),
                            "the app sees its client"
                        );
                        assert_eq!(report["port"], answer.port);
                    }
                }
            }
        });
    }
}

#[test]
fn openssl_s_client_sees_the_apps_own_certificate_and_is_routed() {
    in_lab(|lab| {
        let scene = TlsScene::new(lab, Kind::Rsa);
        let [file, _] = scene.certificate.files();
        for version in ["-tls1_2", "-tls1_3"] {
            let certificates = [DIRECT, PORT].map(|port| {
                let arguments =
                    [version, "-CAfile", &file, "-servername", "pod.test", "-verify_return_error"];
                for route in Route::BOTH {
                    let request = route.request("GET", "/", "Connection: close\r\n", "");
                    let request = String::from_utf8(request).unwrap();
                    let said = s_client(&lab.client, lab.pod.at(port), &arguments, &request);
                    assert_eq!(said.code, Some(0), "{said:?}");
                    let server = if port == DIRECT { "app" } else { route.server() };
                    assert!(said.stdout.contains(&format!("\"served_by\": \"{server}\"")), "{said:?}");
                }
                shown_certificate(
                    &s_client(&lab.client, lab.pod.at(port), &arguments, "close\r\n\r\n").stdout,
                )
            });
            assert_eq!(certificates[0], certificates[1], "{version}");
        }
    });
}

fn shown_certificate(s_client: &str) -> String {
    let (_, rest) = s_client.split_once("BEGIN CERTIFICATE").expect("a certificate");
    rest.split_once("END CERTIFICATE").expect("its end").0.to_owned()
}

#[test]
fn sessions_are_resumed_as_with_the_app() {
    in_lab(|lab| {
        let scene = TlsScene::new(lab, Kind::Ecdsa);
        let session = lab.directory().join("session").to_string_lossy().into_owned();
        let request =
            String::from_utf8(Route::Alice.request("GET", "/", "Connection: close\r\n", "")).unwrap();
        for version in ["-tls1_2", "-tls1_3"] {
            let ask = |port, how: &str| {
                let arguments = [version, "-servername", "pod.test", how, &session];
                let said = s_client(&lab.client, lab.pod.at(port), &arguments, &request);
                assert_eq!(said.code, Some(0), "{said:?}");
                assert!(said.stdout.contains("served_by"), "{said:?}");
                said.stdout.contains("Reused, TLS")
            };
            assert!(!ask(PORT, "-sess_out"));
            assert!(ask(PORT, "-sess_in"), "{version}: the agent's own sessions are resumed");
            assert!(
                !ask(DIRECT, "-sess_in"),
                "{version}: the app makes a new one of a session it does not know"
            );
            assert!(!ask(DIRECT, "-sess_out"));
            assert!(!ask(PORT, "-sess_in"), "{version}: as the agent does of one from before the intercept");
        }
        scene.assert_routing();
    });
}

#[test]
fn early_data_for_a_session_of_the_apps_is_asked_for_again() {
    in_lab(|lab| {
        let certificate = Certificate::new(lab, &["pod.test"], Kind::Ecdsa);
        let _nginx = Nginx::tls_with(
            lab,
            &lab.pod,
            &[PORT, DIRECT],
            &[(&certificate, "ssl_protocols TLSv1.3; ssl_early_data on;")],
        );
        let _alice_app = App::echo(lab, &lab.dev, "alice", &[LOCAL]);
        let agent = Agent::start(lab);
        let _alice = with_keys(for_alice(lab, &agent), &[&certificate]).start(lab);
        let [session, early] = ["session", "early"].map(|name| lab.directory().join(name));
        let request = "GET /who HTTP/1.1\r\nHost: pod.test\r\nConnection: close\r\nx-dev: alice\r\n\r\n";
        fs::write(&early, request).unwrap();
        let [session, early] = [session, early].map(|path| path.to_string_lossy().into_owned());
        let ask = |port, more: &[&str]| {
            let arguments = [&["-tls1_3", "-servername", "pod.test"], more].concat();
            s_client(&lab.client, lab.pod.at(port), &arguments, request).stdout
        };
        ask(DIRECT, &["-sess_out", &session]);
        let directly = ask(DIRECT, &["-sess_in", &session, "-early_data", &early]);
        assert!(directly.contains("Early data was accepted"), "{directly}");
        ask(DIRECT, &["-sess_out", &session]);
        let through = ask(PORT, &["-sess_in", &session, "-early_data", &early]);
        assert!(through.contains("Early data was rejected") && through.contains("\"alice\""), "{through}");
    });
}

#[test]
fn a_client_inside_tls_that_leaves_while_the_developer_thinks_is_let_go() {
    in_lab(|lab| {
        let scene = TlsScene::new(lab, Kind::Ecdsa);
        let more = ["--max-time", "1"];
        let curl = scene.request(Curl::on(&lab.client), PORT, "/stall", &more, &[Route::Alice.header()]);
        assert_eq!(curl.output().code, Some(28), "curl gives up");
        eventually("nothing is open any more", || {
            let status = scene.agent.json(&["status"]);
            status["targets"][0]["ports"][PORT.to_string()]["open"] == 0
        });
        scene.assert_routing();
    });
}

#[test]
fn each_server_name_has_its_own_certificate() {
    in_lab(|lab| {
        let one = Certificate::new(lab, &["one.test"], Kind::Ecdsa);
        let two = Certificate::new(lab, &["two.test", "also-two.test"], Kind::Rsa);
        let _nginx = Nginx::tls_with(lab, &lab.pod, &[PORT], &[(&one, ""), (&two, "")]);
        let _alice_app = App::echo(lab, &lab.dev, "alice", &[LOCAL]);
        let agent = Agent::start(lab);
        let alice = with_keys(for_alice(lab, &agent), &[&one, &two]).start(lab);
        assert!(!alice.log().contains("warning"), "{}", alice.log());
        for certificate in [&one, &two] {
            for route in Route::BOTH {
                let curl =
                    https(Curl::on(&lab.client), lab, certificate, PORT, "/who", &[], &[route.header()]);
                let body = curl.answer().body;
                let expected = if route == Route::Live { "nginx in" } else { "\"alice\"" };
                assert!(body.contains(expected), "{} {route:?}: {body}", certificate.name());
            }
        }
        // Who gives no name is shown the app's first certificate.
        let said = s_client(&lab.client, lab.pod.at(PORT), &["-noservername"], "GET /who HTTP/1.0\r\n\r\n");
        assert!(said.stdout.contains("CN = one.test") && said.stdout.contains("nginx in"), "{said:?}");
    });
}

#[test]
fn large_bodies_inside_tls_come_through_unchanged_both_ways() {
    in_lab(|lab| {
        let file = lab.directory().join("random").to_string_lossy().into_owned();
        lab.node.netns.sh(&format!("dd if=/dev/urandom of={file} bs=1M count=48 status=none"));
        let scene = TlsScene::with(lab, Kind::Ecdsa, &["--file", &file]);
        let sha256 = |path: &str| lab.node.netns.sh(&format!("sha256sum {path}"))[..64].to_owned();
        let down = lab.directory().join("down").to_string_lossy().into_owned();
        for version in VERSIONS {
            for route in Route::BOTH {
                let more = [version, &["--output", &down]].concat();
                let curl = scene.request(Curl::on(&lab.client), PORT, "/file", &more, &[route.header()]);
                assert_eq!(curl.answer().status, 200);
                assert_eq!(sha256(&down), sha256(&file), "{route:?} {version:?}");
                fs::remove_file(&down).unwrap();

                let more = [version, &["--upload-file", &file]].concat();
                let curl = scene.request(Curl::on(&lab.client), PORT, "/", &more, &[route.header()]);
                let report: Value = serde_json::from_str(&curl.answer().body).expect("a report");
                assert_eq!(text(&report, "served_by"), route.server());
                assert_eq!(text(&report, "body_sha256"), sha256(&file), "{route:?} {version:?}");
            }
        }
    });
}

#[test]
fn answers_inside_tls_are_what_the_app_says() {
    in_lab(|lab| {
        let scene = TlsScene::new(lab, Kind::Ecdsa);
        for path in [
            "/until-close",
            "/close",
            "/chunked?parts=20",
            "/interim",
            "/status/204",
            "/status/304",
            "/early",
        ] {
            let [direct, through] = [DIRECT, PORT].map(|port| {
                let more = ["--include", "--data", "some=body"];
                let curl = scene.request(Curl::on(&lab.client), port, path, &more, &[Route::Live.header()]);
                curl.answer().body.replace(&DIRECT.to_string(), &PORT.to_string())
            });
            assert_eq!(through, direct, "{path}");
        }
        let answers = ["/close", "/whoami", "/until-close", "/whoami"]
            .iter()
            .flat_map(|path| Route::BOTH.map(|route| (path, route)))
            .fold(Curl::on(&lab.client), |curl, (path, route)| {
                scene.request(curl, PORT, path, &[], &[route.header()])
            })
            .answers();
        assert!(answers.iter().all(|answer| answer.status == 200), "{answers:?}");
    });
}

#[test]
fn websockets_inside_tls_work_on_both_routes() {
    in_lab(|lab| {
        let certificate = Certificate::new(lab, &["pod.test"], Kind::Ecdsa);
        let _app = App::tls_websocket(lab, &lab.pod, "app", PORT, &certificate);
        let _alice_app = App::websocket(lab, &lab.dev, WebSockets::Python, "alice", &[LOCAL]);
        let agent = Agent::start(lab);
        let _alice = with_keys(for_alice(lab, &agent), &[&certificate]).start(lab);
        let url = format!("wss://{}/socket", lab.pod.at(PORT));
        for route in Route::BOTH {
            let dialog =
                websocket_dialog(lab, &lab.client, WebSockets::Python, &url, &[route.header()]).json();
            assert_eq!(dialog["texts"][19], format!("{}: message 19", route.server()));
            assert_eq!((&dialog["large_same"], &dialog["close_code"]), (&true.into(), &1000.into()));
        }
    });
}

#[test]
fn a_client_that_does_not_trust_the_certificate_is_told_so_by_tls() {
    in_lab(|lab| {
        let scene = TlsScene::new(lab, Kind::Ecdsa);
        for version in VERSIONS {
            let codes = [DIRECT, PORT].map(|port| {
                let url = format!("https://{}/", SocketAddr::new(lab.pod.v4.into(), port));
                let output = Curl::on(&lab.client).request(&url, version, &[]).output();
                (output.code, output.stderr)
            });
            assert_eq!(codes[0].0, Some(60), "curl can't verify: {codes:?}");
            assert_eq!(codes[1], codes[0]);
        }
        scene.assert_routing();
    });
}

#[test]
fn an_intercept_that_ends_leaves_tls_to_the_app() {
    in_lab(|lab| {
        let TlsScene { alice, agent, certificate, _app, _alice_app, .. } = TlsScene::new(lab, Kind::Ecdsa);
        // Another intercept keeps the port, and has no key.
        let bob = lab::Intercept::new(lab, &agent, PORT, LOCAL).header("x-dev", "bob").name("bob");
        let _bob = bob.start(lab);
        let ask = |header| {
            let curl = https(Curl::on(&lab.client), lab, &certificate, PORT, "/whoami", &[], &[header]);
            let report: Value = serde_json::from_str(&curl.answer().body).expect("a report");
            text(&report, "served_by")
        };
        assert_eq!(ask("x-dev: bob"), "alice", "a key is the port's, whoever brought it");
        alice.interrupt();
        assert_eq!(ask("x-dev: bob"), "app", "and goes with who brought it");
    });
}
