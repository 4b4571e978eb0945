//! Who asked, and how: `Forwarded` (RFC 7239) and `X-Forwarded-*`.

use http::{HeaderMap, HeaderName, HeaderValue, header::FORWARDED};
use ipnet::IpNet;
use std::net::IpAddr;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");

/// Peers that tell the truth about who is behind them: load balancers in front of the gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedPeers(Vec<IpNet>);

/// What the gateway itself sees of a request's way.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// The other end of the connection.
    pub peer: IpAddr,
    /// The host that the client asked, with its port if it said one.
    pub host: &'a str,
    /// `http` or `https`.
    pub scheme: &'a str,
}

impl TrustedPeers {
    #[must_use]
    pub fn new(networks: Vec<IpNet>) -> Self {
        Self(networks)
    }

    #[must_use]
    pub fn has(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }

    /// The client: the peer, or the last one in front of trusted peers.
    #[must_use]
    pub fn client(&self, headers: &HeaderMap, peer: IpAddr) -> IpAddr {
        let mut client = peer.to_canonical();
        if !self.has(client) {
            return client;
        }
        let lines: Vec<&str> =
            headers.get_all(X_FORWARDED_FOR).iter().filter_map(|line| line.to_str().ok()).collect();
        for hop in lines.iter().flat_map(|line| line.split(',')).rev() {
            let Some(address) = address(hop.trim()) else { return client };
            client = address.to_canonical();
            if !self.has(client) {
                break;
            }
        }
        client
    }
}

/// `ADDRESS`, `ADDRESS:PORT`, `[ADDRESS]` or `[ADDRESS]:PORT`.
fn address(text: &str) -> Option<IpAddr> {
    let bracketed = || text.strip_prefix('[')?.split_once(']')?.0.parse().ok();
    let with_port = || text.rsplit_once(':')?.0.parse::<std::net::Ipv4Addr>().ok().map(IpAddr::V4);
    text.parse().ok().or_else(bracketed).or_else(with_port)
}

/// Says who asked. What the request claims itself goes, unless its peer is trusted; then lists grow by the peer, and
/// what is there of host, scheme and port stays.
pub fn set_forwarded(headers: &mut HeaderMap, seen: Seen<'_>, trusted: &TrustedPeers) {
    let peer = seen.peer.to_canonical();
    let is_trusted = trusted.has(peer);
    if !is_trusted {
        let claims: Vec<HeaderName> =
            headers.keys().filter(|name| is_claim(name.as_str())).cloned().collect();
        for name in claims {
            headers.remove(name);
        }
    }
    let client = peer.to_string();
    let node = if peer.is_ipv6() { format!("\"[{client}]\"") } else { client.clone() };
    let element = format!("for={node};host={};proto={}", quoted(seen.host), seen.scheme);
    append(headers, FORWARDED, element);
    append(headers, X_FORWARDED_FOR, client);
    let port = port(seen);
    for (name, value) in
        [(X_FORWARDED_HOST, seen.host), (X_FORWARDED_PROTO, seen.scheme), (X_FORWARDED_PORT, port)]
    {
        if !headers.contains_key(&name)
            && let Ok(value) = HeaderValue::from_str(value)
        {
            headers.insert(name, value);
        }
    }
}

/// Fields in which proxies say where a request comes from, in any spelling that a server may take for them.
fn is_claim(name: &str) -> bool {
    let name = super::context::folded(name);
    name.starts_with("x-forwarded-")
        || ["forwarded", "x-real-ip", "x-client-ip", "true-client-ip"].contains(&&*name)
}

/// The list as one line, with one element more.
fn append(headers: &mut HeaderMap, name: HeaderName, element: String) {
    let lines = headers.get_all(&name).iter().filter_map(|line| line.to_str().ok());
    let list: Vec<&str> = lines.chain([element.as_str()]).collect();
    if let Ok(value) = HeaderValue::try_from(list.join(", ")) {
        headers.insert(name, value);
    }
}

/// A quoted string (RFC 9110 §5.6.4); hosts have a colon, which a token may not.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

