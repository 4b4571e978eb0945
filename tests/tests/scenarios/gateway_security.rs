//! What somebody outside may try on the gateway, and what an ingress that records every byte gets of it.

use std::io::Write as _;

use lab::{Connection, Gateway, GatewayOptions, Lab, Server, eventually, http2_raw};
use serde_json::{Value, json};

use crate::{
    gateway::{INGRESS, KEY, Site, visit},
    scene::{in_lab, text},
};

/// An ingress that answers each request `ok`, and records what it was sent.
struct Recorded {
    gateway: Gateway,
    ingress: Server,
}

impl Recorded {
    fn new(lab: &Lab, arguments: &[&str]) -> Self {
        let ingress = Server::start(&lab.node.netns, lab.node.at(INGRESS), |mut stream, peer| {
            let mut answered = 0;
            let mut waited = 0;
            // Bounded: a test does not take that long.
            while !peer.ended() && waited < 100_000 {
                let complete = requests(&peer.received()).len();
                if answered < complete {
                    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
                    answered += 1;
                }
                std::thread::sleep(std::time::Duration::from_millis(2));
                waited += 1;
            }
            Ok(())
        });
        let gateway = Gateway::start(lab, &GatewayOptions::new(lab.node.at(INGRESS)).with(arguments));
        Self { gateway, ingress }
    }

    /// All requests that came so far, head and body, as a strict server reads them.
    fn requests(&self) -> Vec<String> {
        self.ingress.peers().iter().flat_map(|peer| requests(&peer.received())).collect()
    }

    /// What came, whatever it is.
    fn bytes(&self) -> String {
        let all: Vec<u8> = self.ingress.peers().iter().flat_map(lab::Peer::received).collect();
        String::from_utf8_lossy(&all).into_owned()
    }

    /// Sends bytes as they are; gives the status of each answer until the connection ends or `most` have come.
    fn send(&self, lab: &Lab, bytes: &[u8], most: usize) -> Vec<u16> {
        let mut connection: Connection = lab.client.connect(self.gateway.address());
        let _ = connection.try_send(bytes);
        let mut statuses = Vec::new();
        while statuses.len() < most {
            match connection.try_response("GET") {
                Ok(answer) => statuses.push(answer.status),
                Err(_) => break,
            }
        }
        statuses
    }

    /// The next proper request is the next one that the ingress gets: nothing was left in front of it.
    #[track_caller]
    fn assert_in_step(&self, lab: &Lab, what: &str) {
        let before = self.requests().len();
        assert_eq!(self.send(lab, b"GET /after HTTP/1.1\r\nHost: shop.test\r\n\r\n", 1), [200], "{what}");
        eventually("the request after it is there", || self.requests().len() > before);
        let came = self.requests();
        assert!(
            came.iter().any(|request| request.starts_with("GET /after HTTP/1.1\r\n")),
            "{what}: {came:?}"
        );
        assert_eq!(came.len(), before + 1, "{what}: {came:?}");
        // A request whose body broke off may only be left on a connection that has ended.
        eventually(&format!("connections in use are between two requests, after {what}"), || {
            let open = self.ingress.peers().into_iter().filter(|peer| !peer.ended());
            let mut received = open.map(|peer| peer.received());
            received.all(|bytes| requests(&bytes).iter().map(String::len).sum::<usize>() == bytes.len())
        });
    }
}

/// Splits at the lengths that heads declare; an incomplete rest is left out.
fn requests(bytes: &[u8]) -> Vec<String> {
    let mut text = String::from_utf8_lossy(bytes).into_owned();
    let mut found = Vec::new();
    while let Some((head, rest)) = text.split_once("\r\n\r\n") {
        let field = |name: &str| {
            head.lines()
                .filter_map(|line| line.split_once(':'))
                .find(|(key, _)| key.eq_ignore_ascii_case(name))
                .map(|(_, value)| value.trim().to_owned())
        };
        let body = match (field("transfer-encoding"), field("content-length")) {
            (Some(_), Some(_)) => panic!("two lengths: {head}"),
            (Some(coding), None) => {
                assert_eq!(coding, "chunked", "{head}");
                // The last chunk, and trailers up to the empty line.
                let last =
                    if rest.starts_with("0\r\n") { Some(0) } else { rest.find("\r\n0\r\n").map(|at| at + 2) };
                let Some(last) = last else { break };
                let Some(end) = rest[last..].find("\r\n\r\n") else { break };
                last + end + 4
            }
            (None, Some(length)) => length.parse().expect("a length"),
            (None, None) => 0,
        };
        if rest.len() < body {
            break;
        }
        let length = head.len() + 4 + body;
        found.push(text[..length].to_owned());
        text = text[length..].to_owned();
    }
    found
}

