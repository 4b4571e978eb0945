//! Paths: exact, by their first elements, by a regular expression.

use proptest::prelude::*;
use redirector::context::{Condition, PathCondition, PathPrefixCondition, PathRegexCondition};
use redirector::http1::RequestView;

use crate::{ask_for, typed};

fn exact(target: &str, path: &str) -> bool {
    let condition = typed(path, Condition::Path);
    ask_for("GET", target, &[], |request| condition.matches(request))
}

fn prefix(target: &str, path: &str) -> bool {
    let condition = typed(path, Condition::PathPrefix);
    ask_for("GET", target, &[], |request| condition.matches(request))
}

fn regex(target: &str, pattern: &str) -> bool {
    let condition = typed(pattern, Condition::PathRegex);
    ask_for("GET", target, &[], |request| condition.matches(request))
}

#[test]
fn a_path_is_compared_without_the_query() {
    for target in
        ["/cart", "/cart?id=1", "/cart?", "/cart?a=/b?c", "http://shop/cart?id=1", "HTTPS://a:1/cart"]
    {
        assert!(exact(target, "/cart"), "{target}");
    }
    for target in
        ["/", "/car", "/cart2", "/cart/", "/Cart", "//cart", "/x/cart", "/?/cart", "/x?http://a/cart"]
    {
        assert!(!exact(target, "/cart"), "{target}");
    }
    for target in ["/", "/?a", "http://shop", "http://shop/", "http://shop?a/b"] {
        assert!(exact(target, "/"), "{target}");
    }
}

/// RFC 3986 §6.2.2.1 to §6.2.2.3; each is one path.
#[test]
fn equivalent_paths_are_one_path() {
    for same in [
        &["/caf\u{e9}", "/caf%C3%A9", "/caf%c3%a9", "/%63af%C3%A9"][..],
        &["/a-b_c.d~e", "/a%2Db%5Fc%2Ed%7Ee", "/a%2db%5fc%2ed%7ee"],
        &["/a/b", "/a/./b", "/a/x/../b", "/../a/b", "/a/%2e/b", "/a/x/%2E%2e/b", "/./a/b"],
        &["/a/", "/a/.", "/a/b/.."],
        &["/a%2Fb", "/a%2fb"],
        &["/a%7Bb%7D", "/a{b}"],
        &["/100%25", "/100%"],
        &["/a...b/.c", "/a...b/%2Ec"],
        &["/", "/.", "/..", "/a/.."],
    ] {
        for one in same {
            for other in same {
                assert!(exact(one, other), "{one} is {other}");
            }
        }
    }
    for (one, other) in [
        ("/a%2Fb", "/a/b"),
        ("/a//b", "/a/b"),
        ("/a+b", "/a%20b"),
        ("/a;x", "/a"),
        ("/a%3Fb", "/a"),
        ("/A", "/a"),
    ] {
        assert!(!exact(one, other), "{one} is not {other}");
    }
}

#[test]
fn a_prefix_is_compared_element_by_element() {
    for target in
        ["/api", "/api/", "/api/x", "/api?x", "/api//", "/api/x/y", "/api/x/../..//../api", "http://a/api/x"]
    {
        assert!(prefix(target, "/api"), "{target}");
        assert!(prefix(target, "/api/"), "{target}");
    }
    for target in
        ["/", "/ap", "/apix", "/api2/x", "/x/api", "//api", "/API", "/api/../x", "/api%2Fx", "/?/api"]
    {
        assert!(!prefix(target, "/api"), "{target}");
    }
    assert!(prefix("/a/b/c", "/a/b") && !prefix("/a/bc", "/a/b"));
    assert!(prefix("/caf\u{e9}/x", "/caf%c3%a9"));
}

#[test]
fn a_regular_expression_matches_the_whole_path() {
    assert!(regex("/v1/users?x=1", "/v[12]/.*"));
    assert!(regex("/caf\u{e9}", "/caf%C3%A9"));
    assert!(regex("/a/../v1/x", "/v1/x"));
    assert!(!regex("/v1/users", "/v[12]/"));
    assert!(!regex("/x/v1/users", "/v[12]/.*"));
    assert!(!regex("/v3/users", "/v[12]/.*"));
}

