//! Which requests carry the context.

use lab::{Agent, AgentOptions, App, Developer, Intercept, Lab};

use crate::scene::{LOCAL, PORT, in_lab, intercepted_by_each_datapath, who_answers, who_answers_curl};

#[test]
fn a_header_matches_by_any_of_its_lines_and_in_any_case_of_its_name() {
    intercepted_by_each_datapath(|scene| {
        let lab = scene.lab;
        for header in ["X-DEV: alice", "x-dev:alice", "x-dev: \t alice \t", "x-dev: bob\r\nX-Dev: alice"] {
            assert_eq!(who_answers(lab, header), "alice", "{header:?}");
        }
        for header in
            ["x-dev: Alice", "x-dev: alice2", "x-dev: \"alice\"", "x-dev2: alice", "x-de: alice", "x-dev:"]
        {
            assert_eq!(who_answers(lab, header), "app", "{header:?}");
        }
    });
}

#[test]
fn all_headers_of_an_intercept_must_match() {
    in_lab(|lab| {
        let (_app, _alice_app) =
            (App::echo(lab, &lab.pod, "app", &[PORT]), App::echo(lab, &lab.dev, "alice", &[LOCAL]));
        let agent = Agent::start(lab);
        let both = Intercept::new(lab, &agent, PORT, LOCAL).header("x-dev", "alice").header("x-team", "red");
        let _alice = both.start(lab);
        assert_eq!(who_answers(lab, "x-team: red\r\nx-dev: alice"), "alice");
        assert_eq!(who_answers(lab, "x-dev: alice"), "app");
        assert_eq!(who_answers(lab, "x-team: red"), "app");
    });
}

#[test]
fn a_catch_all_takes_every_request() {
    in_lab(|lab| {
        let (_app, _alice_app) =
            (App::echo(lab, &lab.pod, "app", &[PORT]), App::echo(lab, &lab.dev, "alice", &[LOCAL]));
        let agent = Agent::start_with(lab, &AgentOptions::allow_all());
        let alice = Intercept::new(lab, &agent, PORT, LOCAL).argument("--all").start(lab);
        assert_eq!(who_answers(lab, "x-any: thing"), "alice");
        assert!(alice.interrupt().success());
        assert_eq!(who_answers(lab, "x-any: thing"), "app");
    });
}

#[test]
fn an_intercept_without_a_matcher_gets_a_key_that_matches_three_ways() {
    in_lab(|lab| {
        let (_app, _alice_app) =
            (App::echo(lab, &lab.pod, "app", &[PORT]), App::echo(lab, &lab.dev, "alice", &[LOCAL]));
        let agent = Agent::start(lab);
        let mut alice = Intercept::new(lab, &agent, PORT, LOCAL).start(lab);
        let key = random_key(&mut alice);
        assert!(key.len() >= 8, "not to be guessed or hit by chance: {key:?}");

        let traceparent = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        for header in [
            format!("x-redirector-intercept: {key}"),
            format!("baggage: redirector={key}"),
            format!("baggage: a=b;p=q , redirector = {key} ;x"),
            format!("baggage: a=b\r\nbaggage: redirector={key}"),
            format!("{traceparent}\r\ntracestate: redirector={key}"),
            format!("{traceparent}\r\ntracestate: a=b,,redirector={key}"),
        ] {
            assert_eq!(who_answers(lab, &header), "alice", "{header:?}");
        }
        for header in [
            format!("x-redirector-intercept: {key}0"),
            format!("baggage: redirector={key}0"),
            format!("baggage: other={key}"),
            format!("{traceparent}\r\ntracestate: other={key}"),
        ] {
            assert_eq!(who_answers(lab, &header), "app", "{header:?}");
        }
    });
}

#[test]
fn every_random_key_is_another_one() {
    in_lab(|lab| {
        let _app = App::echo(lab, &lab.pod, "app", &[PORT]);
        let agent = Agent::start(lab);
        let mut one = Intercept::new(lab, &agent, PORT, LOCAL).name("one").start(lab);
        let mut two = Intercept::new(lab, &agent, PORT, LOCAL).name("two").start(lab);
        assert_ne!(random_key(&mut one), random_key(&mut two));
    });
}

#[test]
fn a_header_regex_takes_whole_values_of_any_line() {
    with_flags(&["--header-regex", "x-dev=al.*|bob"], |lab| {
        for header in ["x-dev: alice", "X-DEV: al", "x-dev: bob", "x-dev: carol\r\nx-dev:  alice "] {
            assert_eq!(who_answers(lab, header), "alice", "{header:?}");
        }
        for header in ["x-dev: bobby", "x-dev: a bob", "x-dev: Alice", "x-dev2: alice", "x-dev:"] {
            assert_eq!(who_answers(lab, header), "app", "{header:?}");
        }
    });
}

#[test]
fn baggage_is_compared_decoded_and_with_all_its_lines() {
    with_flags(&["--baggage", "user=Am\u{e9}lie B"], |lab| {
        for headers in [
            &["baggage: user=Am%C3%A9lie%20B"][..],
            &["baggage: user = %41m%c3%a9lie%20B ;p=q, a=b"],
            &["baggage: a=b", "Baggage: user=Am%C3%A9lie%20B"],
        ] {
            assert_eq!(who_answers_curl(lab, &as_arguments(headers), "/"), "alice", "{headers:?}");
        }
        for headers in [
            &["baggage: user=Am%C3%A9lie"][..],
            &["baggage: user=Amelie%20B"],
            &["baggage: User=Am%C3%A9lie%20B"],
            &["baggage: a=b;user=Am%C3%A9lie%20B"],
            &["user: Am%C3%A9lie%20B"],
        ] {
            assert_eq!(who_answers_curl(lab, &as_arguments(headers), "/"), "app", "{headers:?}");
        }
    });
}

