//! Members of `baggage`. The vectors are the examples of W3C Baggage and what its public test suite checks; each names
//! its section or test.

use proptest::prelude::*;
use redirector::context::{BaggageCondition, Condition};

use crate::{ask, typed};

fn baggage(lines: &[&str], pair: &str) -> bool {
    let condition = typed(pair, Condition::Baggage);
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
        source: "Header Content, Example",
        lines: &[
            "baggage: key1=value1;property1;property2, key2 = value2, key3=value3; propertyKey=propertyValue",
        ],
        has: &["key1=value1", "key2=value2", "key3=value3"],
        has_not: &["propertyKey=propertyValue", "property1=property2", "key1=value1;property1;property2"],
    },
    Vector {
        source: "Examples of HTTP headers, single header",
        lines: &["baggage: userId=alice,serverNode=DF%2028,isProduction=false"],
        has: &["userId=alice", "serverNode=DF 28", "isProduction=false"],
        has_not: &["serverNode=DF%2028", "userId=al", "userid=alice", "isProduction=fals"],
    },
    Vector {
        source: "Examples of HTTP headers, percent-encoded",
        lines: &["baggage: userId=Am%C3%A9lie,serverNode=DF%2028,isProduction=false"],
        has: &["userId=Am\u{e9}lie", "serverNode=DF 28"],
        has_not: &["userId=Am%C3%A9lie", "userId=Ame\u{301}lie", "userId=Am\u{c3}\u{a9}lie"],
    },
    Vector {
        source: "Examples of HTTP headers, several header lines",
        lines: &["baggage: userId=alice", "Baggage: serverNode=DF%2028,isProduction=false"],
        has: &["userId=alice", "serverNode=DF 28", "isProduction=false"],
        has_not: &["userId=alice,serverNode=DF 28"],
    },
    Vector {
        source: "Examples of HTTP headers, spaces around names and values",
        lines: &["baggage: userId =   alice", "baggage: serverNode = DF%2028, isProduction = false"],
        has: &["userId=alice", "serverNode=DF 28", "isProduction=false"],
        has_not: &["userId=   alice"],
    },
    Vector {
        source: "Header Content, baggage-string: keys need not be unique",
        lines: &["baggage: k=1,k=2"],
        has: &["k=1", "k=2"],
        has_not: &["k=1,k=2"],
    },
    Vector {
        source: "Header Content, value: what is no UTF-8 becomes U+FFFD",
        lines: &["baggage: k=a%FFb,l=%C3"],
        has: &["k=a\u{fffd}b", "l=\u{fffd}"],
        has_not: &["k=a%FFb", "k=ab", "l=%C3"],
    },
    Vector {
        source: "Header Content, value: what need not be encoded may be; the digits in any case (RFC 3986 §2.1)",
        lines: &["baggage: userId=%61lice,name=Am%c3%a9lie"],
        has: &["userId=alice", "name=Am\u{e9}lie"],
        has_not: &["userId=%61lice"],
    },
    Vector {
        source: "Header Content, value: any number of equal signs",
        lines: &["baggage: k=a=b==,l=="],
        has: &["k=a=b==", "l=="],
        has_not: &["k=a", "k=b=="],
    },
    Vector {
        source: "Header Content, key: a token, case-sensitive, never encoded",
        lines: &["baggage: user%49d=alice,!#$%&'*+-.^_`|~09azAZ=1"],
        has: &["user%49d=alice", "!#$%&'*+-.^_`|~09azAZ=1"],
        has_not: &["userId=alice", "USER%49D=alice"],
    },
];

const TEST_SUITE: &[Vector] = &[
    Vector {
        source: "test_parse_multiple",
        lines: &["baggage: SomeKey=SomeValue;SomeProp,SomeKey2=SomeValue2;ValueProp=PropVal"],
        has: &["SomeKey=SomeValue", "SomeKey2=SomeValue2"],
        has_not: &["ValueProp=PropVal", "SomeKey=SomeValue2"],
    },
    Vector {
        source: "test_parse_multiple_ows, test_parse_multiple_kv_property_ows",
        lines: &[
            "baggage: SomeKey \t = \t SomeValue \t ; \t SomeProp \t , \t SomeKey2 \t = \t SomeValue2 \t ; \t ValueProp \t = \t PropVal",
        ],
        has: &["SomeKey=SomeValue", "SomeKey2=SomeValue2"],
        has_not: &["ValueProp=PropVal", "SomeKey= \t SomeValue \t "],
    },
    Vector {
        source: "test_parse_multiple_equals",
        lines: &["baggage: SomeKey=SomeValue=equals"],
        has: &["SomeKey=SomeValue=equals"],
        has_not: &["SomeKey=SomeValue"],
    },
    Vector {
        source: "test_parse_percent_encoded, test_parse_percent_encoded_ows",
        lines: &["baggage: SomeKey \t = \t %09%20%22%27%3B%3Dasdf%21%40%23%24%25%5E%26%2A%28%29 \t "],
        has: &["SomeKey=\t \"';=asdf!@#$%^&*()"],
        has_not: &["SomeKey=%09%20%22%27%3B%3Dasdf%21%40%23%24%25%5E%26%2A%28%29"],
    },
    Vector {
        source: "test_parse_multiple_properties_same_name",
        lines: &["baggage: SomeKey=SomeValue;SomeProp;SomeProp=PropValue;SomeProp=AnotherPropValue"],
        has: &["SomeKey=SomeValue"],
        has_not: &["SomeProp=PropValue", "SomeProp=AnotherPropValue"],
    },
    Vector {
        source: "test_parse_property_without_value_no_percent_decoding",
        lines: &["baggage: SomeKey=SomeValue;ValueProp%20%09%20%3D%20%09%20PropVal"],
        has: &["SomeKey=SomeValue"],
        has_not: &["ValueProp=PropVal"],
    },
];

