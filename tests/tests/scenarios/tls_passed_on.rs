//! TLS that the agent can't take part in is left to client and app, as if there were no intercept.

use lab::{Agent, App, Certificate, Curl, Developer, Kind, Lab, Nginx, Server, s_client};

use crate::{
    scene::{ALICE, DIRECT, LOCAL, PORT, for_alice, in_lab},
    tls::{TlsScene, https, with_keys},
};

/// How many connections to the port were passed on for this reason.
fn passed_on(agent: &Agent, reason: &str) -> u64 {
    let status = agent.json(&["status"]);
    status["targets"][0]["ports"][PORT.to_string()]["uncovered"][reason].as_u64().unwrap_or_default()
}

/// Alice's intercept with these keys, in front of whatever is there.
fn intercept(lab: &Lab, keys: &[&Certificate]) -> (Agent, Developer, App) {
    let alice_app = App::echo(lab, &lab.dev, "alice", &[LOCAL]);
    let agent = Agent::start(lab);
    let alice = with_keys(for_alice(lab, &agent), keys).start(lab);
    (agent, alice, alice_app)
}

#[test]
fn a_service_that_asks_for_client_certificates_passes_through_and_is_warned_of() {
    in_lab(|lab| {
        let certificate = Certificate::new(lab, &["pod.test"], Kind::Ecdsa);
        let client = Certificate::new(lab, &["client.test"], Kind::Ecdsa);
        let [ca, _] = client.files();
        for how in ["on", "optional"] {
            let lines = format!(
                "ssl_verify_client {how}; ssl_client_certificate {ca}; add_header client $ssl_client_s_dn always;"
            );
            let _nginx = Nginx::tls_with(lab, &lab.pod, &[PORT, DIRECT], &[(&certificate, &lines)]);
            let (agent, alice, _alice_app) = intercept(lab, &[&certificate]);
            assert!(alice.log().contains("asks for client certificates (mTLS)"), "{}", alice.log());
            let [file, key] = client.files();
            for version in ["1.2", "1.3"] {
                for shown in [vec!["--cert", &file, "--key", &key], vec![]] {
                    let more = [&["--include", "--tls-max", version][..], &shown].concat();
                    let [direct, through] = [DIRECT, PORT].map(|port| {
                        let curl =
                            https(Curl::on(&lab.client), lab, &certificate, port, "/who", &more, &[ALICE]);
                        without_date(&curl.answer().body)
                    });
                    assert_eq!(through, direct, "{how} {version} {shown:?}");
                    assert_eq!(through.contains("CN=client.test"), !shown.is_empty(), "{through}");
                }
            }
            assert_eq!(passed_on(&agent, "client-certificate"), 4);
        }
    });
}

fn without_date(answer: &str) -> String {
    answer.lines().filter(|line| !line.starts_with("Date:")).collect()
}

#[test]
fn a_service_with_another_certificate_passes_through_and_is_warned_of() {
    in_lab(|lab| {
        let shown = Certificate::new(lab, &["pod.test"], Kind::Ecdsa);
        let given = Certificate::new(lab, &["pod.test"], Kind::Ecdsa);
        let _nginx = Nginx::tls_with(lab, &lab.pod, &[PORT], &[(&shown, "")]);
        let (agent, alice, _alice_app) = intercept(lab, &[&given]);
        assert!(alice.log().contains("shows another certificate"), "{}", alice.log());
        for _ in 0..3 {
            let curl = https(Curl::on(&lab.client), lab, &shown, PORT, "/who", &[], &[ALICE]);
            assert!(curl.answer().body.starts_with("nginx in"));
        }
        assert_eq!(passed_on(&agent, "other-certificate"), 3);
        // Somebody who brings the right one makes it right at once.
        let bob = lab::Intercept::new(lab, &agent, PORT, LOCAL).header("x-dev", "bob").name("bob");
        let _bob = with_keys(bob, &[&shown]).start(lab);
        let curl = https(Curl::on(&lab.client), lab, &shown, PORT, "/who", &[], &[ALICE]);
        assert!(curl.answer().body.contains("\"alice\""));
    });
}