#[test]
fn context_smuggled_from_outside_is_stripped_in_every_form() {
    in_lab(|lab| {
        let recorded = Recorded::new(lab, &[]);
        // Alice's context has a name of its own.
        recorded.gateway.create(&lab.dev, &["--key", KEY]);
        let fields = [
            format!("X-Redirector-Intercept: {KEY}"),
            format!("x-redirector-intercept: other\r\nX-REDIRECTOR-INTERCEPT: {KEY}"),
            format!("x_redirector_intercept: {KEY}"),
            format!("X-Redirector_Intercept: {KEY}"),
            format!("x.redirector.intercept: {KEY}"),
            format!("baggage: redirector={KEY}"),
            format!("Baggage: a=1\r\nBAGGAGE: b=2,redirector={KEY};p=1"),
            format!("baggage: %72edirector={KEY}"),
            format!("baggage:\t redirector \t=\t {KEY} ,"),
            format!("tracestate: a=1,redirector={KEY}"),
            format!("TraceState: redirector={KEY}\r\ntracestate: b=2"),
            format!("Connection: x-redirector-intercept\r\nx-redirector-intercept: {KEY}"),
            format!("Connection: close, x-keep\r\nx-keep: 1\r\nx-redirector-intercept: {KEY}"),
            format!("Cookie: redirector-preview={KEY}"),
        ];
        for field in &fields {
            let request = format!("GET / HTTP/1.1\r\nHost: shop.test\r\n{field}\r\n\r\n");
            let statuses = recorded.send(lab, request.as_bytes(), 1);
            assert!(statuses == [200] || statuses == [404], "{field}: {statuses:?}");
        }
        // In a trailer section, which servers may take for header fields.
        let trailers = format!(
            "POST / HTTP/1.1\r\nHost: shop.test\r\nTransfer-Encoding: chunked\r\nTrailer: x-redirector-intercept, x-sum\r\n\r\n\
             1\r\na\r\n0\r\nX-Redirector-Intercept: {KEY}\r\nbaggage: redirector={KEY}\r\nx-sum: 1\r\n\r\n"
        );
        assert_eq!(recorded.send(lab, trailers.as_bytes(), 1), [200]);
        // In HTTP/2, where names have no case and cookies come in crumbs.
        let request = |more: Value| {
            let mut headers = vec![
                json!([":method", "GET"]),
                json!([":scheme", "http"]),
                json!([":path", "/"]),
                json!([":authority", "shop.test"]),
            ];
            headers.extend(more.as_array().expect("headers").iter().cloned());
            json!({ "headers": headers })
        };
        let statuses = http2_raw(
            lab,
            &lab.client,
            recorded.gateway.address(),
            &json!([
                request(json!([["x-redirector-intercept", KEY], ["x-redirector-intercept", "b"]])),
                request(json!([["x_redirector_intercept", KEY]])),
                request(json!([
                    ["baggage", format!("redirector={KEY}")],
                    ["tracestate", format!("redirector={KEY}")]
                ])),
                request(json!([["X-Redirector-Intercept", KEY]])),
                request(json!([["cookie", "a=1"], ["cookie", "redirector-preview=junk"]])),
            ]),
        );
        assert_eq!(statuses[..3], ["200", "200", "200"]);
        assert!(statuses[3] != "200", "upper case is malformed in HTTP/2: {statuses:?}");
        assert_eq!(statuses[4], "404");
        let bytes = recorded.bytes();
        assert!(
            !bytes.contains(KEY)
                && !bytes.to_lowercase().replace(['_', '.'], "-").contains("redirector-intercept: "),
            "{bytes}"
        );
        assert!(!bytes.contains("redirector="), "{bytes}");
        assert!(bytes.contains("a=1") && bytes.contains("b=2"), "what is not ours stays: {bytes}");
    });
}

