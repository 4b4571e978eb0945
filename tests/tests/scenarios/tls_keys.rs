//! Keys: where they come from, which are refused, and that nobody gets to see them.

use std::{fs, path::PathBuf};

use lab::{Agent, App, Certificate, Curl, Intercept, Kind, Lab, eventually};

use crate::{
    scene::{ALICE, LOCAL, PORT, for_alice, in_lab},
    tls::{TlsScene, https, with_keys},
};

const FILES: [&str; 2] = ["/tls/cert.pem", "/tls/key.pem"];

/// The app in a root directory of its own, with its certificate in it.
fn app_in_root(lab: &Lab, certificate: &Certificate) -> (App, PathBuf) {
    let root = lab.directory().join("root");
    certificate.copy_to(&root.join("tls"));
    (App::echo_in_root(lab, &lab.pod, &root, "app", &[PORT], &["--tls", FILES[0], FILES[1]]), root)
}

fn with_files(intercept: Intercept, certificate: &str, key: &str) -> Intercept {
    let inside = |path| format!("target:{path}");
    let intercept = intercept.argument("--tls-cert").argument(&inside(certificate));
    intercept.argument("--tls-key").argument(&inside(key))
}

fn alice_answers(lab: &Lab, certificate: &Certificate) -> bool {
    let curl = https(Curl::on(&lab.client), lab, certificate, PORT, "/whoami", &[], &[ALICE]);
    curl.output().stdout.contains("\"served_by\": \"alice\"")
}

#[test]
fn keys_are_read_from_the_targets_own_files() {
    in_lab(|lab| {
        let certificate = Certificate::new(lab, &["pod.test"], Kind::Ecdsa);
        let (app, root) = app_in_root(lab, &certificate);
        let _alice_app = App::echo(lab, &lab.dev, "alice", &[LOCAL]);
        let agent = Agent::start(lab);
        // As secrets are mounted in pods: links to links, from the root of the pod.
        std::os::unix::fs::symlink("/tls/key.pem", root.join("tls/current")).unwrap();
        for target in [lab.pod.netns.target(), format!("pid:{}", app.process().pid())] {
            let alice =
                with_files(for_alice(lab, &agent), FILES[0], "/tls/current").target(&target).start(lab);
            assert!(!alice.log().contains("warning"), "{}", alice.log());
            assert!(alice_answers(lab, &certificate), "{target}");
        }
    });
}

#[test]
fn no_path_leads_out_of_the_target() {
    in_lab(|lab| {
        let certificate = Certificate::new(lab, &["pod.test"], Kind::Ecdsa);
        let (_app, root) = app_in_root(lab, &certificate);
        let agent = Agent::start(lab);
        // The very key that would fit, outside of the root.
        let outside = certificate.files()[1].clone();
        std::os::unix::fs::symlink(&outside, root.join("tls/absolute")).unwrap();
        let up = "../".repeat(20);
        std::os::unix::fs::symlink(format!("{up}{outside}"), root.join("tls/relative")).unwrap();
        std::os::unix::fs::symlink("/proc/1/root", root.join("tls/magic")).unwrap();
        let with_key = |path: &str| {
            let intercept = for_alice(lab, &agent).argument("--tls-cert").argument(&certificate.files()[0]);
            intercept.argument("--tls-key").argument(&format!("target:{path}")).refused()
        };
        let around = [format!("/{up}{outside}"), format!("/tls/magic{outside}")];
        for path in ["/tls/absolute", "/tls/relative", &outside, &around[0], &around[1]] {
            let refusal = with_key(path);
            assert!(refusal.stderr.contains("No such file"), "{path}: {refusal:?}");
        }
        for path in ["/tls", "/no/such/file", "/echo.py"] {
            let refusal = with_key(path);
            assert!(refusal.stderr.contains("inside the target"), "{path}: {refusal:?}");
        }
    });
}

