//! When one matcher claims all that another one does.

use proptest::prelude::*;
use redirector::context::{Condition, InterceptKey, Matcher};

use crate::{ask_for, matcher, methods, typed};

const KEY: &str = "aaaaaaaaaaaaaaaa";

#[test]
fn a_matcher_subsumes_those_with_more_conditions() {
    let alice = matcher(&[typed("x-user=alice", Condition::Header)]);
    let alice_red =
        matcher(&[typed("team=red", Condition::Header), typed("X-User=alice", Condition::Header)]);
    let al = matcher(&[typed("x-user=al", Condition::Header)]);
    let all = Matcher::default();
    assert!(all.subsumes(&alice) && all.subsumes(&all) && !alice.subsumes(&all));
    assert!(alice.subsumes(&matcher(&[typed("X-USER=alice", Condition::Header)])));
    assert!(alice.subsumes(&alice_red) && !alice_red.subsumes(&alice));
    assert!(!alice.subsumes(&al) && !al.subsumes(&alice));
    assert!(!alice.subsumes(&matcher(&[typed("x-user=alice", Condition::Baggage)])));
}

#[test]
fn each_kind_subsumes_what_is_narrower() {
    let header = |text: &str| typed(text, Condition::Header);
    let header_regex = |text: &str| typed(text, Condition::HeaderRegex);
    let baggage = |text: &str| typed(text, Condition::Baggage);
    let tracestate = |text: &str| typed(text, Condition::Tracestate);
    let path = |text: &str| typed(text, Condition::Path);
    let prefix = |text: &str| typed(text, Condition::PathPrefix);
    let path_regex = |text: &str| typed(text, Condition::PathRegex);
    let preset = |text: &str| typed(text, Condition::Preset);
    let key = || typed(KEY, Condition::Key);

    for (wide, narrow) in [
        (header_regex("x=al.*"), header("X=alice")),
        (header_regex("x=al.*"), header_regex("x=al.*")),
        (header_regex("x-telepresence-intercept-id=.*:shop"), preset("telepresence=1:shop")),
        (prefix("/api"), prefix("/api/v1")),
        (prefix("/api"), prefix("/api/")),
        (prefix("/api"), path("/api")),
        (prefix("/api"), path("/api/v1/x")),
        (prefix("/"), path("/")),
        (prefix("/"), header("x=1")),
        (path_regex("/v[12]/.*"), path("/v1/x")),
        (path("/caf%C3%A9"), path("/caf\u{e9}")),
        (methods(&["GET", "POST"]), methods(&["POST"])),
        (methods(&["GET", "POST"]), methods(&["POST", "GET"])),
        (key(), header(&format!("x-redirector-intercept={KEY}"))),
        (key(), baggage(&format!("redirector={KEY}"))),
        (key(), tracestate(&format!("redirector={KEY}"))),
        (key(), key()),
        (preset("signadot=k"), baggage("sd-routing-key=k")),
        (preset("signadot=k"), tracestate("sd-routing-key=k")),
        (preset("signadot=k"), header("ot-baggage-sd-routing-key=k")),
        (preset("signadot=k"), header("Uberctx-sd-routing-key=k")),
        (preset("signadot=k"), preset("signadot=k")),
        (preset("okteto=ns"), baggage("okteto-divert=ns")),
        (baggage("okteto-divert=ns"), preset("okteto=ns")),
    ] {
        let (wide, narrow) = (matcher(&[wide]), matcher(&[header("other=1"), narrow]));
        assert!(wide.subsumes(&narrow), "{wide} subsumes {narrow}");
    }
    for (one, other) in [
        (header_regex("x=al"), header("x=alice")),
        (header_regex("x=al.*"), header("y=alice")),
        (header_regex("x=al.*"), header_regex("x=alice.*")),
        (header_regex("baggage=.*u=1.*"), baggage("u=1")),
        (prefix("/api"), path("/apix")),
        (prefix("/api"), prefix("/apix")),
        (prefix("/api/v1"), prefix("/api")),
        (prefix("/api"), prefix("/")),
        (prefix("/api"), path_regex("/api/.*")),
        (path_regex("/api/.*"), prefix("/api")),
        (path_regex("/api/.*"), prefix("/api/v1")),
        (path("/api"), prefix("/api")),
        (methods(&["GET"]), methods(&["GET", "POST"])),
        (key(), header(&format!("x-redirector={KEY}"))),
        (header(&format!("x-redirector-intercept={KEY}")), key()),
        (baggage("sd-routing-key=k"), preset("signadot=k")),
        (preset("signadot=k"), preset("signadot=l")),
        (preset("okteto=k"), preset("mirrord=k")),
        (preset("signadot=k"), header("sd-routing-key=k")),
        (baggage("u=1"), tracestate("u=1")),
    ] {
        let (one, other) = (matcher(&[one]), matcher(&[other]));
        assert!(!one.subsumes(&other), "{one} does not subsume {other}");
    }
    // Everything is everything, however it is said.
    assert!(matcher(&[prefix("/")]).subsumes(&Matcher::default()));
    assert!(!matcher(&[prefix("/"), header("x=1")]).subsumes(&Matcher::default()));
}

