//! The gateway is killed again and again while previews come and go.

use std::{collections::BTreeMap, sync::Mutex, thread, time::Duration};

use lab::{Curl, Gateway, GatewayOptions, Lab, eventually};
use serde_json::{Value, json};

use crate::{
    gateway::visit,
    scene::{in_lab, text},
};

const CREATIONS: usize = 1000;
const CALLERS: usize = 4;

/// What callers know of a preview.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Known {
    /// The gateway said that it is there.
    There { link: String },
    /// The gateway said that it is removed.
    Gone { link: String },
    /// A removal was asked for, and the gateway died: either is right.
    Unsure,
}

#[test]
fn a_kill_at_any_moment_loses_nothing_that_was_acknowledged() {
    in_lab(|lab| {
        let lab: &Lab = lab;
        let options = GatewayOptions::new(lab.node.at(9)).with(&["--public-url", "http://gateway.test"]);
        let first = Gateway::start(lab, &options);
        let [_, address, _, token] = first.connection();
        let token = std::fs::read_to_string(token).expect("the token").trim().to_owned();
        let mut gateway = Some(first);
        let ledger: Mutex<BTreeMap<String, Known>> = Mutex::default();
        let call = |method: &str, path: &str, body: Option<&Value>| {
            let url = format!("https://{address}{path}");
            let body = body.map(Value::to_string).unwrap_or_default();
            let mut arguments = vec!["--insecure", "--request", method, "--max-time", "10"];
            if !body.is_empty() {
                arguments.extend(["--data", &body]);
            }
            let authorization = format!("authorization: Bearer {token}");
            let output = Curl::on(&lab.dev).request(&url, &arguments, &[&authorization]).output();
            let mut parts = output.stdout.split('\u{1}');
            let (body, facts) =
                (parts.next().unwrap_or_default().to_owned(), parts.next().unwrap_or_default());
            let status = facts.split(' ').next().and_then(|status| status.parse::<u16>().ok()).unwrap_or(0);
            // An answer that broke off says nothing.
            (if output.code == Some(0) { status } else { 0 }, body)
        };
        let kills = thread::scope(|scope| {
            let callers: Vec<_> = (0..CALLERS)
                .map(|caller| {
                    let (ledger, call) = (&ledger, &call);
                    scope.spawn(move || {
                        let know =
                            |name: &str, known| drop(ledger.lock().unwrap().insert(name.to_owned(), known));
                        for number in (caller..CREATIONS).step_by(CALLERS) {
                            let (name, link) = create(call, number);
                            know(&name, Known::There { link: link.clone() });
                            if number % 2 == 0 {
                                know(&name, Known::Unsure);
                                match call("DELETE", &format!("/v1/previews/{name}"), None) {
                                    (204, _) => know(&name, Known::Gone { link }),
                                    (0, _) => {}
                                    other => panic!("{other:?}"),
                                }
                            }
                        }
                    })
                })
                .collect();
            // On this thread: what a thread starts ends with it.
            let mut kills = 0;
            while !callers.iter().all(thread::ScopedJoinHandle::is_finished) {
                // Long enough for some calls, of another length each time.
                thread::sleep(Duration::from_millis(150 + 37 * (kills % 11)));
                gateway.take().expect("a gateway").kill();
                gateway = Some(Gateway::start(lab, &options));
                kills += 1;
            }
            for caller in callers {
                caller.join().expect("a caller");
            }
            kills
        });
        let gateway = gateway.expect("a gateway");
        let ledger = ledger.into_inner().unwrap();
        assert!(kills >= 10 && ledger.len() == CREATIONS, "{kills} kills, {} acknowledged", ledger.len());
        let list: Vec<String> = gateway.list(&lab.dev).iter().map(|preview| text(preview, "name")).collect();
        let mut asked = Curl::on(&lab.client);
        let mut expected = Vec::new();
        for (name, known) in &ledger {
            match known {
                Known::There { link } => {
                    assert!(list.contains(name), "{name} was created and is gone");
                    asked = asked.request(&at(&gateway, link), &[], &["host: gateway.test"]);
                    expected.push((name, 303));
                }
                Known::Gone { link } => {
                    assert!(!list.contains(name), "{name} was removed and is back");
                    asked = asked.request(&at(&gateway, link), &[], &["host: gateway.test"]);
                    expected.push((name, 410));
                }
                Known::Unsure => {}
            }
        }
        for (answer, (name, status)) in asked.answers().into_iter().zip(expected) {
            assert_eq!(answer.status, status, "{name}");
        }
        eventually("visitors are served", || {
            visit(&lab.client, &gateway, "http://gateway.test/", &[], &[]).status == 502
        });
    });
}

/// Asks until a creation is acknowledged, each time under another name: what was not may be there all the same. Gives
/// name and link.
fn create(
    call: &(impl Fn(&str, &str, Option<&Value>) -> (u16, String) + Sync),
    number: usize,
) -> (String, String) {
    for attempt in 0..10_000 {
        let name = format!("p{number}-{attempt}");
        let matcher = json!({ "conditions": [{ "key": format!("abcdefghijklm{number:05}") }] });
        let request = json!({ "name": name, "owner": "alice", "matcher": matcher });
        match call("POST", "/v1/previews", Some(&request)) {
            (200, body) => {
                let created: Value = serde_json::from_str(&body).expect("JSON");
                return (name, text(&created, "share_link"));
            }
            (0, _) => thread::sleep(Duration::from_millis(20)),
            other => panic!("{other:?}"),
        }
    }
    panic!("the gateway acknowledges nothing");
}

/// A share link, at the gateway's address.
fn at(gateway: &Gateway, link: &str) -> String {
    format!("http://{}{}", gateway.address(), &link[link.find("/_p/").expect("a path")..])
}