#[test]
fn requests_that_two_servers_could_cut_differently_leave_nothing_behind() {
    in_lab(|lab| {
        let recorded = Recorded::new(lab, &[]);
        let head = "POST /first HTTP/1.1\r\nHost: shop.test\r\n";
        let smuggled = "GET /smuggled HTTP/1.1\r\nHost: shop.test\r\n\r\n";
        let chunked_end = "0\r\n\r\n";
        let cases = [
            // Both lengths, either way round.
            format!(
                "{head}Content-Length: {}\r\nTransfer-Encoding: chunked\r\n\r\n{chunked_end}{smuggled}",
                chunked_end.len() + smuggled.len()
            ),
            format!("{head}Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n{chunked_end}{smuggled}"),
            // Two lengths, lists of them, odd numbers.
            format!("{head}Content-Length: 0\r\nContent-Length: {}\r\n\r\n{smuggled}", smuggled.len()),
            format!("{head}Content-Length: 0, {}\r\n\r\n{smuggled}", smuggled.len()),
            format!("{head}Content-Length: +0\r\n\r\n{smuggled}"),
            format!("{head}Content-Length: 0x0\r\n\r\n{smuggled}"),
            format!("{head}Content-Length: -1\r\n\r\n{smuggled}"),
            // Codings that some take for chunked.
            format!("{head}Transfer-Encoding: xchunked\r\n\r\n{chunked_end}{smuggled}"),
            format!("{head}Transfer-Encoding: chunked, identity\r\n\r\n{chunked_end}{smuggled}"),
            format!("{head}Transfer-Encoding : chunked\r\n\r\n{chunked_end}{smuggled}"),
            format!("{head}Transfer-Encoding:\x0bchunked\r\n\r\n{chunked_end}{smuggled}"),
            format!("{head}Transfer-Encoding\r\n : chunked\r\n\r\n{chunked_end}{smuggled}"),
            format!("{head}X: y\r\n Transfer-Encoding: chunked\r\n\r\n{chunked_end}{smuggled}"),
            format!(
                "POST /first HTTP/1.0\r\nHost: shop.test\r\nTransfer-Encoding: chunked\r\n\r\n{chunked_end}{smuggled}"
            ),
            // Chunks that are none.
            format!("{head}Transfer-Encoding: chunked\r\n\r\n0_0\r\n\r\n{smuggled}"),
            format!("{head}Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n{smuggled}"),
            format!("{head}Transfer-Encoding: chunked\r\n\r\n10000000000000000\r\n{smuggled}"),
            format!("{head}Transfer-Encoding: chunked\r\n\r\n1\r\nab\r\n{chunked_end}{smuggled}"),
            // Line ends.
            "GET /first HTTP/1.1\r\nHost: shop.test\r\nX: a\rGET /smuggled HTTP/1.1\r\n\r\n".to_owned(),
            "GET /first HTTP/1.1\r\nHost: shop.test\r\nX: a\0b\r\n\r\n".to_owned(),
            "GET /first\r\nX HTTP/1.1\r\nHost: shop.test\r\n\r\n".to_owned(),
            // An upgrade that only the ingress would believe.
            "GET /first HTTP/1.1\r\nHost: shop.test\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQ\r\n\r\n".to_owned(),
            "GET /first HTTP/1.1\r\nHost: shop.test\r\nConnection: Upgrade\r\nUpgrade: websocket, h2c\r\n\r\n".to_owned(),
            // A WebSocket that begins somewhere in a body.
            format!(
                "GET /first HTTP/1.1\r\nHost: shop.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: {}\r\n\r\n{smuggled}",
                smuggled.len()
            ),
        ];
        for case in &cases {
            let before = recorded.requests().len();
            // Whatever is pipelined behind a request that was understood is a request of the same visitor.
            let most = 1 + case.matches("/smuggled").count();
            let statuses = recorded.send(lab, case.as_bytes(), most);
            let requests = recorded.requests();
            let new = &requests[before..];
            assert!(
                statuses.iter().all(|status| matches!(status, 200 | 400 | 405 | 501)),
                "{case:?}: {statuses:?}"
            );
            assert!(
                new.iter().all(|request| !request.to_lowercase().contains("upgrade")),
                "{case:?}: {new:?}"
            );
            assert!(new.len() <= 1 || statuses == [200, 200], "{case:?}: {statuses:?} {new:?}");
            recorded.assert_in_step(lab, case);
        }
    });
}