/// RFC 9112 §3.3: the path of these is empty.
#[test]
fn requests_without_a_path_meet_no_path_but_the_prefix_of_all() {
    for (method, target) in [("CONNECT", "db.internal:5432"), ("CONNECT", "[::1]:80"), ("OPTIONS", "*")] {
        let meets = |condition: Condition| ask_for(method, target, &[], |request| condition.matches(request));
        assert!(meets(typed("/", Condition::PathPrefix)), "{method} {target}");
        assert!(meets(typed(".*", Condition::PathRegex)), "{method} {target}");
        assert!(!meets(typed("/", Condition::Path)), "{method} {target}");
        assert!(!meets(typed("/db.internal", Condition::PathPrefix)), "{method} {target}");
        assert!(!meets(typed("/.*", Condition::PathRegex)), "{method} {target}");
    }
    // Extended CONNECT has one (RFC 8441 §4).
    let chat = typed("/chat", Condition::Path);
    assert!(chat.matches(&RequestView::new("CONNECT", "/chat?room=1", &[])));
}

#[test]
fn paths_that_no_request_has_are_refused() {
    for bad in [
        "",
        "cart",
        "http://shop/cart",
        "/cart?id=1",
        "/cart#top",
        "/a\nb",
        "/a\0",
        &format!("/{}", "a".repeat(4096)),
    ] {
        assert!(bad.parse::<PathCondition>().is_err(), "{bad:?}");
        assert!(bad.parse::<PathPrefixCondition>().is_err(), "{bad:?}");
    }
    let error = "cart".parse::<PathCondition>().unwrap_err();
    assert_eq!(
        error.to_string(),
        "`cart` is no path: start with `/`, and leave out host, query (`?…`) and fragment (`#…`)"
    );
}

/// The elements of a path.
fn elements(path: &str) -> Vec<&str> {
    path.trim_end_matches('/').split('/').collect()
}

proptest! {
    #[test]
    fn a_normalised_path_stays_as_it_is(path in "/[ -~\u{e0}-\u{ff}]{0,40}") {
        prop_assume!(!path.contains(['?', '#']));
        let once: PathCondition = path.parse().unwrap();
        let twice: PathCondition = once.as_str().parse().unwrap();
        prop_assert_eq!(&once, &twice);
        prop_assert!(once.as_str().starts_with('/'));
        prop_assert!(once.as_str().split('/').all(|element| element != "." && element != ".."));
    }

    #[test]
    fn a_path_matches_itself_however_it_is_encoded(path in "(/[a-z0-9._~-]{1,6}){1,4}", every in 1..4_usize) {
        let encode = |(at, byte): (usize, u8)| {
            if byte != b'/' && at % every == 0 { format!("%{byte:02x}") } else { char::from(byte).to_string() }
        };
        let encoded: String = path.bytes().enumerate().map(encode).collect();
        prop_assert!(exact(&encoded, &path));
        prop_assert!(exact(&path, &encoded));
    }

    #[test]
    fn a_prefix_takes_what_starts_with_its_elements(
        wide in "(/[ab]{1,2}){0,3}/?",
        path in "(/[ab]{1,2}){0,4}/?",
    ) {
        prop_assume!(wide.starts_with('/') && path.starts_with('/'));
        prop_assert_eq!(prefix(&path, &wide), elements(&path).starts_with(&elements(&wide)));
    }

    #[test]
    fn hostile_targets_never_panic(target in "\\PC{0,60}", path in "/[a-c]{0,3}") {
        let request = RequestView::new("GET", &target, &[]);
        let exact = path.parse::<PathCondition>().unwrap().matches(&request);
        let prefix = path.parse::<PathPrefixCondition>().unwrap().matches(&request);
        let pattern = regex::escape(&path).parse::<PathRegexCondition>().unwrap().matches(&request);
        prop_assert_eq!(exact, pattern);
        prop_assert!(prefix || !exact);
    }
}