/// Few names and values, so that conditions and requests meet often.
fn any_condition() -> impl Strategy<Value = Condition> {
    let value = || prop::sample::select(vec!["1", "2", "12", KEY]);
    let pair = |names: Vec<&'static str>| {
        (prop::sample::select(names), value()).prop_map(|(n, v)| format!("{n}={v}"))
    };
    let text = |texts: Vec<&'static str>| prop::sample::select(texts);
    let tools = vec!["telepresence", "signadot", "okteto"];
    prop_oneof![
        pair(vec!["a", "A", InterceptKey::HEADER, "uberctx-sd-routing-key"])
            .prop_map(|pair| typed(&pair, Condition::Header)),
        text(vec!["a=1.*", "a=.*", "a=[12]", "uberctx-sd-routing-key=.*", "x-telepresence-intercept-id=.*"])
            .prop_map(|pair| typed(pair, Condition::HeaderRegex)),
        pair(vec!["a", InterceptKey::MEMBER, "sd-routing-key", "okteto-divert"])
            .prop_map(|pair| typed(&pair, Condition::Baggage)),
        pair(vec!["a", InterceptKey::MEMBER, "sd-routing-key"])
            .prop_map(|pair| typed(&pair, Condition::Tracestate)),
        text(PATHS.to_vec()).prop_map(|path| typed(path, Condition::Path)),
        text(PATHS.to_vec()).prop_map(|path| typed(path, Condition::PathPrefix)),
        text(vec!["/.*", "/p/.*", "/p.*", ".*", "/p"]).prop_map(|re| typed(re, Condition::PathRegex)),
        prop::sample::subsequence(METHODS.to_vec(), 1..3).prop_map(|list| methods(&list)),
        pair(tools).prop_map(|pair| typed(&pair, Condition::Preset)),
        Just(typed(KEY, Condition::Key)),
        Just(Condition::AnyKey),
    ]
}

const PATHS: [&str; 7] = ["/", "/p", "/p/", "/p/q", "/p/q/r", "/pq", "/%70"];
const METHODS: [&str; 3] = ["GET", "POST", "OPTIONS"];

fn any_matcher() -> impl Strategy<Value = Matcher> {
    prop::collection::vec(any_condition(), 0..3).prop_map(|conditions| Matcher { conditions })
}

/// A header line that meets the condition, in one of the forms if there are several.
fn line_for(condition: &Condition, form: usize) -> Option<String> {
    match condition {
        Condition::Header(header) => Some(format!("{}: {}", header.name(), header.value())),
        Condition::HeaderRegex(regex) => Some(format!("{}: 1", regex.name())),
        Condition::Baggage(member) => Some(format!("baggage: {}", member.member())),
        Condition::Tracestate(member) => Some(format!("tracestate: {member}")),
        Condition::Preset(_) | Condition::Key(_) => {
            let forms = condition.forms().unwrap();
            line_for(&forms[form % forms.len()], 0)
        }
        Condition::AnyKey => line_for(&typed(KEY, Condition::Key), form),
        Condition::Path(_) | Condition::PathPrefix(_) | Condition::PathRegex(_) | Condition::Methods(_) => {
            None
        }
    }
}

/// A target whose path meets the condition.
fn target_for(condition: &Condition) -> Option<String> {
    match condition {
        Condition::Path(path) => Some(path.to_string()),
        Condition::PathPrefix(prefix) => Some(format!("{}/q", prefix.as_str().trim_end_matches('/'))),
        _ => None,
    }
}

/// One of the methods of the condition.
fn method_for(condition: &Condition, which: usize) -> Option<String> {
    let Condition::Methods(condition) = condition else { return None };
    let methods = condition.methods();
    Some(methods[which % methods.len()].to_string())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn what_the_narrower_matches_the_wider_matches(
        wide in any_matcher(),
        narrow in any_matcher(),
        others in prop::collection::vec(any_condition(), 0..3),
        form in 0..4_usize,
        own in any::<bool>(),
        target in prop::sample::select([&PATHS[..], &["*", "/p?x", "/p/../p/q", "http://a/p"]].concat()),
        method in prop::sample::select(METHODS.to_vec()),
    ) {
        // Shared conditions make one subsume the other more often.
        for narrow in [narrow.clone(), Matcher { conditions: [narrow.conditions, wide.conditions.clone()].concat() }] {
            // A request that meets `narrow` as far as its headers go, often its path and method, and a little more.
            let own_target = narrow.conditions.iter().find_map(target_for).filter(|_| own);
            let target = own_target.as_deref().unwrap_or(target);
            let own_method = narrow.conditions.iter().find_map(|condition| method_for(condition, form));
            let method = own_method.as_deref().filter(|_| own).unwrap_or(method);
            let lines: Vec<String> =
                narrow.conditions.iter().chain(&others).filter_map(|condition| line_for(condition, form)).collect();
            let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            let matches = |matcher: &Matcher| ask_for(method, target, &lines, |request| matcher.matches(request));
            if wide.subsumes(&narrow) && matches(&narrow) {
                prop_assert!(matches(&wide), "{} subsumes {}: {} {} {:?}", wide, narrow, method, target, lines);
            }
        }
    }

    #[test]
    fn a_matcher_subsumes_itself_and_all_that_ask_for_more(matcher in any_matcher(), more in any_condition()) {
        let mut narrower = matcher.clone();
        narrower.conditions.push(more);
        prop_assert!(matcher.subsumes(&matcher) && matcher.subsumes(&narrower));
    }

    #[test]
    fn what_is_wider_than_the_wider_is_wider(
        one in any_condition(),
        two in any_condition(),
        three in any_condition(),
    ) {
        let [one, two, three] = [one, two, three].map(|condition| matcher(&[condition]));
        if one.subsumes(&two) && two.subsumes(&three) {
            prop_assert!(one.subsumes(&three), "{} > {} > {}", one, two, three);
        }
    }
}
