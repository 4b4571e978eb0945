//! The promises of context matching, on heads parsed as the router parses them.
#![allow(clippy::unwrap_used, reason = "test code, though not all within test functions")]

use std::str::FromStr;

use proptest::prelude::*;
use redirector::context::{
    BaggageCondition, Condition, ConditionError, HeaderCondition, InterceptKey, Matcher, TracestateCondition,
};
use redirector::http1::{RequestFramer, RequestStep, RequestView};

/// The answer of `question` about a request with these header lines.
fn ask(lines: &[&str], question: impl FnOnce(&RequestView<'_>) -> bool) -> bool {
    let mut request = b"GET / HTTP/1.1\r\nHost: app\r\n".to_vec();
    for line in lines {
        request.extend(line.bytes());
        request.extend(b"\r\n");
    }
    request.extend(b"\r\n");
    match RequestFramer::new().next(&request, question) {
        RequestStep::Head { decision, .. } => decision,
        other => panic!("{other:?} for {lines:?}"),
    }
}

fn header(lines: &[&str], pair: &str) -> bool {
    let condition: HeaderCondition = pair.parse().unwrap();
    ask(lines, |request| condition.matches(request))
}

fn baggage(lines: &[&str], pair: &str) -> bool {
    let condition: BaggageCondition = pair.parse().unwrap();
    ask(lines, |request| condition.matches(request))
}

fn tracestate(lines: &[&str], pair: &str) -> bool {
    let condition: TracestateCondition = pair.parse().unwrap();
    ask(lines, |request| condition.matches(request))
}

#[test]
fn a_header_matches_by_its_exact_value_in_any_line() {
    assert!(header(&["X-User: alice"], "x-user=alice"));
    assert!(header(&["x-user:alice"], "X-USER=alice"));
    assert!(header(&["X-User: \t alice \t "], "x-user=alice"));
    assert!(header(&["X-User: alice"], "x-user= alice "));
    assert!(header(&["X-User: bob", "Accept: */*", "x-USER: alice"], "x-user=alice"));
    assert!(header(&["X-User: a=b, c"], "x-user=a=b, c"));
    assert!(header(&["X-User: J\u{fc}rgen"], "x-user=J\u{fc}rgen"));

    assert!(!header(&["X-User: alice"], "x-user=al"));
    assert!(!header(&["X-User: al"], "x-user=alice"));
    assert!(!header(&["X-User: Alice"], "x-user=alice"));
    assert!(!header(&["X-User: alice, bob"], "x-user=alice"));
    assert!(!header(&["X-User: alice"], "x-use=alice"));
    assert!(!header(&["X-User2: alice"], "x-user=alice"));
    assert!(!header(&["X-User:"], "x-user=alice"));
    assert!(!header(&[], "x-user=alice"));
}

#[test]
fn baggage_members_match_as_the_specification_reads_them() {
    // The examples of the specification.
    let example =
        ["baggage: key1=value1;property1;property2, key2 = value2, key3=value3; propertyKey=propertyValue"];
    assert!(baggage(&example, "key1=value1"));
    assert!(baggage(&example, "key2=value2"));
    assert!(baggage(&example, "key3=value3"));
    assert!(!baggage(&example, "propertyKey=propertyValue"));
    let split = ["baggage: userId=alice", "Baggage: serverNode=DF%2028,isProduction=false"];
    assert!(baggage(&split, "userId=alice"));
    assert!(baggage(&split, "serverNode=DF 28"));
    assert!(baggage(&split, "isProduction=false"));
    assert!(!baggage(&split, "serverNode=DF%2028"));
    let spaced = ["baggage: userId =   alice", "baggage: serverNode = DF%2028, isProduction = false"];
    assert!(baggage(&spaced, "userId=alice"));
    assert!(baggage(&spaced, "isProduction=false"));
    assert!(baggage(&["baggage: userId=Am%C3%A9lie"], "userId=Am\u{e9}lie"));
    assert!(baggage(&["baggage: userId=Am%c3%a9lie"], "userId=Am\u{e9}lie"));

    // Its test suite.
    assert!(baggage(&["baggage: SomeKey=SomeValue=equals"], "SomeKey=SomeValue=equals"));
    let tabs =
        ["baggage: SomeKey \t = \t SomeValue \t ; \t SomeProp \t , \t SomeKey2 \t = \t SomeValue2 \t "];
    assert!(baggage(&tabs, "SomeKey=SomeValue"));
    assert!(baggage(&tabs, "SomeKey2=SomeValue2"));
    let encoded = ["baggage: SomeKey=%09%20%22%27%3B%3Dasdf%21%40%23%24%25%5E%26%2A%28%29"];
    assert!(baggage(&encoded, "SomeKey=\t \"';=asdf!@#$%^&*()"));

    // What is no UTF-8 becomes U+FFFD; what is no encoding stays; `+` is no space.
    assert!(baggage(&["baggage: k=a%FFb"], "k=a\u{fffd}b"));
    assert!(!baggage(&["baggage: k=a%FFb"], "k=a%FFb"));
    assert!(baggage(&["baggage: k=100%"], "k=100%"));
    assert!(baggage(&["baggage: k=a%zzb"], "k=a%zzb"));
    assert!(!baggage(&["baggage: k=a+b"], "k=a b"));

    // Duplicates are legal, empty members and bad ones in between do no harm.
    assert!(baggage(&["baggage: k=1,k=2"], "k=1"));
    assert!(baggage(&["baggage: k=1,k=2"], "k=2"));
    assert!(baggage(&["baggage: ,, k=1 ,"], "k=1"));
    assert!(baggage(&["baggage: no equals, =x, k=1"], "k=1"));

    // Keys are case-sensitive and whole, values too.
    assert!(!baggage(&["baggage: userid=alice"], "userId=alice"));
    assert!(!baggage(&["baggage: userId=alice"], "userId=al"));
    assert!(!baggage(&["baggage: userId=al"], "userId=alice"));
    assert!(!baggage(&["baggage: xuserId=alice"], "userId=alice"));
    assert!(!baggage(&["baggage: k=x;userId=alice"], "userId=alice"));
    assert!(!baggage(&["baggage: k=x userId=alice"], "userId=alice"));
    assert!(!baggage(&["baggage: user%49d=alice"], "userId=alice"));
    assert!(!baggage(&["baggage: userId"], "userId=alice"));
    assert!(!baggage(&["baggage: userId=%61lice%00"], "userId=alice"));
    assert!(!baggage(&["x-baggage: userId=alice"], "userId=alice"));
}

#[test]
fn baggage_beyond_the_least_limits_is_still_seen() {
    let many: Vec<String> = (0..200).map(|number| format!("key{number}={}", "v".repeat(50))).collect();
    let line = format!("baggage: {},last=alice", many.join(","));
    assert!(line.len() > 8192);
    assert!(baggage(&[&line], "last=alice"));
}

#[test]
fn tracestate_members_match_as_the_specification_reads_them() {
    // The examples of the specification.
    assert!(tracestate(&["tracestate: congo=t61rcWkgMzE"], "congo=t61rcWkgMzE"));
    let two = ["tracestate: rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"];
    assert!(tracestate(&two, "rojo=00f067aa0ba902b7"));
    assert!(tracestate(&two, "congo=t61rcWkgMzE"));
    assert!(tracestate(&["TraceState: a=1", "tracestate: b=2"], "a=1"));
    assert!(tracestate(&["TraceState: a=1", "tracestate: b=2"], "b=2"));

    // Whitespace around members and empty members.
    let spaced = ["tracestate: foo=1 \t , \t bar=2, \t baz=3"];
    assert!(tracestate(&spaced, "foo=1"));
    assert!(tracestate(&spaced, "bar=2"));
    assert!(tracestate(&["tracestate:", "tracestate: ,, \t ,foo=1,"], "foo=1"));
    assert!(tracestate(&["tracestate: a=b c"], "a=b c"));

    // All characters of keys and values.
    let key = "0123456789abcdefghijklmnopqrstuvwxyz_-*/@";
    let value: String = (' '..='~').filter(|char| !",=".contains(*char)).collect();
    let pair = format!("{key}={}", value.trim());
    assert!(tracestate(&[&format!("tracestate: {pair}")], &pair));
    let longest = format!("{}={}", "k".repeat(256), "v".repeat(256));
    assert!(tracestate(&[&format!("tracestate: {longest}")], &longest));

    // Nothing is decoded or trimmed within a member.
    assert!(!tracestate(&["tracestate: foo=%31"], "foo=1"));
    assert!(!tracestate(&["tracestate: foo =1"], "foo=1"));
    assert!(!tracestate(&["tracestate: foo= 1"], "foo=1"));
    assert!(!tracestate(&["tracestate: foo=1;p"], "foo=1"));
    assert!(!tracestate(&["tracestate: foo=1=2"], "foo=1"));
    assert!(!tracestate(&["tracestate: FOO=1"], "foo=1"));
    assert!(!tracestate(&["tracestate: foo=alice"], "foo=al"));
    assert!(!tracestate(&["tracestate: foo=al"], "foo=alice"));
    assert!(!tracestate(&["tracestate: xfoo=1"], "foo=1"));
    assert!(!tracestate(&["tracestate: foo="], "foo=1"));
    assert!(!tracestate(&["tracestate: foo"], "foo=1"));
}

#[test]
fn a_trace_state_of_more_than_32_members_matches_nothing() {
    let list = |members: usize| {
        let members: Vec<String> = (0..members).map(|number| format!("bar{number:02}={number}")).collect();
        members.join(",")
    };
    assert!(tracestate(&[&format!("tracestate: {}", list(32))], "bar00=0"));
    assert!(tracestate(&[&format!("tracestate: ,{},,", list(32))], "bar31=31"));
    assert!(!tracestate(&[&format!("tracestate: {}", list(33))], "bar00=0"));
    assert!(!tracestate(&[&format!("tracestate: {}", list(32)), "tracestate: one=more"], "bar00=0"));
}

#[test]
fn an_intercept_key_matches_in_each_of_its_places() {
    let key = InterceptKey::random().unwrap();
    let matches = |line: &str| ask(&[line], |request| Condition::Key(key.clone()).matches(request));
    assert!(matches(&format!("X-Redirector-Intercept: {key}")));
    assert!(matches(&format!("baggage: a=b, redirector={key};p")));
    assert!(matches(&format!("tracestate: a=b,redirector={key}")));

    assert!(!matches(&format!("x-redirector: {key}")));
    assert!(!matches(&format!("x-redirector-intercept: {key}x")));
    assert!(!matches(&format!("x-redirector-intercept: {}", &key.as_str()[1..])));
    assert!(!matches(&format!("baggage: Redirector={key}")));
    assert!(!matches(&format!("tracestate: redirector=x{key}")));
    assert!(!matches("accept: */*"));
}

#[test]
fn random_keys_differ_and_are_valid_everywhere() {
    let keys: std::collections::HashSet<String> =
        (0..100).map(|_| InterceptKey::random().unwrap().to_string()).collect();
    assert_eq!(keys.len(), 100);
    for key in &keys {
        assert_eq!(InterceptKey::from_str(key).unwrap().as_str(), key);
        assert!(key.len() * 5 >= 128, "{key} has less than 128 bits");
        HeaderCondition::new(InterceptKey::HEADER, key).unwrap();
        BaggageCondition::new(InterceptKey::MEMBER, key).unwrap();
        TracestateCondition::new(InterceptKey::MEMBER, key).unwrap();
    }
    // Every symbol turns up: 2600 draws from 32 miss one with a chance below 10^-33.
    let symbols: std::collections::HashSet<char> = keys.iter().flat_map(|key| key.chars()).collect();
    assert_eq!(symbols.len(), 32);
}

#[test]
fn bad_keys_are_refused() {
    let long = "a".repeat(65);
    for bad in [
        "",
        "short",
        "ABCDEFGHIJKLMNOPQRST",
        "abcdefghijklmnop-",
        "abcdefghijklmnop ",
        "\u{e9}bcdefghijklmnopq",
        &long,
    ] {
        assert!(InterceptKey::from_str(bad).is_err(), "{bad:?}");
    }
    InterceptKey::from_str(&"a".repeat(64)).unwrap();
    InterceptKey::from_str("abcdefghijklmn09").unwrap();
}

#[test]
fn all_conditions_must_hold_and_none_means_all_requests() {
    let both = Matcher {
        conditions: vec![
            Condition::Header("x-user=alice".parse().unwrap()),
            Condition::Baggage("team=red".parse().unwrap()),
        ],
    };
    assert!(ask(&["x-user: alice", "baggage: team=red"], |request| both.matches(request)));
    assert!(!ask(&["x-user: alice"], |request| both.matches(request)));
    assert!(!ask(&["baggage: team=red"], |request| both.matches(request)));
    assert!(!ask(&[], |request| both.matches(request)));
    assert!(ask(&[], |request| Matcher::default().matches(request)));
    assert!(Matcher::default().is_catch_all() && !both.is_catch_all());
    assert_eq!(both.to_string(), "header x-user=alice and baggage team=red");
    assert_eq!(Matcher::default().to_string(), "all requests");
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
    for bad in ["Foo", "_foo", "@foo", "foo.bar", "foo+", &"k".repeat(257)] {
        assert_eq!(TracestateCondition::new(bad, "1"), Err(TracestateKey(bad.to_owned())));
    }
    for bad in ["a,b", "a=b", "a ", " a", "\u{e9}", "a\tb", &"v".repeat(257)] {
        assert_eq!(
            TracestateCondition::new("k", bad),
            Err(TracestateValue { key: "k".to_owned() }),
            "{bad:?}"
        );
    }
    assert_eq!(
        NoEqualsSign(name()).to_string(),
        "`x-user` has no `=`: write NAME=VALUE, for example x-user=alice"
    );
}

#[test]
fn conditions_travel_as_readable_json() {
    let matcher = Matcher {
        conditions: vec![
            Condition::Header("X-User=alice".parse().unwrap()),
            Condition::Baggage("user=Am\u{e9}lie".parse().unwrap()),
            Condition::Tracestate("vendor=1".parse().unwrap()),
            Condition::Key("abcdefghijklmnopqrstuvwxyz".parse().unwrap()),
        ],
    };
    let json = serde_json::json!({"conditions": [
        {"header": {"name": "x-user", "value": "alice"}},
        {"baggage": {"key": "user", "value": "Am\u{e9}lie"}},
        {"tracestate": {"key": "vendor", "value": "1"}},
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
        r#"{"conditions": [{"baggage": {"key": "a b", "value": "1"}}]}"#,
        r#"{"conditions": [{"tracestate": {"key": "A", "value": "1"}}]}"#,
        r#"{"conditions": [{"key": "short"}]}"#,
        r#"{"conditions": [{"cookie": {"name": "a", "value": "1"}}]}"#,
    ] {
        assert!(serde_json::from_str::<Matcher>(bad).is_err(), "{bad}");
    }
    let error = serde_json::from_str::<Condition>(r#"{"header": {"name": "a", "value": ""}}"#).unwrap_err();
    assert!(error.to_string().contains("write a=VALUE"), "{error}");
}

#[test]
fn a_matcher_subsumes_those_with_more_conditions() {
    let matcher = |conditions: &[&str]| Matcher {
        conditions: conditions.iter().map(|pair| Condition::Header(pair.parse().unwrap())).collect(),
    };
    let all = Matcher::default();
    let alice = matcher(&["x-user=alice"]);
    let alice_red = matcher(&["team=red", "X-User=alice"]);
    assert!(all.subsumes(&alice) && all.subsumes(&all) && !alice.subsumes(&all));
    assert!(alice.subsumes(&matcher(&["X-USER=alice"])));
    assert!(alice.subsumes(&alice_red) && !alice_red.subsumes(&alice));
    assert!(!alice.subsumes(&matcher(&["x-user=al"])) && !matcher(&["x-user=al"]).subsumes(&alice));
    assert!(
        !alice.subsumes(&Matcher { conditions: vec![Condition::Baggage("x-user=alice".parse().unwrap())] })
    );
}

/// Few names and values, so that conditions and requests meet often.
fn any_condition() -> impl Strategy<Value = Condition> {
    let key = "aaaaaaaaaaaaaaaa";
    let value = || prop::sample::select(vec!["1", "2", key]);
    prop_oneof![
        (prop::sample::select(vec!["a", "A", InterceptKey::HEADER]), value())
            .prop_map(|(name, value)| Condition::Header(HeaderCondition::new(name, value).unwrap())),
        (prop::sample::select(vec!["a", InterceptKey::MEMBER]), value())
            .prop_map(|(name, value)| Condition::Baggage(BaggageCondition::new(name, value).unwrap())),
        (prop::sample::select(vec!["a", InterceptKey::MEMBER]), value())
            .prop_map(|(name, value)| Condition::Tracestate(TracestateCondition::new(name, value).unwrap())),
        Just(Condition::Key(key.parse().unwrap())),
    ]
}

/// A header line that meets the condition.
fn line_for(condition: &Condition) -> String {
    match condition {
        Condition::Header(header) => format!("{}: {}", header.name(), header.value()),
        Condition::Baggage(member) => format!("baggage: {}={}", member.key(), member.value()),
        Condition::Tracestate(member) => format!("tracestate: {}={}", member.key(), member.value()),
        Condition::Key(key) => format!("tracestate: redirector={key}"),
    }
}

fn any_matcher() -> impl Strategy<Value = Matcher> {
    prop::collection::vec(any_condition(), 0..3).prop_map(|conditions| Matcher { conditions })
}

proptest! {
    #[test]
    fn what_the_narrower_matches_the_wider_matches(
        wide in any_matcher(),
        narrow in any_matcher(),
        others in prop::collection::vec(any_condition(), 0..3),
    ) {
        // A request that meets `narrow`, and a little more.
        let lines: Vec<String> = narrow.conditions.iter().chain(&others).map(line_for).collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        prop_assert!(ask(&lines, |request| narrow.matches(request)));
        if wide.subsumes(&narrow) {
            prop_assert!(ask(&lines, |request| wide.matches(request)));
        }
        // And the other way round: without `others`, what `wide` does not subsume it does not match. (A key is met
        // in three places, so only one of them is offered here, and the same one for each.)
        let lines: Vec<String> = narrow.conditions.iter().map(line_for).collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let keyed = narrow.conditions.iter().any(|condition| matches!(condition, Condition::Key(_)));
        if !keyed && !wide.subsumes(&narrow) {
            prop_assert!(!ask(&lines, |request| wide.matches(request)));
        }
    }

    #[test]
    fn any_baggage_value_matches_in_its_encoded_form(value in "\\PC{1,40}", other in "\\PC{1,40}") {
        prop_assume!(!value.trim_matches([' ', '\t']).is_empty());
        let encoded: String = value.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let condition = BaggageCondition::new("k", &value).unwrap();
        let line = format!("baggage: a=b, k={encoded};p=q, c=d");
        prop_assert!(ask(&[&line], |request| condition.matches(request)));
        if other != value && !other.trim_matches([' ', '\t']).is_empty() {
            let condition = BaggageCondition::new("k", &other).unwrap();
            prop_assert!(!ask(&[&line], |request| condition.matches(request)));
        }
    }

    #[test]
    fn hostile_lists_never_panic_and_never_match(line in "[ -$&-~\t]{0,200}") {
        // The value cannot occur: without `%` the line has no way to say it.
        let condition = BaggageCondition::new("k", "\u{1f980}").unwrap();
        let state = TracestateCondition::new("kkkkkkkkkkkkkkkkkkkkkkkk", "vvvvvvvvvvvvvvvvvvvvvvvv").unwrap();
        let lines = [format!("baggage: {line}"), format!("tracestate: {line}")];
        let lines = [lines[0].as_str(), lines[1].as_str()];
        prop_assert!(!ask(&lines, |request| condition.matches(request) || state.matches(request)));
    }
}
