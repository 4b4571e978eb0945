//! Members of `tracestate`. The vectors are the examples of W3C Trace Context (Level 2) and what its public test suite
//! checks; each names its section or test.
//!
//! A receiver *may* drop a list that has an invalid member, or the invalid member only (section "Processing Model"). A
//! router that dropped the list would send a developer's request elsewhere for somebody else's slip: here, an invalid
//! member is passed over. Only a list of more than 32 members is none.

use proptest::prelude::*;
use redirector::context::{Condition, TracestateCondition};

use crate::{ask, typed};

fn tracestate(lines: &[&str], pair: &str) -> bool {
    let condition = typed(pair, Condition::Tracestate);
    ask(lines, |request| condition.matches(request))
}

/// Header lines, and which members they have and have not.
struct Vector {
    source: &'static str,
    lines: &'static [&'static str],
    has: &'static [&'static str],
    has_not: &'static [&'static str],
}

const SPECIFICATION: &[Vector] = &[
    Vector {
        source: "Tracestate Header, list",
        lines: &["tracestate: vendorname1=opaqueValue1,vendorname2=opaqueValue2"],
        has: &["vendorname1=opaqueValue1", "vendorname2=opaqueValue2"],
        has_not: &["vendorname1=opaqueValue2", "vendorname1=opaquevalue1", "vendorname=opaqueValue1"],
    },
    Vector {
        source: "Examples of tracestate HTTP Headers, one system",
        lines: &["tracestate: rojo=00f067aa0ba902b7"],
        has: &["rojo=00f067aa0ba902b7"],
        has_not: &["rojo=00f067aa0ba902b", "rojo=00f067aa0ba902b70", "congo=00f067aa0ba902b7"],
    },
    Vector {
        source: "Examples of tracestate HTTP Headers, several systems",
        lines: &["tracestate: rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"],
        has: &["rojo=00f067aa0ba902b7", "congo=t61rcWkgMzE"],
        has_not: &["congo=00f067aa0ba902b7"],
    },
    Vector {
        source: "Combined Header Value: a key should not be there twice, but may",
        lines: &["tracestate: congo=congosFirstPosition,rojo=rojosFirstPosition,congo=congosSecondPosition"],
        has: &["congo=congosFirstPosition", "congo=congosSecondPosition", "rojo=rojosFirstPosition"],
        has_not: &["congo=rojosFirstPosition"],
    },
    Vector {
        source: "tracestate Header Field Values: empty members are allowed",
        lines: &["tracestate:", "tracestate: ,, \t ,foo=1,"],
        has: &["foo=1"],
        has_not: &["foo=2"],
    },
    Vector {
        source: "Value: spaces before it are part of it, those behind it are not; nothing is decoded",
        lines: &["tracestate: foo= 1,bar=b c ,baz=%31"],
        has: &["bar=b c", "baz=%31"],
        has_not: &["foo=1", "bar=b", "baz=1"],
    },
    Vector {
        // Required of tracers. What has come as far as here was not dropped, and says what it says.
        source: "Processing Model: without traceparent",
        lines: &["tracestate: foo=1"],
        has: &["foo=1"],
        has_not: &[],
    },
];

const TRACEPARENT: &str = "traceparent: 00-12345678901234567890123456789012-1234567890123456-00";