fn port(seen: Seen<'_>) -> &str {
    let given = seen.host.rsplit_once(':').map(|(_, port)| port).filter(|port| port.parse::<u16>().is_ok());
    given.unwrap_or(if seen.scheme == "https" { "443" } else { "80" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    fn seen(peer: &str) -> Seen<'static> {
        Seen { peer: peer.parse().unwrap(), host: "shop.test:8443", scheme: "https" }
    }

    fn trusted() -> TrustedPeers {
        TrustedPeers::new(vec!["10.0.0.0/8".parse().unwrap()])
    }

    #[test]
    fn the_ingress_is_told_who_asked_and_how() {
        let mut headers = headers(&[]);
        set_forwarded(&mut headers, seen("192.0.2.7"), &trusted());
        assert_eq!(headers["forwarded"], "for=192.0.2.7;host=\"shop.test:8443\";proto=https");
        assert_eq!(headers["x-forwarded-for"], "192.0.2.7");
        assert_eq!(headers["x-forwarded-host"], "shop.test:8443");
        assert_eq!(headers["x-forwarded-proto"], "https");
        assert_eq!(headers["x-forwarded-port"], "8443");
    }

    #[test]
    fn an_ipv6_client_is_in_brackets_and_quotes() {
        let mut headers = headers(&[]);
        let seen = Seen { peer: "2001:db8::1".parse().unwrap(), host: "shop.test", scheme: "http" };
        set_forwarded(&mut headers, seen, &trusted());
        assert_eq!(headers["forwarded"], "for=\"[2001:db8::1]\";host=\"shop.test\";proto=http");
        assert_eq!(
            (&headers["x-forwarded-for"], &headers["x-forwarded-port"]),
            (&"2001:db8::1".parse().unwrap(), &"80".parse().unwrap())
        );
    }

    #[test]
    fn what_a_client_claims_goes() {
        let mut headers = headers(&[
            ("forwarded", "for=127.0.0.1"),
            ("x-forwarded-for", "127.0.0.1"),
            ("x-forwarded-for", "::1"),
            ("x-forwarded-host", "admin.test"),
            ("x_forwarded_host", "admin.test"),
            ("x-forwarded-prefix", "/evil"),
            ("x-real-ip", "127.0.0.1"),
        ]);
        set_forwarded(&mut headers, seen("::ffff:192.0.2.7"), &trusted());
        let text = format!("{headers:?}");
        assert!(!text.contains("127.0.0.1") && !text.contains("admin") && !text.contains("evil"), "{text}");
        assert_eq!(headers["x-forwarded-for"], "192.0.2.7");
    }

    #[test]
    fn what_a_trusted_peer_says_stays() {
        let mut headers = headers(&[
            ("x-forwarded-for", "198.51.100.1"),
            ("x-forwarded-proto", "http"),
            ("forwarded", "for=198.51.100.1"),
        ]);
        set_forwarded(&mut headers, seen("10.1.2.3"), &trusted());
        assert_eq!(headers["x-forwarded-for"], "198.51.100.1, 10.1.2.3");
        assert_eq!(headers["x-forwarded-proto"], "http");
        assert_eq!(
            headers["forwarded"],
            "for=198.51.100.1, for=10.1.2.3;host=\"shop.test:8443\";proto=https"
        );
    }

    #[test]
    fn the_client_is_the_last_one_that_nobody_vouches_for() {
        let client = |lines: &[(&'static str, &str)], peer: &str| {
            trusted().client(&headers(lines), peer.parse().unwrap()).to_string()
        };
        assert_eq!(client(&[("x-forwarded-for", "127.0.0.1")], "192.0.2.7"), "192.0.2.7");
        assert_eq!(
            client(&[("x-forwarded-for", "1.1.1.1, 192.0.2.9:1234, 10.9.9.9")], "10.0.0.1"),
            "192.0.2.9"
        );
        assert_eq!(client(&[("x-forwarded-for", "192.0.2.9, nonsense")], "10.0.0.1"), "10.0.0.1");
        assert_eq!(
            client(&[("x-forwarded-for", "192.0.2.9"), ("x-forwarded-for", "[2001:db8::1]:80")], "10.0.0.1"),
            "2001:db8::1"
        );
        assert_eq!(client(&[], "10.0.0.1"), "10.0.0.1");
    }

    proptest! {
        #[test]
        fn a_stranger_cannot_say_anything(name in "(x[-_]forwarded[-_][a-z]{1,5}|x-real-ip|forwarded)", value in "[ -~]{0,20}") {
            let (mut claimed, mut plain) = (HeaderMap::new(), HeaderMap::new());
            claimed.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_bytes(value.as_bytes()).unwrap());
            set_forwarded(&mut claimed, seen("192.0.2.7"), &trusted());
            set_forwarded(&mut plain, seen("192.0.2.7"), &trusted());
            prop_assert_eq!(claimed, plain);
        }
    }
}
