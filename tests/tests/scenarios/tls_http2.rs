//! HTTP/2 inside TLS, agreed on by ALPN as client and app would without the agent.

use lab::{Agent, Certificate, Curl, Kind, Lab, Nginx, s_client};

use crate::{
    scene::{DIRECT, LOCAL, PORT, Route, for_alice, in_lab},
    tls::{https, with_keys},
};

const LOCAL_TLS: u16 = 3443;

/// nginx with HTTP/2 in TLS in the pod, and on alice's machine without and with TLS.
fn with_http2(body: impl FnOnce(&Lab, &Agent, &Certificate)) {
    in_lab(|lab| {
        let certificate = Certificate::new(lab, &["pod.test"], Kind::Ecdsa);
        let _nginx = Nginx::tls_http2(lab, &lab.pod, &[PORT, DIRECT], &certificate);
        let _plain = Nginx::http2(lab, &lab.dev, &[LOCAL]);
        let _local = Nginx::tls_http2(lab, &lab.dev, &[LOCAL_TLS], &certificate);
        let agent = Agent::start(lab);
        body(lab, &agent, &certificate);
    });
}

#[track_caller]
fn assert_routing_over_http2(lab: &Lab, certificate: &Certificate) {
    for version in [["--tlsv1.2", "--tls-max", "1.2"], ["--tlsv1.3", "--tls-max", "1.3"]] {
        let more = [
            &["--http2", "--output", "/dev/stderr", "--write-out", "%{stderr}HTTP/%{http_version}"],
            &version[..],
        ];
        for route in Route::BOTH {
            let curl = Curl::on(&lab.client);
            let output =
                https(curl, lab, certificate, PORT, "/who", &more.concat(), &[route.header()]).output();
            let host = if route == Route::Live { &lab.pod } else { &lab.dev };
            let expected = format!("nginx in {}\nHTTP/2", host.netns.name());
            assert!(output.stderr.contains(&expected), "{route:?} {version:?}: {output:?}");
        }
    }
}

#[test]
fn streams_inside_tls_are_routed() {
    with_http2(|lab, agent, certificate| {
        let alice = with_keys(for_alice(lab, agent), &[certificate]).start(lab);
        assert!(!alice.log().contains("warning"), "{}", alice.log());
        assert_routing_over_http2(lab, certificate);
    });
}

#[test]
fn a_local_server_gets_them_in_tls_if_asked() {
    with_http2(|lab, agent, certificate| {
        let intercept = for_alice(lab, agent).to(&format!("https://127.0.0.1:{LOCAL_TLS}"));
        let _alice = with_keys(intercept, &[certificate]).start(lab);
        assert_routing_over_http2(lab, certificate);
    });
}

#[test]
fn client_and_app_agree_on_the_protocol_as_without_the_agent() {
    with_http2(|lab, agent, certificate| {
        let _alice = with_keys(for_alice(lab, agent), &[certificate]).start(lab);
        for offer in ["h2", "http/1.1", "h2,http/1.1", "http/1.1,h2", "spdy/3,h2"] {
            let [direct, through] = [DIRECT, PORT].map(|port| {
                let said = s_client(
                    &lab.client,
                    lab.pod.at(port),
                    &["-alpn", offer, "-tls1_3"],
                    "NEITHER A PREFACE NOR A REQUEST\r\n\r\n",
                );
                said.stdout.lines().find(|line| line.contains("ALPN")).map(str::to_owned)
            });
            assert!(direct.is_some());
            assert_eq!(through, direct, "{offer}");
        }
    });
}

#[test]
fn many_requests_inside_tls_pass_without_an_error() {
    with_http2(|lab, agent, certificate| {
        let _alice = with_keys(for_alice(lab, agent), &[certificate]).start(lab);
        let url = format!("https://{}/who", lab.pod.at(PORT));
        let said = lab.client.netns.sh(&format!("h2load -n 10000 -c 20 -m 10 {url}"));
        assert!(said.contains("10000 succeeded, 0 failed, 0 errored, 0 timeout"), "{said}");
        assert!(said.contains("Application protocol: h2"), "{said}");
    });
}
