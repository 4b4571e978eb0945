//! Conditions together, and as JSON.

use redirector::context::{
    BaggageCondition, Condition, ConditionError, HeaderCondition, MAX_CONDITIONS, Matcher,
    TracestateCondition,
};

use crate::{ask, ask_for, matcher, methods, typed};

#[test]
fn all_conditions_must_hold_and_none_means_all_requests() {
    let both = matcher(&[typed("x-user=alice", Condition::Header), typed("team=red", Condition::Baggage)]);
    assert!(ask(&["x-user: alice", "baggage: team=red"], |request| both.matches(request)));
    assert!(!ask(&["x-user: alice"], |request| both.matches(request)));
    assert!(!ask(&["baggage: team=red"], |request| both.matches(request)));
    assert!(!ask(&[], |request| both.matches(request)));
    assert!(ask(&[], |request| Matcher::default().matches(request)));
    assert_eq!(both.to_string(), "header x-user=alice and baggage team=red");
    assert_eq!(Matcher::default().to_string(), "all requests");
}

#[test]
fn conditions_of_all_kinds_combine() {
    let every = matcher(&[
        typed("x-user=alice", Condition::Header),
        typed("x-team=r.*", Condition::HeaderRegex),
        typed("user=alice", Condition::Baggage),
        typed("vendor=1", Condition::Tracestate),
        typed("okteto=ns", Condition::Preset),
        typed("/api", Condition::PathPrefix),
        methods(&["GET", "POST"]),
    ]);
    let lines =
        ["X-User: alice", "X-Team: red", "baggage: user=alice, okteto-divert=ns", "tracestate: vendor=1"];
    let holds = |method: &str, target: &str, lines: &[&str]| {
        ask_for(method, target, lines, |request| every.matches(request))
    };
    assert!(holds("POST", "/api/x?y", &lines));
    assert!(!holds("PUT", "/api/x", &lines) && !holds("POST", "/x", &lines));
    for missing in 0..lines.len() {
        let mut fewer = lines.to_vec();
        fewer.remove(missing);
        assert!(!holds("POST", "/api/x", &fewer), "without {}", lines[missing]);
    }
}

#[test]
fn what_takes_everybody_s_requests_counts_as_a_catch_all() {
    let prefix = |path: &str| typed(path, Condition::PathPrefix);
    let regex = |pattern: &str| typed(pattern, Condition::PathRegex);
    for all in [
        matcher(&[]),
        matcher(&[prefix("/")]),
        matcher(&[prefix("//")]),
        matcher(&[regex(".*")]),
        matcher(&[regex("/.*")]),
        matcher(&[regex("(?s)/?.*|x")]),
        matcher(&[prefix("/"), regex("/.*")]),
    ] {
        assert!(all.is_catch_all(), "{all}");
    }
    for some in [
        matcher(&[prefix("/api")]),
        matcher(&[regex("/api/.*")]),
        matcher(&[regex("/[a-z]*")]),
        matcher(&[typed("/", Condition::Path)]),
        matcher(&[prefix("/"), typed("x=1", Condition::Header)]),
        matcher(&[methods(&["GET"])]),
    ] {
        assert!(!some.is_catch_all(), "{some}");
    }
}

#[test]
fn errors_say_what_to_do() {
    use ConditionError::*;
    let name = || "x-user".to_owned();
    assert_eq!("x-user".parse::<HeaderCondition>(), Err(NoEqualsSign(name())));
    assert_eq!("=alice".parse::<HeaderCondition>(), Err(EmptyName));
    assert_eq!("x-user=".parse::<HeaderCondition>(), Err(EmptyValue { name: name() }));
    assert_eq!("x-user= \t".parse::<HeaderCondition>(), Err(EmptyValue { name: name() }));
    for value in ["a\r\nb", "a\rb", "a\nb", "a\0b", "a\x7fb", "\r\n"] {
        let error = HeaderCondition::new("x-user", value).unwrap_err();
        assert_eq!(error, ControlCharacter { name: name() }, "{value:?}");
        assert!(BaggageCondition::new("k", value).is_err() && TracestateCondition::new("k", value).is_err());
    }
    for bad in ["x user", "x-user:", "x\u{e9}", "a,b", "\"x\"", " x-user"] {
        assert_eq!(HeaderCondition::new(bad, "1"), Err(HeaderName(bad.to_owned())));
        assert_eq!(BaggageCondition::new(bad, "1"), Err(BaggageKey(bad.to_owned())));
        assert_eq!(TracestateCondition::new(bad, "1"), Err(TracestateKey(bad.to_owned())));
    }
    assert_eq!(
        NoEqualsSign(name()).to_string(),
        "`x-user` has no `=`: write NAME=VALUE, for example x-user=alice"
    );
}

