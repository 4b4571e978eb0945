//! A developer's key in any of several places: our own key, and those of other tools.

use std::collections::HashSet;
use std::str::FromStr;

use redirector::context::{
    BaggageCondition, Condition, HeaderCondition, InterceptKey, Preset, PresetCondition, TracestateCondition,
};

use crate::{ask, typed};

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
fn any_key_is_found_in_each_of_its_places_and_nothing_else_is_taken_for_one() {
    let any = |lines: &[&str]| ask(lines, |request| Condition::AnyKey.matches(request));
    let has = |count: usize, lines: &[&str]| {
        ask(lines, |request| InterceptKey::carried_by(request, 8).len() == count)
    };
    let (one, two) = ("abcdefghijklmnop", "qrstuvwxyz234567");
    for line in ["X-Redirector-Intercept: K", "baggage: a=b, redirector=K;p", "tracestate: a=b,redirector=K"]
    {
        let line = line.replace('K', one);
        assert!(any(&[&line]), "{line}");
        assert!(has(1, &[&line, &format!("baggage: redirector=%61{}", &one[1..])]), "{line}");
    }
    assert!(has(2, &[&format!("baggage: redirector={one}, redirector={two}")]));
    for line in [
        "x-redirector-intercept: short",
        "baggage: redirector=NOT-A-KEY-AT-ALL",
        "baggage: other=abcdefghijklmnop",
    ] {
        assert!(!any(&[line]), "{line}");
    }
}

#[test]
fn random_keys_differ_and_are_valid_everywhere() {
    let keys: HashSet<String> = (0..100).map(|_| InterceptKey::random().unwrap().to_string()).collect();
    assert_eq!(keys.len(), 100);
    for key in &keys {
        assert_eq!(InterceptKey::from_str(key).unwrap().as_str(), key);
        assert!(key.len() * 5 >= 128, "{key} has less than 128 bits");
        let short = key[1..].parse::<InterceptKey>().unwrap();
        assert!(!InterceptKey::from_str(key).unwrap().is_short() && short.is_short());
        HeaderCondition::new(InterceptKey::HEADER, key).unwrap();
        BaggageCondition::new(InterceptKey::MEMBER, key).unwrap();
        TracestateCondition::new(InterceptKey::MEMBER, key).unwrap();
    }
    // Every symbol turns up: 2600 draws from 32 miss one with a chance below 10^-33.
    let symbols: HashSet<char> = keys.iter().flat_map(|key| key.chars()).collect();
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

/// The forms in which each tool sends its key, and some in which it does not.
#[test]
fn a_preset_matches_in_each_form_that_its_tool_uses() {
    const UUID: &str = "5c9b2f04-13ab-4d3e-9e43-c1a5e0b6a7d2";
    let telepresence = format!("{UUID}:shop");
    for (tool, key, forms, others) in [
        (
            "telepresence",
            telepresence.as_str(),
            &["X-Telepresence-Intercept-Id: KEY"][..],
            &["x-telepresence-intercept: KEY", "baggage: x-telepresence-intercept-id=KEY"][..],
        ),
        (
            "signadot",
            "abc12",
            &[
                "baggage: a=b,sd-routing-key=KEY;p",
                "tracestate: a=b,sd-routing-key=KEY",
                "ot-baggage-sd-routing-key: KEY",
                "Uberctx-Sd-Routing-Key: KEY",
            ],
            &["sd-routing-key: KEY", "baggage: SD-Routing-Key=KEY", "tracestate: sd-sandbox=KEY"],
        ),
        (
            "okteto",
            "cindy",
            &["baggage: okteto-divert=KEY"],
            &["okteto-divert: KEY", "tracestate: okteto-divert=KEY"],
        ),
        ("mirrord", "s-1", &["baggage: mirrord-session=KEY"], &["mirrord-session: KEY"]),
        ("lapdev", UUID, &["tracestate: a=b, lapdev-env-id=KEY"], &["baggage: lapdev-env-id=KEY"]),
    ] {
        let preset = typed(&format!("{tool}={key}"), Condition::Preset);
        let matches = |line: &str| ask(&[line], |request| preset.matches(request));
        for form in forms {
            assert!(matches(&form.replace("KEY", key)), "{tool}: {form}");
            let (beginning, longer) = (&key[..key.len() - 1], format!("{key}x"));
            assert!(!matches(&form.replace("KEY", beginning)), "{tool}: {form} with {beginning}");
            assert!(!matches(&form.replace("KEY", &longer)), "{tool}: {form} with {longer}");
        }
        for other in others {
            assert!(!matches(&other.replace("KEY", key)), "{tool}: {other}");
        }
        assert_eq!(preset.forms().unwrap().len(), forms.len(), "{tool}");
        assert_eq!(preset.to_string(), format!("preset {tool}={key}"));
    }
}

#[test]
fn a_preset_that_cannot_be_is_refused() {
    for bad in ["signadot", "signadot=", "signadot= ", "telepresense=k", "=k", "Okteto=k", "okteto=a\nb"] {
        assert!(bad.parse::<PresetCondition>().is_err(), "{bad:?}");
    }
    let error = "telepresense=k".parse::<PresetCondition>().unwrap_err().to_string();
    for preset in Preset::ALL {
        assert!(error.contains(preset.name()), "{error}");
    }
    // One of its places is trace state.
    let error = "signadot=a,b".parse::<PresetCondition>().unwrap_err().to_string();
    assert!(error.contains("tracestate"), "{error}");
    assert_eq!("okteto= a b ".parse::<PresetCondition>().unwrap().key(), "a b");
}
