//! The head of an HTTP/2 request: as matchers see it, and as it is sent on. Pure.

use crate::http1::RequestView;
use http::{HeaderMap, Method, Request, Version, header};
use httparse::Header;

/// Shows a request head to `look` as matchers know them from HTTP/1.1: header names in lower case; `:authority` as
/// `host` when there is no such line (RFC 9113 §8.3.1), the crumbs of a cookie in one line (§8.2.3).
pub(super) fn view<T>(head: &Request<()>, look: impl FnOnce(&RequestView<'_>) -> T) -> T {
    let fields = head.headers();
    let cookie = joined_cookie(fields);
    let mut headers: Vec<Header<'_>> = Vec::with_capacity(fields.len() + 1);
    if let Some(authority) = head.uri().authority()
        && !fields.contains_key(header::HOST)
    {
        headers.push(Header { name: "host", value: authority.as_str().as_bytes() });
    }
    let others = fields.iter().filter(|(name, _)| cookie.is_none() || *name != header::COOKIE);
    headers.extend(others.map(|(name, value)| Header { name: name.as_str(), value: value.as_bytes() }));
    if let Some(cookie) = &cookie {
        headers.push(Header { name: "cookie", value: cookie });
    }
    look(&RequestView::new(head.method().as_str(), target(head), &headers))
}

/// The request target of HTTP/1.1: the path, or the authority of a CONNECT to somewhere else.
pub(super) fn target(head: &Request<()>) -> &str {
    let uri = head.uri();
    match (uri.path_and_query(), uri.authority()) {
        (Some(path), _) => path.as_str(),
        (None, Some(authority)) => authority.as_str(),
        (None, None) => "/",
    }
}

/// The head to send on: all of it as it came.
pub(super) fn forwarded(head: &Request<()>) -> Request<()> {
    let mut forwarded = head.clone();
    let uri = head.uri();
    // Without an authority the URI has no scheme either, which h2 lets pass for requests that came from HTTP/1.1.
    if uri.scheme().is_none() && uri.authority().is_none() {
        *forwarded.version_mut() = Version::HTTP_11;
    }
    forwarded
}

/// GET, HEAD, OPTIONS or TRACE (RFC 9110 §9.2.1): may be sent a second time.
pub(super) fn is_safe(head: &Request<()>) -> bool {
    head.method().is_safe()
}

/// Asks for another protocol on the stream (RFC 8441 §4), as WebSockets do.
pub(super) fn is_extended_connect(head: &Request<()>) -> bool {
    head.method() == Method::CONNECT && head.extensions().get::<h2::ext::Protocol>().is_some()
}

/// gRPC clients take errors from trailers, not from statuses.
pub(super) fn is_grpc(head: &Request<()>) -> bool {
    head.headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

/// The value of a cookie that came in several lines.
fn joined_cookie(fields: &HeaderMap) -> Option<Vec<u8>> {
    let mut crumbs = fields.get_all(header::COOKIE).iter();
    let mut joined = crumbs.next()?.as_bytes().to_vec();
    let mut several = false;
    for crumb in crumbs {
        several = true;
        joined.extend_from_slice(b"; ");
        joined.extend_from_slice(crumb.as_bytes());
    }
    several.then_some(joined)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    fn lines(head: &Request<()>, name: &str) -> Vec<String> {
        view(head, |view| {
            view.header_lines(name).map(|line| String::from_utf8_lossy(line).into_owned()).collect()
        })
    }

    fn get(uri: &str) -> Request<()> {
        Request::get(uri).version(Version::HTTP_2).body(()).unwrap()
    }

    #[test]
    fn the_authority_is_seen_as_host_unless_there_is_a_host() {
        let mut head = get("http://pod.test:80/a?b=c");
        assert_eq!(lines(&head, "Host"), ["pod.test:80"]);
        assert_eq!(view(&head, |view| (view.method.to_owned(), view.target.to_owned())).1, "/a?b=c");
        head.headers_mut().insert("host", HeaderValue::from_static("other.test"));
        assert_eq!(lines(&head, "host"), ["other.test"]);
        assert_eq!(lines(&get("/a"), "host"), [""; 0]);
    }

    #[test]
    fn every_line_is_seen_and_cookie_crumbs_are_one() {
        let mut head = get("http://pod.test/");
        for value in ["a=1", "b=2; c=3", "d=4"] {
            head.headers_mut().append("cookie", HeaderValue::from_static(value));
            head.headers_mut().append("x-dev", HeaderValue::from_static(value));
        }
        assert_eq!(lines(&head, "cookie"), ["a=1; b=2; c=3; d=4"]);
        assert_eq!(lines(&head, "x-dev"), ["a=1", "b=2; c=3", "d=4"]);
    }

    #[test]
    fn a_head_is_sent_on_as_it_came() {
        for uri in ["http://pod.test/a?b", "https://pod.test/", "/a", "*"] {
            let head = get(uri);
            let sent = forwarded(&head);
            assert_eq!(sent.uri(), head.uri());
            assert_eq!(sent.version() == Version::HTTP_2, head.uri().authority().is_some(), "{uri}");
        }
        let connect = Request::connect("other.test:80").version(Version::HTTP_2).body(()).unwrap();
        assert_eq!((target(&connect), forwarded(&connect).version()), ("other.test:80", Version::HTTP_2));
        assert!(!is_extended_connect(&connect));
    }

    proptest! {
        #[test]
        fn joining_crumbs_loses_nothing(crumbs in proptest::collection::vec("[a-z]{1,5}=[a-z0-9]{0,5}", 2..6)) {
            let mut head = get("http://pod.test/");
            for crumb in &crumbs {
                head.headers_mut().append("cookie", HeaderValue::from_str(crumb).unwrap());
            }
            prop_assert_eq!(lines(&head, "cookie"), [crumbs.join("; ")]);
        }
    }
}