#[test]
fn names_and_values_have_limits() {
    let (name, value) = ("n".repeat(257), "v".repeat(4097));
    assert!(HeaderCondition::new(&name[1..], &value[1..]).is_ok());
    for error in [
        HeaderCondition::new(&name, "1").unwrap_err(),
        HeaderCondition::new("x", &value).unwrap_err(),
        BaggageCondition::new(&name, "1").unwrap_err(),
        BaggageCondition::new("x", &value).unwrap_err(),
        format!("okteto={value}").parse::<redirector::context::PresetCondition>().unwrap_err(),
    ] {
        assert!(matches!(error, ConditionError::TooLong { .. }), "{error}");
        assert!(error.to_string().len() < 100, "the text is not in the message: {error}");
    }
}

#[test]
fn conditions_travel_as_readable_json() {
    let matcher = matcher(&[
        typed("X-User=alice", Condition::Header),
        typed("X-User=al.*", Condition::HeaderRegex),
        typed("user=Am\u{e9}lie", Condition::Baggage),
        typed("vendor=1", Condition::Tracestate),
        typed("/cart/./", Condition::Path),
        typed("/api/", Condition::PathPrefix),
        typed("/v[12]/.*", Condition::PathRegex),
        methods(&["POST", "GET"]),
        typed("signadot=k1", Condition::Preset),
        typed("abcdefghijklmnopqrstuvwxyz", Condition::Key),
    ]);
    let json = serde_json::json!({"conditions": [
        {"header": {"name": "x-user", "value": "alice"}},
        {"header_regex": {"name": "x-user", "pattern": "al.*"}},
        {"baggage": {"key": "user", "value": "Am\u{e9}lie"}},
        {"tracestate": {"key": "vendor", "value": "1"}},
        {"path": "/cart/"},
        {"path_prefix": "/api"},
        {"path_regex": "/v[12]/.*"},
        {"methods": ["GET", "POST"]},
        {"preset": {"tool": "signadot", "key": "k1"}},
        {"key": "abcdefghijklmnopqrstuvwxyz"},
    ]});
    assert_eq!(serde_json::to_value(&matcher).unwrap(), json);
    assert_eq!(serde_json::from_value::<Matcher>(json).unwrap(), matcher);
}

#[test]
fn json_is_checked_like_the_command_line() {
    for bad in [
        // Nobody gets all requests by leaving something out.
        r#"{}"#,
        r#"{"conditions": null}"#,
        r#"{"conditions": [], "all": true}"#,
        r#"{"conditions": [{}]}"#,
        r#"{"conditions": [{"header": {"name": "x user", "value": "1"}}]}"#,
        r#"{"conditions": [{"header": {"name": "x-user", "value": ""}}]}"#,
        r#"{"conditions": [{"header": {"name": "x-user", "value": "a\r\nb"}}]}"#,
        r#"{"conditions": [{"header": {"name": "x-user", "value": "a", "regex": true}}]}"#,
        r#"{"conditions": [{"header": {"name": "a", "value": "b"}, "path": "/"}]}"#,
        r#"{"conditions": [{"header_regex": {"name": "a", "pattern": "("}}]}"#,
        r#"{"conditions": [{"header_regex": {"name": "a", "value": "b"}}]}"#,
        r#"{"conditions": [{"headerregex": {"name": "a", "pattern": "b"}}]}"#,
        r#"{"conditions": [{"baggage": {"key": "a b", "value": "1"}}]}"#,
        r#"{"conditions": [{"tracestate": {"key": "A", "value": "1"}}]}"#,
        r#"{"conditions": [{"path": "cart"}]}"#,
        r#"{"conditions": [{"path": {"value": "/cart"}}]}"#,
        r#"{"conditions": [{"path_prefix": "/a?b"}]}"#,
        r#"{"conditions": [{"path_regex": ""}]}"#,
        r#"{"conditions": [{"methods": []}]}"#,
        r#"{"conditions": [{"methods": ["get"]}]}"#,
        r#"{"conditions": [{"methods": "GET"}]}"#,
        r#"{"conditions": [{"preset": {"tool": "none", "key": "k"}}]}"#,
        r#"{"conditions": [{"preset": {"tool": "okteto", "key": "k", "header": "x"}}]}"#,
        r#"{"conditions": [{"preset": {"tool": "lapdev", "key": "a,b"}}]}"#,
        r#"{"conditions": [{"key": "short"}]}"#,
        r#"{"conditions": [{"cookie": {"name": "a", "value": "1"}}]}"#,
    ] {
        assert!(serde_json::from_str::<Matcher>(bad).is_err(), "{bad}");
    }
    let error = serde_json::from_str::<Condition>(r#"{"header": {"name": "a", "value": ""}}"#).unwrap_err();
    assert!(error.to_string().contains("write a=VALUE"), "{error}");
}

#[test]
fn a_matcher_has_at_most_32_conditions() {
    let json = |conditions: usize| {
        let list: Vec<String> =
            (0..conditions).map(|number| format!(r#"{{"path_regex": "/{number}"}}"#)).collect();
        format!(r#"{{"conditions": [{}]}}"#, list.join(","))
    };
    let most: Matcher = serde_json::from_str(&json(MAX_CONDITIONS)).unwrap();
    assert_eq!(most.conditions.len(), 32);
    let error = serde_json::from_str::<Matcher>(&json(MAX_CONDITIONS + 1)).unwrap_err();
    assert!(error.to_string().contains("at most 32"), "{error}");
}
