//! Header fields that are for the next hop only (RFC 9110 §7.6.1).

use http::{HeaderMap, HeaderName, HeaderValue, header};

/// What proxies must not pass on, named in `Connection` or not.
const HOP_BY_HOP: [HeaderName; 9] = [
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    // Of an upgrade to HTTP/2 without TLS, which nobody may make through the gateway (RFC 9113 §3.1).
    HeaderName::from_static("http2-settings"),
];

/// Fields that stay although a `Connection` line names them: without them a request means something else.
const KEPT: [HeaderName; 6] = [
    header::HOST,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::AUTHORIZATION,
    header::COOKIE,
    header::SET_COOKIE,
];

/// Removes them, and what `Connection` lines name.
pub fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = connection_options(headers)
        .filter_map(|option| HeaderName::from_bytes(option).ok())
        .filter(|name| !KEPT.contains(name))
        .collect();
    for name in named.into_iter().chain(HOP_BY_HOP) {
        headers.remove(name);
    }
}

/// The one value of `TE` that HTTP/2 has (RFC 9113 §8.2.2).
#[must_use]
pub fn accepts_trailers(headers: &HeaderMap) -> bool {
    let mut codings =
        headers.get_all(header::TE).iter().flat_map(|line| line.as_bytes().split(|&byte| byte == b','));
    codings.any(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"trailers"))
}

/// Asks for a WebSocket (RFC 6455 §4.1): the one protocol that a connection may switch to.
#[must_use]
pub fn asks_for_websocket(headers: &HeaderMap) -> bool {
    let is_websocket = |line: &HeaderValue| line.as_bytes().trim_ascii().eq_ignore_ascii_case(b"websocket");
    connection_options(headers).any(|option| option.eq_ignore_ascii_case(b"upgrade"))
        && headers.get_all(header::UPGRADE).iter().count() == 1
        && headers.get(header::UPGRADE).is_some_and(is_websocket)
}

/// Says so.
pub fn ask_for_websocket(headers: &mut HeaderMap) {
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
}

fn connection_options(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let lines = headers.get_all(header::CONNECTION).iter();
    lines.flat_map(|line| line.as_bytes().split(|&byte| byte == b',').map(<[u8]>::trim_ascii))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn fields_for_one_hop_go_and_others_stay() {
        let mut all = headers(&[
            ("connection", "close, X-Secret"),
            ("connection", "keep-alive"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("http2-settings", "AAMAAABkAAQ"),
            ("proxy-authorization", "Basic x"),
            ("x-secret", "1"),
            ("x-other", "2"),
            ("trailer", "x-sum"),
        ]);
        remove_hop_by_hop(&mut all);
        assert_eq!(all, headers(&[("x-other", "2"), ("trailer", "x-sum")]));
    }

    #[test]
    fn trailers_are_one_coding_of_several() {
        assert!(accepts_trailers(&headers(&[("te", "deflate;q=0.5"), ("te", "gzip, Trailers")])));
        assert!(!accepts_trailers(&headers(&[("te", "deflate"), ("x-te", "trailers")])));
    }

    #[test]
    fn connection_cannot_take_away_what_a_request_is_about() {
        let mut all = headers(&[
            ("connection", "host, cookie, content-length, authorization"),
            ("host", "shop.test"),
            ("cookie", "a=b"),
            ("content-length", "3"),
            ("authorization", "Bearer x"),
        ]);
        remove_hop_by_hop(&mut all);
        assert_eq!(all.len(), 4);
    }

    #[test]
    fn only_websockets_are_asked_for() {
        assert!(asks_for_websocket(&headers(&[
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "WebSocket")
        ])));
        for lines in [
            &[("connection", "upgrade")][..],
            &[("upgrade", "websocket")],
            &[("connection", "upgrade"), ("upgrade", "h2c")],
            &[("connection", "upgrade"), ("upgrade", "websocket, h2c")],
            &[("connection", "upgrade"), ("upgrade", "websocket"), ("upgrade", "h2c")],
        ] {
            assert!(!asks_for_websocket(&headers(lines)), "{lines:?}");
        }
    }
}