#[test]
fn trace_state_is_compared_with_all_its_lines() {
    with_flags(&["--tracestate", "vendor=alice"], |lab| {
        let traceparent = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        for headers in [
            &[traceparent, "tracestate: a=b,vendor=alice"][..],
            &[traceparent, "tracestate: a=b", "TraceState: ,vendor=alice ,"],
        ] {
            assert_eq!(who_answers_curl(lab, &as_arguments(headers), "/"), "alice", "{headers:?}");
        }
        for headers in [
            &[traceparent, "tracestate: vendor=al"][..],
            &[traceparent, "tracestate: vendor=alice2"],
            &[traceparent, "tracestate: vendor= alice"],
            &["baggage: vendor=alice"],
        ] {
            assert_eq!(who_answers_curl(lab, &as_arguments(headers), "/"), "app", "{headers:?}");
        }
    });
}

#[test]
fn a_path_is_taken_with_any_query_and_in_any_spelling() {
    with_flags(&["--path", "/caf\u{e9}/menu"], |lab| {
        for path in ["/caf%C3%A9/menu", "/caf%c3%a9/menu?x=/y", "/x/../%63af%C3%A9/./menu"] {
            assert_eq!(who_answers_curl(lab, &["--path-as-is"], path), "alice", "{path}");
        }
        for path in ["/", "/caf%C3%A9/menu/", "/caf%C3%A9/menus", "/caf%C3%A9%2Fmenu", "/?/caf%C3%A9/menu"] {
            assert_eq!(who_answers_curl(lab, &["--path-as-is"], path), "app", "{path}");
        }
    });
}

#[test]
fn a_path_prefix_is_taken_by_whole_elements() {
    with_flags(&["--path-prefix", "/api"], |lab| {
        for path in ["/api", "/api/", "/api/cart?x", "/api?x"] {
            assert_eq!(who_answers_curl(lab, &[], path), "alice", "{path}");
        }
        for path in ["/", "/apix", "/ap", "/x/api", "/api/../x", "/?/api"] {
            assert_eq!(who_answers_curl(lab, &["--path-as-is"], path), "app", "{path}");
        }
        // What a client sends to a proxy, and what it sends to no path at all.
        let url = "http://shop.test/api/cart";
        assert_eq!(who_answers_curl(lab, &["--request-target", url], "/"), "alice");
        assert_eq!(who_answers_curl(lab, &["--request-target", "*", "-X", "OPTIONS"], "/"), "app");
    });
}

#[test]
fn a_path_regex_takes_whole_paths() {
    with_flags(&["--path-regex", "/v[12]/users/[0-9]+"], |lab| {
        for path in ["/v1/users/7", "/v2/users/42?x=y"] {
            assert_eq!(who_answers_curl(lab, &[], path), "alice", "{path}");
        }
        for path in ["/v3/users/7", "/v1/users/7/x", "/x/v1/users/7", "/v1/users/"] {
            assert_eq!(who_answers_curl(lab, &[], path), "app", "{path}");
        }
    });
}

#[test]
fn one_of_several_methods_is_enough() {
    with_flags(&["--method", "POST", "--method", "PURGE"], |lab| {
        for method in ["POST", "PURGE"] {
            assert_eq!(who_answers_curl(lab, &["-X", method], "/"), "alice", "{method}");
        }
        for method in ["GET", "PUT", "post", "POSTS"] {
            assert_eq!(who_answers_curl(lab, &["-X", method], "/"), "app", "{method}");
        }
    });
}

#[test]
fn flags_of_different_kinds_must_all_hold() {
    let flags =
        ["--header", "x-dev=alice", "--baggage", "team=red", "--path-prefix", "/api", "--method", "POST"];
    with_flags(&flags, |lab| {
        let all = ["-X", "POST", "-H", "x-dev: alice", "-H", "baggage: team=red"];
        assert_eq!(who_answers_curl(lab, &all, "/api/x"), "alice");
        assert_eq!(who_answers_curl(lab, &all, "/x"), "app");
        for missing in [0..2, 2..4, 4..6] {
            let some = [&all[..missing.start], &all[missing.end..]].concat();
            assert_eq!(who_answers_curl(lab, &some, "/api/x"), "app", "{some:?}");
        }
    });
}

/// The echo app in the pod, intercepted_by_each_datapath with these flags for alice.
fn with_flags(flags: &[&str], body: impl FnOnce(&Lab)) {
    in_lab(|lab| {
        let (_app, _alice_app) =
            (App::echo(lab, &lab.pod, "app", &[PORT]), App::echo(lab, &lab.dev, "alice", &[LOCAL]));
        let agent = Agent::start(lab);
        let intercept = flags
            .iter()
            .fold(Intercept::new(lab, &agent, PORT, LOCAL), |intercept, flag| intercept.argument(flag));
        let _alice = intercept.start(lab);
        body(lab);
    });
}

/// Header lines as curl's arguments.
fn as_arguments<'a>(headers: &[&'a str]) -> Vec<&'a str> {
    headers.iter().flat_map(|header| ["-H", header]).collect()
}

/// The key, from the curl line that the command prints.
#[track_caller]
fn random_key(developer: &mut Developer) -> String {
    const HEADER: &str = "x-redirector-intercept: ";
    let line = developer.wait_for_line(HEADER);
    assert!(line.contains("curl"), "a line to paste: {line:?}");
    let (_, rest) = line.split_once(HEADER).unwrap();
    rest.chars().take_while(char::is_ascii_alphanumeric).collect()
}
