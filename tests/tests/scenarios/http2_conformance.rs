//! h2spec, a public suite for HTTP/2 servers, against the agent's live route.

use std::{collections::BTreeSet, fs};

use lab::{Agent, App, CommandOutput, Lab, h2spec};

use crate::http2::port_counts;
use crate::scene::{DIRECT, PORT, for_alice, in_lab};

/// Where nghttpx stands before the same server.
const PROXY: u16 = 8082;

/// Cases that fail through the agent although server and proxy pass them, and why that is right.
const EXCEPTIONS: &[(&str, &str)] = &[];

#[test]
fn nothing_fails_through_the_agent_that_does_not_fail_without_it() {
    in_lab(|lab| {
        let _app = App::nghttpd(lab, &lab.pod, &[PORT, DIRECT]);
        let _proxy = App::nghttpx(lab, &lab.pod, PROXY, DIRECT);
        let agent = Agent::start(lab);
        let _alice = for_alice(lab, &agent).start(lab);

        let alone = failures(lab, DIRECT);
        let proxy = failures(lab, PROXY);
        let through = failures(lab, PORT);
        println!("fails alone: {alone:#?}\nbehind nghttpx: {proxy:#?}\nthrough the agent: {through:#?}");
        let excepted: BTreeSet<String> = EXCEPTIONS.iter().map(|(case, _)| (*case).to_owned()).collect();
        let new: Vec<_> =
            through.iter().filter(|case| !alone.contains(*case) && !proxy.contains(*case)).collect();
        let unexpected: Vec<_> = new.iter().filter(|case| !excepted.contains(**case)).collect();
        assert!(
            unexpected.is_empty(),
            "new failures: {unexpected:#?}\nalone: {alone:#?}\nnghttpx: {proxy:#?}"
        );
        let stale: Vec<_> = excepted.iter().filter(|case| !through.contains(*case)).collect();
        assert!(stale.is_empty(), "exceptions that are none any more: {stale:#?}");

        let counts = port_counts(&agent);
        assert!(counts["requests"]["h2"]["live"].as_u64() > Some(100), "the agent has routed: {counts}");
    });
}

/// The cases that fail at a port of the pod, as `SECTION: TITLE`.
#[track_caller]
fn failures(lab: &Lab, port: u16) -> BTreeSet<String> {
    let report = lab.directory().join(format!("h2spec-{port}.xml"));
    let mut command = lab.client.netns.command(&h2spec().to_string_lossy());
    command
        .args(["--host", &lab.pod.v4.to_string(), "--port", &port.to_string(), "--junit-report"])
        .arg(&report);
    let output = CommandOutput::of(&mut command);
    let report =
        fs::read_to_string(&report).unwrap_or_else(|error| panic!("no report ({error}): {output:?}"));
    let cases: Vec<&str> = report.split("<testcase ").skip(1).collect();
    assert!(cases.len() > 100, "h2spec ran {} cases: {output:?}", cases.len());
    let failed = cases.iter().filter(|case| case.contains("<failure>") || case.contains("<error>"));
    failed.map(|case| format!("{}: {}", attribute(case, "package"), attribute(case, "classname"))).collect()
}

/// The value of an attribute of an XML element.
fn attribute<'a>(element: &'a str, name: &str) -> &'a str {
    let (_, rest) = element.split_once(&format!("{name}=\"")).expect("the attribute");
    rest.split_once('"').expect("its end").0
}