#[test]
fn http2_requests_cannot_carry_what_http1_would_read_differently() {
    in_lab(|lab| {
        let recorded = Recorded::new(lab, &[]);
        let request = |path: &str, more: Value, body: Option<&str>| {
            let mut headers = vec![
                json!([":method", "POST"]),
                json!([":scheme", "http"]),
                json!([":path", path]),
                json!([":authority", "shop.test"]),
            ];
            headers.extend(more.as_array().expect("headers").iter().cloned());
            json!({ "headers": headers, "body": body })
        };
        let smuggled = "GET /smuggled HTTP/1.1\r\nHost: shop.test\r\n\r\n";
        let cases = [
            request("/first", json!([["content-length", "0"]]), Some(smuggled)),
            request("/first", json!([["content-length", "500"]]), Some("short")),
            request("/first", json!([["transfer-encoding", "chunked"]]), Some("0\r\n\r\n")),
            request("/first", json!([["connection", "upgrade"], ["upgrade", "h2c"]]), None),
            request("/first", json!([["x", "a\r\ntransfer-encoding: chunked"]]), Some("0\r\n\r\n")),
            request("/first", json!([["x\r\nhost", "evil.test"]]), None),
            request("/first", json!([["x: y\r\nz", "a"]]), None),
            request("/first HTTP/1.1\r\nHost: evil.test\r\nX: y", json!([]), None),
            request("/first /smuggled", json!([]), None),
            request("http://evil.test/", json!([]), None),
            request("*", json!([]), None),
            request("/first", json!([["host", "evil.test"]]), None),
            request("/first", json!([["", "empty"]]), None),
        ];
        for case in &cases {
            let status = http2_raw(lab, &lab.client, recorded.gateway.address(), &json!([case])).remove(0);
            assert!(
                status != "200" || recorded.bytes().matches("/first HTTP/1.1").count() <= 1,
                "{case}: {status}"
            );
            let bytes = recorded.bytes();
            assert!(!bytes.contains("/smuggled HTTP/1.1") && !bytes.contains("evil.test"), "{case}: {bytes}");
            for line in bytes.to_lowercase().lines() {
                assert!(!line.starts_with("upgrade:"), "{case}: {bytes}");
            }
            recorded.assert_in_step(lab, &case.to_string());
        }
    });
}

#[test]
fn a_host_that_is_two_hosts_is_none() {
    in_lab(|lab| {
        let arguments = ["--preview-domain", "preview.test", "--public-url", "http://gateway.test"];
        let recorded = Recorded::new(lab, &[&arguments[..], &["--host", "shop.test"]].concat());
        let created = recorded.gateway.create(&lab.dev, &["--key", KEY]);
        let id = text(&created, "share_link").rsplit('/').next().expect("an id").to_owned();
        let preview = format!("{id}.preview.test");
        let request = |target: &str, hosts: &[&str]| {
            let hosts: String = hosts.iter().map(|host| format!("Host: {host}\r\n")).collect();
            recorded.send(lab, format!("GET {target} HTTP/1.1\r\n{hosts}\r\n").as_bytes(), 1)
        };
        for (target, hosts, status) in [
            ("/", &["shop.test"][..], 200),
            ("/", &[&*preview], 200),
            ("http://shop.test/", &["shop.test"], 200),
            ("/", &[&*preview, "shop.test"], 400),
            ("/", &["shop.test", "shop.test"], 400),
            (&*format!("http://{preview}/"), &["shop.test"], 400),
            ("http://shop.test/", &[&*preview], 400),
            ("http://shop.test@evil.test/", &["shop.test"], 400),
            ("/", &["shop.test:80@evil.test"], 400),
            ("/", &["shop.test, evil.test"], 400),
            ("/", &[&*format!("{preview}:x")], 400),
            ("/", &[""], 400),
            ("/", &[], 400),
            ("/", &["evil.test"], 421),
            ("/", &[&*format!("{preview}.evil.test")], 421),
            ("/", &["preview.test"], 421),
            ("/", &[&*format!("{preview}.")], 200),
        ] {
            let statuses = request(target, hosts);
            assert_eq!(statuses, [status], "{target} {hosts:?}");
        }
        for request in recorded.requests() {
            assert!(!request.contains("evil.test"), "{request}");
            let host = request.lines().filter(|line| line.to_lowercase().starts_with("host:")).count();
            assert_eq!(host, 1, "{request}");
        }
        // A preview's own host cannot be had by a header that says so.
        recorded.send(lab, format!("GET /x HTTP/1.1\r\nHost: shop.test\r\nX-Forwarded-Host: {preview}\r\nForwarded: host={preview}\r\n\r\n").as_bytes(), 1);
        let last = recorded
            .requests()
            .into_iter()
            .find(|request| request.starts_with("GET /x "))
            .expect("the request");
        assert!(!last.contains(&id) && !last.contains(KEY), "{last}");
    });
}

