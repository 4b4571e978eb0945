//! `--to https://`: the developer's local server speaks TLS.

use lab::{Agent, App, Certificate, Curl, Kind, Lab, Nginx};

use crate::scene::{ALICE, PORT, in_lab};

const LOCAL_TLS: u16 = 3443;

/// Alice's intercept of a plain app, with a local server that speaks TLS.
fn with_local(lab: &Lab, to: &str, environment: &[(&str, &str)], check: impl FnOnce(&str)) {
    let _app = App::echo(lab, &lab.pod, "app", &[PORT]);
    let agent = Agent::start(lab);
    let alice = lab::Intercept::new(lab, &agent, PORT, LOCAL_TLS).header("x-dev", "alice");
    let alice = environment.iter().fold(alice.to(to), |alice, (name, value)| alice.environment(name, value));
    let _alice = alice.start(lab);
    let answer = Curl::on(&lab.client).get(lab.pod.at(PORT), "/who", &[ALICE]).answer();
    check(&answer.body);
}

#[test]
fn a_local_server_on_loopback_needs_no_valid_certificate() {
    in_lab(|lab| {
        let certificate = Certificate::new(lab, &["somebody.test"], Kind::Rsa);
        let _alice_app = App::tls_echo(lab, &lab.dev, "alice", &[LOCAL_TLS], &certificate, &[]);
        for to in [format!("https://127.0.0.1:{LOCAL_TLS}"), format!("https://localhost:{LOCAL_TLS}/")] {
            with_local(lab, &to, &[], |body| assert!(body.contains("\"served_by\": \"alice\""), "{body}"));
        }
    });
}

#[test]
fn any_other_is_verified_by_the_systems_roots() {
    in_lab(|lab| {
        let certificate = Certificate::new(lab, &["dev.test"], Kind::Ecdsa);
        let [file, _] = certificate.files();
        let _alice_app = App::tls_echo(lab, &lab.dev, "alice", &[LOCAL_TLS], &certificate, &[]);
        let to = format!("https://{}:{LOCAL_TLS}", lab.dev.v4);
        with_local(lab, &to, &[], |body| {
            assert!(body.contains("can't be trusted") && body.contains("SSL_CERT_FILE"), "{body}");
        });
        // Now its issuer is known, and it is for another name.
        with_local(lab, &to, &[("SSL_CERT_FILE", &file)], |body| {
            assert!(body.contains("can't be trusted") && body.contains("not valid for"), "{body}");
        });
    });
}

#[test]
fn a_local_server_without_tls_is_told_from_one_with_it() {
    in_lab(|lab| {
        let _nginx = Nginx::start(lab, &lab.dev, &[LOCAL_TLS]);
        with_local(lab, &format!("https://127.0.0.1:{LOCAL_TLS}"), &[], |body| {
            assert!(body.contains("does not speak TLS"), "{body}");
        });
        with_local(lab, &format!("http://127.0.0.1:{LOCAL_TLS}"), &[], |body| {
            assert!(body.starts_with("nginx in"), "{body}");
        });
    });
}