/// Against the grammar of section "Header Content", so that what a receiver does is its own affair. A member that is
/// none is passed over, and does no harm to the others.
const BAD: &[Vector] = &[
    Vector {
        source: "a member without `=`, one without a key, empty ones",
        lines: &["baggage: userId, =alice,, k=1 ,"],
        has: &["k=1"],
        has_not: &["userId=alice", "alice=userId"],
    },
    Vector {
        source: "a key with a space in it",
        lines: &["baggage: user userId=alice,k=x userId=alice"],
        has: &[],
        has_not: &["userId=alice", "k=x"],
    },
    Vector {
        source: "a quoted value: quotes are no syntax here",
        lines: &["baggage: userId=\"alice\",k=\"a,userId2=alice\""],
        has: &[],
        has_not: &["userId=alice", "userId2=alice"],
    },
    Vector {
        source: "`%` that encodes nothing stays; `+` is no space",
        lines: &["baggage: k=100%,l=a%zzb,m=a+b"],
        has: &["k=100%", "l=a%zzb", "m=a+b"],
        has_not: &["m=a b"],
    },
    Vector {
        source: "an encoded NUL, an encoded comma, an encoded semicolon are part of the value",
        lines: &["baggage: userId=alice%00,k=a%2Cl=b,m=a%3Bp"],
        has: &["k=a,l=b", "m=a;p"],
        has_not: &["userId=alice", "l=b", "m=a"],
    },
    Vector { source: "no header", lines: &[], has: &[], has_not: &["userId=alice"] },
    Vector {
        source: "other headers",
        lines: &["x-baggage: userId=alice", "baggage2: userId=alice", "bagage: userId=alice"],
        has: &[],
        has_not: &["userId=alice"],
    },
];

#[test]
fn baggage_members_match_as_the_specification_reads_them() {
    for Vector { source, lines, has, has_not } in [SPECIFICATION, TEST_SUITE, BAD].into_iter().flatten() {
        for pair in *has {
            assert!(baggage(lines, pair), "{source}: {pair:?} is in {lines:?}");
        }
        for pair in *has_not {
            assert!(!baggage(lines, pair), "{source}: {pair:?} is not in {lines:?}");
        }
    }
}

/// Section "Limits": 64 members and 8192 bytes are the least that everyone must carry. (LimitsTest of the suite.)
#[test]
fn baggage_beyond_the_least_limits_is_still_seen() {
    let list = |members: usize, value: &str| {
        let members: Vec<String> = (0..members).map(|number| format!("key{number}={value}")).collect();
        format!("baggage: {}", members.join(","))
    };
    assert!(baggage(&[&list(64, "value")], "key63=value"));
    assert!(baggage(&[&list(512, "0123456789a")], "key511=0123456789a"));
    let long = "0123456789".repeat(400);
    assert!(baggage(&[&format!("baggage: a={long}")], &format!("a={long}")));
    let line = format!("{},last=alice", list(200, &"v".repeat(50)));
    assert!(line.len() > 8192);
    assert!(baggage(&[&line], "last=alice"));
}

#[test]
fn a_member_is_encoded_as_the_specification_asks() {
    let member = |pair: &str| pair.parse::<BaggageCondition>().unwrap().member();
    assert_eq!(member("userId=Am\u{e9}lie"), "userId=Am%C3%A9lie");
    assert_eq!(member("serverNode=DF 28"), "serverNode=DF%2028");
    assert_eq!(member("k=\t \"';=,\\%"), "k=%09%20%22'%3B=%2C%5C%25");
}

proptest! {
    #[test]
    fn any_baggage_value_matches_in_its_encoded_forms(value in "\\PC{1,40}", other in "\\PC{1,40}") {
        prop_assume!(!value.trim_matches([' ', '\t']).is_empty());
        let condition = BaggageCondition::new("k", &value).unwrap();
        let encoded: String = value.bytes().map(|byte| format!("%{byte:02X}")).collect();
        for member in [format!("k={encoded}"), condition.member()] {
            let line = format!("baggage: a=b, {member};p=q, c=d");
            prop_assert!(ask(&[&line], |request| condition.matches(request)));
            if other != value && !other.trim_matches([' ', '\t']).is_empty() {
                let condition = BaggageCondition::new("k", &other).unwrap();
                prop_assert!(!ask(&[&line], |request| condition.matches(request)));
            }
        }
    }

    #[test]
    fn hostile_baggage_never_panics_and_never_matches(line in "[ -$&-~\t]{0,200}") {
        // The value cannot occur: without `%` the line has no way to say it.
        let condition = BaggageCondition::new("k", "\u{1f980}").unwrap();
        let line = format!("baggage: {line}");
        prop_assert!(!ask(&[&line], |request| condition.matches(request)));
    }
}