#[test]
fn a_share_link_leads_nowhere_else() {
    in_lab(|lab| {
        let Site { gateway, .. } = &Site::new(lab, &[]);
        let created = gateway.create(&lab.dev, &["--key", KEY]);
        let link = text(&created, "share_link");
        let path = &link[link.find("/_p/").expect("a path")..];
        for to in [
            "//evil.test",
            "/%2Fevil.test",
            "%2F%2Fevil.test",
            "https://evil.test",
            "https:evil.test",
            "/%5Cevil.test",
            "%5C%5Cevil.test",
            "/%09/evil.test",
            "%09//evil.test",
            "/%252F/evil.test",
            "/%0D%0ALocation:%20https://evil.test",
            "javascript:alert(1)",
            "/%00",
            "@evil.test",
            ".evil.test",
            "/..//evil.test",
        ] {
            let opened = visit(&lab.client, gateway, &format!("http://shop.test{path}?to={to}"), &[], &[]);
            assert_eq!((opened.status, &*opened.header("location")), (303, "/"), "{to}");
            assert_eq!(opened.all("location").len(), 1);
        }
    });
}

#[test]
fn methods_that_show_or_tunnel_are_refused() {
    in_lab(|lab| {
        let recorded = Recorded::new(lab, &[]);
        for (request, status) in [
            ("TRACE / HTTP/1.1\r\nHost: shop.test\r\n\r\n", 405),
            ("CONNECT evil.test:443 HTTP/1.1\r\nHost: evil.test:443\r\n\r\n", 405),
            ("OPTIONS * HTTP/1.1\r\nHost: shop.test\r\n\r\n", 400),
        ] {
            assert_eq!(recorded.send(lab, request.as_bytes(), 1), [status], "{request}");
        }
        assert_eq!(recorded.bytes(), "");
    });
}

#[test]
fn who_says_nothing_or_little_is_not_waited_for_but_who_waits_for_an_answer_is() {
    in_lab(|lab| {
        let Site { gateway, .. } = &Site::new(lab, &[]);
        let mut patient = lab.client.connect(gateway.address());
        // Longer than the gateway waits for a head.
        patient.send("GET /slow?ms=33000 HTTP/1.1\r\nHost: shop.test\r\n\r\n");
        let silent = ["", "GET / HTTP/1.1\r\nHost: shop.te", "PRI * HT"].map(|start| {
            let mut connection = lab.client.connect(gateway.address());
            connection.send(start);
            connection
        });
        // Reads give up after the lab's own deadline, which is shorter than the gateway's.
        let ended = |mut connection: Connection| {
            (0..4).any(|_| connection.try_rest().is_ok_and(|rest| !rest.starts_with(b"HTTP/1.1 200")))
        };
        for connection in silent {
            assert!(ended(connection), "the connection is still there");
        }
        let answer = (0..4).find_map(|_| patient.try_response("GET").ok()).expect("an answer");
        assert_eq!(answer.status, 200);
    });
}