#[test]
fn a_certificate_that_is_replaced_in_the_target_is_followed() {
    in_lab(|lab| {
        let old = Certificate::new(lab, &["pod.test"], Kind::Ecdsa);
        let (app, root) = app_in_root(lab, &old);
        let _alice_app = App::echo(lab, &lab.dev, "alice", &[LOCAL]);
        let agent = Agent::start(lab);
        let _alice = with_files(for_alice(lab, &agent), FILES[0], FILES[1]).start(lab);
        assert!(alice_answers(lab, &old));

        let new = Certificate::new(lab, &["pod.test"], Kind::Rsa);
        drop(app);
        new.copy_to(&root.join("tls"));
        let _app = App::echo_in_root(lab, &lab.pod, &root, "app", &[PORT], &["--tls", FILES[0], FILES[1]]);
        eventually("alice answers in the name of the new certificate", || alice_answers(lab, &new));
    });
}

#[test]
fn keys_that_can_not_be_used_are_refused_with_the_reason() {
    in_lab(|lab| {
        let agent = Agent::start(lab);
        let [certificate, other] = [0, 1].map(|_| Certificate::new(lab, &["pod.test"], Kind::Ecdsa).files());
        let junk = lab.directory().join("junk").to_string_lossy().into_owned();
        fs::write(&junk, "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n").unwrap();
        for (file, key, reason) in [
            (&certificate[0], &other[1], "does not belong to the certificate"),
            (&certificate[1], &certificate[1], "no certificate"),
            (&certificate[0], &certificate[0], "no private key"),
            (&certificate[0], &junk, "can't be used"),
            (&certificate[0], &"/no/such/file".to_owned(), "/no/such/file"),
        ] {
            let intercept = for_alice(lab, &agent).argument("--tls-cert").argument(file);
            let refusal = intercept.argument("--tls-key").argument(key).refused();
            assert!(refusal.stderr.contains(reason), "{reason}: {refusal:?}");
            assert!(!refusal.stderr.contains("c2VjcmV0"), "{refusal:?}");
        }
        assert_eq!(agent.list().len(), 0);
    });
}

#[test]
fn keys_in_the_forms_that_openssl_wrote_before_are_taken() {
    in_lab(|lab| {
        let agent = Agent::start(lab);
        for (kind, script, form) in [
            (Kind::Rsa, "openssl rsa -traditional", "BEGIN RSA PRIVATE KEY"),
            (Kind::Ecdsa, "openssl ecparam -name prime256v1; openssl ec", "BEGIN EC PRIVATE KEY"),
        ] {
            let [certificate, key] = Certificate::new(lab, &["pod.test"], kind).files();
            let old = format!("{key}.old");
            let mut command = std::process::Command::new("sh");
            let output = command.args(["-c", &format!("({script} -in {key}) > {old}")]).output().unwrap();
            assert!(fs::read_to_string(&old).unwrap().contains(form), "{output:?}");
            let intercept = for_alice(lab, &agent).argument("--tls-cert").argument(&certificate);
            let _alice = intercept.argument("--tls-key").argument(&old).start(lab);
        }
    });
}

#[test]
fn nobody_is_shown_a_key() {
    in_lab(|lab| {
        let scene = TlsScene::new(lab, Kind::Ecdsa);
        scene.assert_routing();
        let secret = scene.certificate.secret();
        for command in ["list", "status"] {
            let texts = [scene.agent.run(&[command]).stdout, scene.agent.json(&[command]).to_string()];
            assert!(texts.iter().all(|text| !text.contains(&secret)), "{texts:?}");
        }
        for file in fs::read_dir(scene.agent.state_directory()).unwrap().flatten() {
            let content = fs::read(file.path()).unwrap_or_default();
            assert!(!String::from_utf8_lossy(&content).contains(&secret), "{:?}", file.path());
        }
        assert!(!scene.agent.log().contains(&secret) && !scene.alice.log().contains(&secret));
    });
}

#[test]
fn a_certificate_needs_its_key() {
    in_lab(|lab| {
        let certificate = Certificate::new(lab, &["pod.test"], Kind::Ecdsa);
        let [file, _] = certificate.files();
        let agent = Agent::start(lab);
        let once = with_keys(for_alice(lab, &agent), &[&certificate]);
        let refusal = once.argument("--tls-cert").argument(&file).refused();
        assert!(refusal.stderr.contains("--tls-key"), "{refusal:?}");
    });
}