#[test]
fn a_service_that_does_not_speak_tls_passes_through_and_is_warned_of() {
    in_lab(|lab| {
        let certificate = Certificate::new(lab, &["pod.test"], Kind::Ecdsa);
        let _app = App::echo(lab, &lab.pod, "app", &[PORT]);
        let (_agent, alice, _alice_app) = intercept(lab, &[&certificate]);
        assert!(alice.log().contains("does not speak TLS"), "{}", alice.log());
        crate::scene::assert_routing(lab);
    });
}

#[test]
fn versions_that_only_client_and_app_know_are_theirs() {
    in_lab(|lab| {
        let certificate = Certificate::new(lab, &["pod.test"], Kind::Rsa);
        let old = "ssl_protocols TLSv1.1 TLSv1.2 TLSv1.3; ssl_ciphers ALL:@SECLEVEL=0;";
        let _nginx = Nginx::tls_with(lab, &lab.pod, &[PORT, DIRECT], &[(&certificate, old)]);
        let (agent, _alice, _alice_app) = intercept(lab, &[&certificate]);
        let request = "GET /who HTTP/1.0\r\nx-dev: alice\r\n\r\n";
        for arguments in [
            &["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"][..],
            // No forward secrecy: rustls does not know it.
            &["-tls1_2", "-cipher", "AES128-SHA:@SECLEVEL=0"],
        ] {
            let before = passed_on(&agent, "tls-refused");
            for port in [DIRECT, PORT] {
                let said = s_client(&lab.client, lab.pod.at(port), arguments, request);
                assert!(said.stdout.contains("nginx in"), "{port} {arguments:?}: {said:?}");
            }
            assert_eq!(passed_on(&agent, "tls-refused"), before + 1, "{arguments:?}");
        }
        let said = s_client(&lab.client, lab.pod.at(PORT), &["-tls1_2"], request);
        assert!(said.stdout.contains("\"alice\""), "what rustls knows is routed: {said:?}");
    });
}

#[test]
fn another_protocol_by_alpn_is_the_apps() {
    in_lab(|lab| {
        let scene = TlsScene::new(lab, Kind::Ecdsa);
        let request = "GET / HTTP/1.1\r\nx-dev: alice\r\nConnection: close\r\n\r\n";
        let said = s_client(&lab.client, lab.pod.at(PORT), &["-alpn", "acme-tls/1"], request);
        assert!(said.stdout.contains("\"served_by\": \"app\""), "{said:?}");
        assert_eq!(passed_on(&scene.agent, "tls-refused"), 1);
        let said = s_client(&lab.client, lab.pod.at(PORT), &["-alpn", "acme-tls/1,http/1.1"], request);
        assert!(said.stdout.contains("\"served_by\": \"alice\""), "{said:?}");
    });
}

#[test]
fn what_only_begins_like_tls_reaches_the_app_byte_for_byte() {
    in_lab(|lab| {
        let certificate = Certificate::new(lab, &["pod.test"], Kind::Ecdsa);
        let app = Server::silent(&lab.pod.netns, lab.pod.at(PORT));
        let (_agent, _alice, _alice_app) = intercept(lab, &[&certificate]);
        for garbage in
            [&b"\x16 is what this begins with\r\n"[..], b"\x16\x03\x01\x00\x04junk", b"\x16\x03\x01"]
        {
            let before = app.peers().len();
            let mut connection = lab.client.connect(lab.pod.at(PORT));
            connection.send(garbage);
            lab::eventually("the app has all of it", || {
                app.peers()[before..].iter().any(|peer| peer.received() == garbage)
            });
            connection.send("and more");
            let all = [garbage, b"and more"].concat();
            lab::eventually("and what comes later", || {
                app.peers()[before..].iter().any(|peer| peer.received() == all)
            });
        }
    });
}
