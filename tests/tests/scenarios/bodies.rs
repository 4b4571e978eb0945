//! Large bodies come through whole, and a slow one slows down nobody else.

use std::{fs, fs::File, io, io::Read, path::Path, process::Command};

use lab::{Agent, App, Curl, Family, Lab, Process};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::scene::{
    DIRECT, LOCAL, PORT, Route, for_alice, in_lab, intercepted_by_each_datapath, text, who_answers,
};

const SIZE: u64 = 100 << 20;

#[test]
fn a_hundred_mebibytes_come_down_unchanged_on_both_routes() {
    in_lab(|lab| {
        let (file, digest) = random_file(lab, SIZE);
        let file = file.as_str();
        let _app = App::echo_with(lab, &lab.pod, "app", &[PORT, DIRECT], &["--file", file]);
        let _alice_app = App::echo_with(lab, &lab.dev, "alice", &[LOCAL], &["--file", file]);
        let agent = Agent::start(lab);
        let _alice = for_alice(lab, &agent).start(lab);
        for family in Family::BOTH {
            for route in Route::BOTH {
                let to = std::net::SocketAddr::new(lab.pod.ip(family), PORT);
                let path = lab.directory().join("down").to_string_lossy().into_owned();
                let url = format!("http://{to}/file");
                // Who serves the file is asked on the same connection.
                let answers = Curl::on(&lab.client)
                    .request(&url, &["--output", &path], &[route.header()])
                    .get(to, "/whoami", &[route.header()])
                    .answers();
                assert_eq!((answers[0].status, answers[1].connects), (200, 0));
                assert!(answers[1].body.contains(route.server()), "{answers:?}");
                assert_eq!(sha256(&path), digest, "{family:?} {route:?}");
            }
        }
    });
}

#[test]
fn a_hundred_mebibytes_go_up_unchanged_on_both_routes() {
    intercepted_by_each_datapath(|scene| {
        let (file, digest) = random_file(scene.lab, SIZE);
        let url = format!("http://{}/", scene.lab.pod.at(PORT));
        for fields in [vec![], vec!["Transfer-Encoding: chunked"]] {
            for route in Route::BOTH {
                let headers = [fields.as_slice(), &[route.header()]].concat();
                let answer =
                    Curl::on(&scene.lab.client).request(&url, &["--upload-file", &file], &headers).answer();
                let report: Value = serde_json::from_str(&answer.body).expect("a report");
                assert_eq!(text(&report, "served_by"), route.server());
                assert_eq!(report["body_length"], SIZE);
                assert_eq!(text(&report, "body_sha256"), digest, "{route:?} {fields:?}");
            }
        }
    });
}

#[test]
fn a_developers_server_that_does_not_read_stalls_no_live_traffic() {
    intercepted_by_each_datapath(|scene| {
        let lab = scene.lab;
        let (file, digest) = random_file(lab, 20 << 20);
        let url = format!("http://{}/", lab.pod.at(PORT));
        scene.alice_app.process().signal(Signal::SIGSTOP);
        let mut uploads: Vec<Process> = (0..8)
            .map(|_| {
                let mut curl = lab.client.netns.command("curl");
                curl.args(["--silent", "--upload-file", &file, "--header", Route::Alice.header(), &url]);
                Process::spawn("upload", &mut curl, lab.logs())
            })
            .collect();
        for _ in 0..3 {
            let answer = Curl::on(&lab.client).request(&url, &["--upload-file", &file], &[]).answer();
            assert!(answer.body.contains(&digest), "{answer:?}");
            assert_eq!(who_answers(lab, Route::Live.header()), "app");
        }
        for upload in &mut uploads {
            assert!(upload.exited().is_none(), "alice's server has read nothing:\n{}", upload.log());
        }

        scene.alice_app.process().signal(Signal::SIGCONT);
        for upload in &mut uploads {
            let report = upload.wait_for_line("body_sha256");
            assert!(report.contains(&digest) && report.contains("alice"), "{report}");
            assert!(upload.wait().success());
        }
    });
}

/// A file of random bytes in the lab's directory, and its SHA-256 in hex.
fn random_file(lab: &Lab, size: u64) -> (String, String) {
    let path = lab.directory().join("random").to_string_lossy().into_owned();
    let mut source = File::open("/dev/urandom").unwrap().take(size);
    io::copy(&mut source, &mut File::create(&path).unwrap()).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().len(), size);
    let digest = sha256(&path);
    (path, digest)
}

fn sha256(path: impl AsRef<Path>) -> String {
    let output = Command::new("sha256sum").arg(path.as_ref()).output().unwrap();
    String::from_utf8(output.stdout).unwrap().split(' ').next().unwrap().to_owned()
}
