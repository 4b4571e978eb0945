//! Headers, by their exact value and by a regular expression.

use std::hash::{BuildHasher, RandomState};

use proptest::prelude::*;
use redirector::context::{Condition, HeaderRegexCondition};

use crate::{ask, typed};

fn exact(lines: &[&str], pair: &str) -> bool {
    let condition = typed(pair, Condition::Header);
    ask(lines, |request| condition.matches(request))
}

fn regex(lines: &[&str], pair: &str) -> bool {
    let condition = typed(pair, Condition::HeaderRegex);
    ask(lines, |request| condition.matches(request))
}

#[test]
fn a_header_matches_by_its_exact_value_in_any_line() {
    assert!(exact(&["X-User: alice"], "x-user=alice"));
    assert!(exact(&["x-user:alice"], "X-USER=alice"));
    assert!(exact(&["X-User: \t alice \t "], "x-user=alice"));
    assert!(exact(&["X-User: alice"], "x-user= alice "));
    assert!(exact(&["X-User: bob", "Accept: */*", "x-USER: alice"], "x-user=alice"));
    assert!(exact(&["X-User: a=b, c"], "x-user=a=b, c"));
    assert!(exact(&["X-User: J\u{fc}rgen"], "x-user=J\u{fc}rgen"));

    assert!(!exact(&["X-User: alice"], "x-user=al"));
    assert!(!exact(&["X-User: al"], "x-user=alice"));
    assert!(!exact(&["X-User: Alice"], "x-user=alice"));
    assert!(!exact(&["X-User: alice, bob"], "x-user=alice"));
    assert!(!exact(&["X-User: alice"], "x-use=alice"));
    assert!(!exact(&["X-User2: alice"], "x-user=alice"));
    assert!(!exact(&["X-User:"], "x-user=alice"));
    assert!(!exact(&[], "x-user=alice"));
}

#[test]
fn an_exact_value_is_never_taken_for_a_regular_expression() {
    assert!(!exact(&["X-User: alice"], "x-user=.*"));
    assert!(!exact(&["X-User: alice"], "x-user=a.ice"));
    assert!(exact(&["X-User: a.*(e"], "x-user=a.*(e"));
}

#[test]
fn a_regular_expression_matches_the_whole_value_of_any_line() {
    assert!(regex(&["X-User: alice"], "x-user=al.*"));
    assert!(regex(&["X-User: bob", "x-USER:  alice "], "X-User=(alice|carol)"));
    assert!(regex(&["X-User: al"], "x-user=al|alice"));
    assert!(regex(&["X-User: alice"], "x-user=al|alice"));
    assert!(regex(&["X-User: ALICE"], "x-user=(?i)alice"));
    assert!(regex(&["X-User: dev-12"], r"x-user=\w+-\d{1,3}"));
    assert!(regex(&["X-User: J\u{fc}rgen"], "x-user=J.*n"));
    assert!(regex(&["X-User: J\u{fc}rgen"], "x-user=J\u{fc}rgen"));
    assert!(regex(&["X-User:"], "x-user=.*"));

    assert!(!regex(&["X-User: alice"], "x-user=al"));
    assert!(!regex(&["X-User: alice"], "x-user=lice"));
    assert!(!regex(&["X-User: alice"], "x-user=lic"));
    assert!(!regex(&["X-User: alice"], "x-user=al|bob"));
    assert!(!regex(&["X-User: alice, bob"], "x-user=alice"));
    assert!(!regex(&["X-User: ALICE"], "x-user=alice"));
    assert!(!regex(&["X-User2: alice"], "x-user=.*"));
    assert!(!regex(&[], "x-user=.*"));
}

#[test]
fn no_expression_gets_out_of_its_anchors() {
    for (pattern, value) in [
        ("a|b", "xa"),
        ("a|b", "bx"),
        ("^a", "ax"),
        ("a$", "xa"),
        ("(?m)^a$", "x"),
        ("(?m)a$", "xa"),
        ("(?x) a # comment\n", "xa"),
        ("(?s).", "ab"),
    ] {
        let condition = HeaderRegexCondition::new("x", pattern);
        // Some are refused for their control characters, which is as good.
        let Ok(condition) = condition else { continue };
        assert!(
            !ask(&[&format!("x: {value}")], |request| condition.matches(request)),
            "{pattern:?} {value:?}"
        );
    }
    for unbalanced in ["a)|(?:b", "a)|(b", ")(", "(?x)a #"] {
        let condition = HeaderRegexCondition::new("x", unbalanced);
        assert!(condition.is_err(), "{unbalanced:?}");
    }
}

#[test]
fn an_expression_that_would_cost_too_much_is_refused() {
    let long = "a".repeat(1025);
    for (pattern, reason) in [
        (r"(\w{1,100}){1,100}", "memory"),
        (r"((a{1,100}){1,100}){1,100}", "memory"),
        ("(a", "regular expression"),
        ("(?=a)", "regular expression"),
        (r"(a)\1", "regular expression"),
        (r"\p{Greek}", "regular expression"),
        (long.as_str(), "too long"),
        ("", "empty"),
    ] {
        let error = HeaderRegexCondition::new("x", pattern).unwrap_err().to_string();
        assert!(error.contains(reason), "{pattern:.20}: {error}");
    }
    HeaderRegexCondition::new("x", "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}").unwrap();
    HeaderRegexCondition::new("x", r"[\w.+-]{1,64}@[\w-]{1,63}(\.[\w-]{1,63}){1,3}").unwrap();
}

#[test]
fn expressions_are_equal_by_name_and_text() {
    let condition = |text: &str| text.parse::<HeaderRegexCondition>().unwrap();
    assert_eq!(condition("X-User=al.*"), condition("x-user=al.*"));
    assert_ne!(condition("x-user=al.*"), condition("x-user=al.+"));
    assert_ne!(condition("x-user=al.*"), condition("x-use=al.*"));
    let hasher = RandomState::new();
    assert_eq!(hasher.hash_one(condition("A=b+")), hasher.hash_one(condition("a=b+")));
    assert!(format!("{:?}", condition("a=b+")).contains("b+"));
}

proptest! {
    #[test]
    fn an_escaped_value_matches_itself_and_nothing_around_it(value in "[!-~]{1,20}", more in "[!-~]{1,3}") {
        let condition = HeaderRegexCondition::new("x", &regex::escape(&value)).unwrap();
        let matches = |text: String| ask(&[&format!("x: {text}")], |request| condition.matches(request));
        prop_assert!(matches(value.clone()));
        let (longer, later) = (format!("{value}{more}"), format!("{more}{value}"));
        prop_assert!(!matches(longer) && !matches(later));
    }

    #[test]
    fn hostile_expressions_never_panic(pattern in "[ -~]{0,40}", value in "[ -~]{0,40}") {
        if let Ok(condition) = HeaderRegexCondition::new("x", &pattern) {
            ask(&[&format!("x: {value}")], |request| condition.matches(request));
        }
    }
}