const TEST_SUITE: &[Vector] = &[
    Vector {
        source: "test_tracestate_included_traceparent_included",
        lines: &[TRACEPARENT, "tracestate: foo=1,bar=2"],
        has: &["foo=1", "bar=2"],
        has_not: &["foo=2", "bar=1"],
    },
    Vector {
        source: "test_tracestate_header_name",
        lines: &[TRACEPARENT, "trace-state: foo=1", "trace.state: foo=1", "xtracestate: foo=1"],
        has: &[],
        has_not: &["foo=1"],
    },
    Vector {
        source: "test_tracestate_header_name_valid_casing",
        lines: &["TraceState: a=1", "TrAcEsTaTe: b=2", "TRACESTATE: c=3"],
        has: &["a=1", "b=2", "c=3"],
        has_not: &[],
    },
    Vector {
        source: "test_tracestate_empty_header",
        lines: &[TRACEPARENT, "tracestate: foo=1", "tracestate:"],
        has: &["foo=1"],
        has_not: &[],
    },
    Vector {
        source: "test_tracestate_multiple_headers_different_keys",
        lines: &["tracestate: foo=1,bar=2", "tracestate: rojo=1,congo=2", "tracestate: baz=3"],
        has: &["foo=1", "bar=2", "rojo=1", "congo=2", "baz=3"],
        has_not: &["foo=3"],
    },
    Vector {
        source: "test_tracestate_duplicated_keys",
        lines: &["tracestate: foo=1,foo=1", "tracestate: foo=2"],
        has: &["foo=1", "foo=2"],
        has_not: &[],
    },
    Vector {
        source: "test_tracestate_ows_handling",
        lines: &["tracestate: foo=1 \t , \t bar=2, \t baz=3", "tracestate: \t a=1\t \t,\t \tb=2 \t"],
        has: &["foo=1", "bar=2", "baz=3", "a=1", "b=2"],
        has_not: &[],
    },
    Vector {
        source: "test_tracestate_key_illegal_characters",
        lines: &["tracestate: foo =1,FOO=1,foo.bar=1"],
        has: &[],
        has_not: &["foo=1", "bar=1"],
    },
    Vector {
        source: "test_tracestate_key_illegal_vendor_format",
        lines: &["tracestate: foo@=1,@foo=1,foo@@bar=2,foo@bar@baz=3"],
        has: &["foo@=1", "foo@@bar=2", "foo@bar@baz=3"],
        has_not: &["foo=1", "bar=2"],
    },
    Vector {
        source: "test_tracestate_value_illegal_characters",
        lines: &["tracestate: foo=bar=baz,bar=,baz"],
        has: &[],
        has_not: &["foo=bar", "foo=baz", "bar=3", "baz=3"],
    },
];

#[test]
fn tracestate_members_match_as_the_specification_reads_them() {
    for Vector { source, lines, has, has_not } in [SPECIFICATION, TEST_SUITE].into_iter().flatten() {
        for pair in *has {
            assert!(tracestate(lines, pair), "{source}: {pair:?} is in {lines:?}");
        }
        for pair in *has_not {
            assert!(!tracestate(lines, pair), "{source}: {pair:?} is not in {lines:?}");
        }
    }
}

/// Sections "Key" and "Value"; test_tracestate_all_allowed_characters, test_tracestate_key_length_limit.
#[test]
fn all_allowed_characters_and_lengths_match() {
    let key = "abcdefghijklmnopqrstuvwxyz0123456789_-*/@a-z0-9_-*/";
    let value: String = (' '..='~').filter(|char| !",=".contains(*char)).collect();
    let pair = format!("{key}={}", value.trim());
    assert!(tracestate(&[&format!("tracestate: {pair}")], &pair));
    assert!(tracestate(&["tracestate: 0123=1"], "0123=1"));
    for key in
        ["z".repeat(256), format!("{}@{}", "t".repeat(241), "v".repeat(14)), format!("t@{}", "v".repeat(15))]
    {
        assert!(tracestate(&["tracestate: foo=1", &format!("tracestate: {key}=1")], &format!("{key}=1")));
    }
    let longest = format!("foo={}", "v".repeat(256));
    assert!(tracestate(&[&format!("tracestate: {longest}")], &longest));
}

/// The same sections, and Tracestate of the suite: what could never be in a list can't be asked for.
#[test]
fn what_no_trace_state_can_carry_is_refused() {
    let too_long = "z".repeat(257);
    for key in ["FOO", "@vendor", "special.vendor", "foo ", "_foo", "\u{e9}", &too_long] {
        assert!(TracestateCondition::new(key, "1").is_err(), "{key:?}");
    }
    for value in ["", "bar=baz", "a,b", "a ", " a", "a\tb", "\u{e9}", &too_long] {
        assert!(TracestateCondition::new("foo", value).is_err(), "{value:?}");
    }
    for key in ["special@vendor", "special@", "special@@vendor", "special@vendor@tenant", "1special"] {
        TracestateCondition::new(key, "abracadabra").unwrap();
    }
}

/// Section "Tracestate Header Field Values"; test_tracestate_member_count_limit.
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

proptest! {
    #[test]
    fn hostile_trace_state_never_panics_and_never_matches(line in "[ -~\t]{0,200}") {
        let state = TracestateCondition::new("kkkkkkkkkkkkkkkkkkkkkkkk", "vvvvvvvvvvvvvvvvvvvvvvvv").unwrap();
        let line = format!("tracestate: {line}");
        prop_assert!(!ask(&[&line], |request| state.matches(request)));
    }
}
