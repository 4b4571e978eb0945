//! Where a share link leads: to a path of its own host, and nowhere else.

use super::link::OWN_PATHS;
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

/// What a URI's path and query may not have as it is (RFC 3986 §3.3 and §3.4); `%` stays, it is encoded already.
const NOT_IN_PATH: AsciiSet =
    CONTROLS.add(b' ').add(b'"').add(b'<').add(b'>').add(b'`').add(b'{').add(b'}').add(b'|').add(b'^');

/// The path, with its query, that a share link leads to: the one in `?to=`, if it is one of this very host, else `/`.
///
/// Browsers take `//host`, and `/\host`, for another host, and drop tabs and line breaks before they look. Who decodes
/// once more than was encoded sees what is inside. None of these is a path here, whatever it is wrapped in.
#[must_use]
pub fn destination(query: Option<&str>) -> String {
    let given =
        query.and_then(|query| form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "to"));
    let Some((_, to)) = given else { return "/".to_owned() };
    local_path(&to).unwrap_or_else(|| "/".to_owned())
}

/// The text as a path of this host, or nothing.
#[must_use]
pub fn local_path(text: &str) -> Option<String> {
    const MOST_WRAPPINGS: usize = 8;
    let mut layer = text.to_owned();
    for _ in 0..MOST_WRAPPINGS {
        if !is_local(&layer) {
            return None;
        }
        let decoded = percent_decode_str(&layer).decode_utf8_lossy().into_owned();
        if decoded == layer {
            return Some(utf8_percent_encode(text, &NOT_IN_PATH).to_string());
        }
        layer = decoded;
    }
    None
}

fn is_local(text: &str) -> bool {
    let path = text.split(['?', '#']).next().unwrap_or_default();
    path.starts_with('/')
        && !path.contains("//")
        && !text.contains('\\')
        && !text.chars().any(|character| character.is_control() || character == '\u{fffd}')
        && !path.starts_with(OWN_PATHS)
        && text.len() <= 4096
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    #[test]
    fn a_share_link_leads_to_a_path_of_its_own_host_only() {
        for (query, path) in [
            (None, "/"),
            (Some(""), "/"),
            (Some("to="), "/"),
            (Some("to=%2Fcart%3Fid%3D1"), "/cart?id=1"),
            (Some("to=/a%20b/%C3%BC"), "/a%20b/%C3%BC"),
            (Some("to=/login?next=https://shop.test/"), "/login?next=https://shop.test/"),
            (Some("to=/a#b"), "/a#b"),
            (Some("from=x&to=/a&to=//evil.test"), "/a"),
        ] {
            assert_eq!(destination(query), path, "{query:?}");
        }
        for to in [
            "//evil.test",
            "/\\evil.test",
            "\\\\evil.test",
            "https://evil.test",
            "evil.test",
            "javascript:alert(1)",
            "/%2Fevil.test",
            "/%252Fevil.test",
            "/%25255Cevil.test",
            "/%5Cevil.test",
            "/\t/evil.test",
            "/%09/evil.test",
            "/a\r\nSet-Cookie: x=y",
            "/%0D%0Ax",
            "/a//b",
            "/./%2F/evil.test",
            "/_p/abc",
            "/%5f%70/abc",
            "%2F%2Fevil.test",
            "/\u{0}",
        ] {
            let query: String =
                form_urlencoded::Serializer::new(String::new()).append_pair("to", to).finish();
            assert_eq!(destination(Some(&query)), "/", "{to:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_a_link_says_the_browser_stays_here(to in "[/\\\\%25fFcC\t .:a]{0,12}") {
            if let Some(path) = local_path(&to) {
                prop_assert!(path.starts_with('/') && !path.starts_with("//") && !path.contains('\\'), "{path}");
                prop_assert!(HeaderValue::from_str(&path).is_ok() && path.is_ascii());
            }
        }
    }
}
