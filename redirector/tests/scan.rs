//! The promises of the scanners that the eBPF programs read live connections with: they see what the framers see, or give
//! up, and never miss a request of an intercept.

mod http1;

use http1::{Event, Message, any_request, any_response, http_like_bytes, run_requests, run_responses, whole};
use proptest::prelude::*;
use redirector::context::{Condition, Matcher, Needle};
use redirector::http1::{MAX_HEAD, MethodKind, RequestFramer, RequestStep};
use redirector_common::fnv1a_32;
use redirector_common::scan::{BLOCK, Block, END, HEAD, Needles, NoNeedles, RequestScan, ResponseScan};
use std::collections::BTreeSet;

/// What a scan said: where in the stream something ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    Head(usize),
    End(usize),
}

/// What a scan said, and whether it gave up.
type Scanned = (Vec<Seen>, bool);

fn push_seen(seen: &mut Vec<Seen>, event: u32, at: usize) {
    if event & HEAD != 0 {
        seen.push(Seen::Head(at));
    }
    if event & END != 0 {
        seen.push(Seen::End(at));
    }
}

/// How bytes get into a scan.
#[derive(Debug, Clone, Copy)]
enum By {
    /// Each one.
    Byte,
    /// As the eBPF program does it: in blocks, of these sizes in turn, with bytes skipped where that is allowed.
    Blocks(&'static [usize]),
}

const BLOCKS: [By; 4] =
    [By::Blocks(&[BLOCK]), By::Blocks(&[1, 2, 3]), By::Blocks(&[7, 64, 1, 333]), By::Blocks(&[16])];

/// Either scan.
trait Scan {
    fn push(&mut self, byte: u8) -> u32;
    fn read(&mut self, block: &Block, at: u32, end: u32) -> (u32, u32);
    fn skippable(&self) -> u32;
    fn skip(&mut self, bytes: u32);
    /// Something has ended.
    fn ended(&mut self, event: u32);
}

fn drive(scan: &mut impl Scan, stream: &[u8], by: By) -> Vec<Seen> {
    let mut seen = Vec::new();
    let By::Blocks(sizes) = by else {
        for (index, &byte) in stream.iter().enumerate() {
            let event = scan.push(byte);
            push_seen(&mut seen, event, index + 1);
            scan.ended(event);
        }
        return seen;
    };
    let mut sizes = sizes.iter().cycle();
    let mut at = 0;
    while at < stream.len() {
        let skipped = (scan.skippable() as usize).min(stream.len() - at);
        if skipped > 0 {
            scan.skip(u32::try_from(skipped).unwrap());
            at += skipped;
            continue;
        }
        let len = (*sizes.next().unwrap()).min(stream.len() - at);
        // What is behind the end must not be looked at.
        let mut block = Block { bytes: [b'\n'; BLOCK] };
        block.bytes[..len].copy_from_slice(&stream[at..at + len]);
        let mut within = 0;
        while within < len {
            let (next, event) =
                scan.read(&block, u32::try_from(within).unwrap(), u32::try_from(len).unwrap());
            assert!(next as usize > within && next as usize <= len, "from {within} to {next} of {len}");
            within = next as usize;
            push_seen(&mut seen, event, at + within);
            scan.ended(event);
        }
        at += len;
    }
    seen
}

struct Requests<'a, N> {
    scan: RequestScan,
    needles: &'a N,
    interesting: Vec<bool>,
}

impl<N: Needles> Scan for Requests<'_, N> {
    fn push(&mut self, byte: u8) -> u32 {
        self.scan.push(byte, self.needles)
    }

    fn read(&mut self, block: &Block, at: u32, end: u32) -> (u32, u32) {
        self.scan.read(block, at, end, self.needles)
    }

    fn skippable(&self) -> u32 {
        self.scan.skippable()
    }

    fn skip(&mut self, bytes: u32) {
        self.scan.skip(bytes);
    }

    fn ended(&mut self, event: u32) {
        if event & HEAD != 0 {
            self.interesting.push(self.scan.is_interesting());
        }
    }
}

struct Responses<'a> {
    scan: ResponseScan,
    methods: std::iter::Cycle<std::slice::Iter<'a, MethodKind>>,
    method: Option<&'a MethodKind>,
}

impl Scan for Responses<'_> {
    fn push(&mut self, byte: u8) -> u32 {
        self.scan.push(byte, self.method == Some(&MethodKind::Head))
    }

    fn read(&mut self, block: &Block, at: u32, end: u32) -> (u32, u32) {
        self.scan.read(block, at, end, self.method == Some(&MethodKind::Head))
    }

    fn skippable(&self) -> u32 {
        self.scan.skippable()
    }

    fn skip(&mut self, bytes: u32) {
        self.scan.skip(bytes);
    }

    fn ended(&mut self, event: u32) {
        if event & END != 0 {
            self.method = self.methods.next();
        }
    }
}

fn scan_requests(stream: &[u8], needles: &impl Needles, by: By) -> (Scanned, Vec<bool>) {
    let mut requests = Requests { scan: RequestScan::default(), needles, interesting: Vec::new() };
    let seen = drive(&mut requests, stream, by);
    ((seen, requests.scan.is_raw()), requests.interesting)
}

fn scan_responses(stream: &[u8], methods: &[MethodKind], by: By) -> Scanned {
    let mut methods = methods.iter().cycle();
    let method = methods.next();
    let mut responses = Responses { scan: ResponseScan::default(), methods, method };
    let seen = drive(&mut responses, stream, by);
    (seen, responses.scan.is_raw())
}

/// The same from the framers' events.
fn seen_by_framers(events: &[Event]) -> Vec<Seen> {
    let mut at = 0;
    let mut seen = Vec::new();
    for event in events {
        at += event.bytes().len();
        match event {
            Event::Head(_) => seen.push(Seen::Head(at)),
            Event::End => seen.push(Seen::End(at)),
            _ => {}
        }
    }
    seen
}

/// Nothing is seen that the framers don't see; all of it is, or the scan has given up.
#[track_caller]
fn assert_agrees((scanned, raw): &Scanned, framed: &[Seen], stream: &[u8]) {
    let shown = String::from_utf8_lossy(stream);
    assert!(framed.starts_with(scanned), "{scanned:?} but {framed:?} in {shown:?}");
    assert!(*raw || scanned.len() == framed.len(), "{scanned:?} is short of {framed:?} in {shown:?}");
}

#[track_caller]
fn assert_requests_agree(stream: &[u8]) -> Scanned {
    let (scanned, _) = scan_requests(stream, &NoNeedles, By::Byte);
    assert_agrees(&scanned, &seen_by_framers(&run_requests(stream, &whole())), stream);
    for by in BLOCKS {
        assert_eq!(scan_requests(stream, &NoNeedles, by).0, scanned, "{by:?}");
    }
    scanned
}

#[track_caller]
fn assert_responses_agree(stream: &[u8], methods: &[MethodKind]) -> Scanned {
    let scanned = scan_responses(stream, methods, By::Byte);
    let mut framed = seen_by_framers(&run_responses(stream, methods, &whole()));
    // Only the framer is told that the stream is over, which ends a body without a length.
    if !scanned.1 && framed.len() == scanned.0.len() + 1 && framed.last() == Some(&Seen::End(stream.len())) {
        framed.pop();
    }
    assert_agrees(&scanned, &framed, stream);
    for by in BLOCKS {
        assert_eq!(scan_responses(stream, methods, by), scanned, "{by:?}");
    }
    scanned
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn valid_requests_end_where_the_framer_says(requests in prop::collection::vec(any_request(), 1..5)) {
        let stream: Vec<u8> = requests.iter().flat_map(Message::bytes).collect();
        let (_, raw) = assert_requests_agree(&stream);
        prop_assert!(!raw, "gave up");
    }

    #[test]
    fn valid_responses_end_where_the_framer_says(responses in prop::collection::vec(any_response(), 1..5)) {
        let stream: Vec<u8> = responses.iter().flat_map(Message::bytes).collect();
        let finals = responses.iter().filter(|response| !response.interim);
        let methods: Vec<MethodKind> = finals.map(|response| response.method).collect();
        let (_, raw) = assert_responses_agree(&stream, &methods);
        prop_assert!(!raw, "gave up");
    }

    #[test]
    fn any_requests_are_seen_as_the_framer_sees_them_or_given_up(stream in http_like_bytes()) {
        assert_requests_agree(&stream);
    }

    #[test]
    fn any_responses_are_seen_as_the_framer_sees_them_or_given_up(stream in http_like_bytes(), head: bool) {
        assert_responses_agree(&stream, &[if head { MethodKind::Head } else { MethodKind::Other }]);
    }

    #[test]
    fn damaged_requests_are_seen_as_the_framer_sees_them_or_given_up(
        requests in prop::collection::vec(any_request(), 1..4),
        at in any::<prop::sample::Index>(),
        byte in prop_oneof![any::<u8>(), prop::sample::select(b"\r\n:,; \t\x00\x7f0".to_vec())],
        instead: bool,
    ) {
        let mut stream: Vec<u8> = requests.iter().flat_map(Message::bytes).collect();
        let at = at.index(stream.len());
        if instead { stream[at] = byte } else { stream.insert(at, byte) }
        assert_requests_agree(&stream);
    }

    #[test]
    fn damaged_responses_are_seen_as_the_framer_sees_them_or_given_up(
        responses in prop::collection::vec(any_response(), 1..4),
        at in any::<prop::sample::Index>(),
        byte in prop_oneof![any::<u8>(), prop::sample::select(b"\r\n:,; \t\x00\x7f0".to_vec())],
        instead: bool,
    ) {
        let mut stream: Vec<u8> = responses.iter().flat_map(Message::bytes).collect();
        let at = at.index(stream.len());
        if instead { stream[at] = byte } else { stream.insert(at, byte) }
        let finals = responses.iter().filter(|response| !response.interim);
        let methods: Vec<MethodKind> = finals.map(|response| response.method).collect();
        assert_responses_agree(&stream, &methods);
    }

    #[test]
    fn garbage_never_panics(stream in prop::collection::vec(any::<u8>(), 0..2048)) {
        assert_requests_agree(&stream);
        assert_responses_agree(&stream, &[MethodKind::Other]);
    }

    #[test]
    fn no_request_of_an_intercept_is_missed(
        matcher in any_matcher(),
        requests in prop::collection::vec(request_with_context(), 1..4),
    ) {
        let stream = requests.concat();
        let wanted = Wanted::of(&matcher);
        let ((seen, _), interesting) = scan_requests(&stream, &wanted, By::Byte);
        for by in BLOCKS {
            prop_assert_eq!(&scan_requests(&stream, &wanted, by).1, &interesting);
        }
        let matches = matches_of(&stream, &matcher);
        prop_assert!(seen.len() >= 2 * requests.len(), "gave up on {:?}", String::from_utf8_lossy(&stream));
        for (index, (matches, interesting)) in matches.iter().zip(&interesting).enumerate() {
            prop_assert!(!matches || *interesting, "request {index} of {:?}", String::from_utf8_lossy(&stream));
        }
    }

    #[test]
    fn requests_without_any_of_the_names_stay_live(requests in prop::collection::vec(any_request(), 1..4)) {
        let stream: Vec<u8> = requests.iter().flat_map(Message::bytes).collect();
        let key = Matcher { conditions: vec![Condition::Key("abcdefghijklmnop".parse().unwrap())] };
        let (_, interesting) = scan_requests(&stream, &Wanted::of(&key), By::Byte);
        prop_assert_eq!(interesting, vec![false; requests.len()]);
    }
}

/// As the agent fills the eBPF map.
#[derive(Debug, Default)]
struct Wanted {
    headers: BTreeSet<u32>,
    lists: BTreeSet<u32>,
    members: BTreeSet<u32>,
}

impl Wanted {
    fn of(matcher: &Matcher) -> Self {
        let mut wanted = Self::default();
        for needle in matcher.needles().unwrap() {
            match needle {
                Needle::Header(name) => drop(wanted.headers.insert(fnv1a_32(name.as_bytes()))),
                Needle::Member { field, key } => {
                    wanted.lists.insert(fnv1a_32(field.as_bytes()));
                    wanted.members.insert(fnv1a_32(key.as_bytes()));
                }
            }
        }
        wanted
    }
}

impl Needles for Wanted {
    fn header(&self, name: u32) -> bool {
        self.headers.contains(&name)
    }

    fn list(&self, name: u32) -> bool {
        self.lists.contains(&name)
    }

    fn member(&self, key: u32) -> bool {
        self.members.contains(&key)
    }
}

fn matches_of(stream: &[u8], matcher: &Matcher) -> Vec<bool> {
    let mut framer = RequestFramer::new();
    let mut rest = stream;
    let mut matches = Vec::new();
    loop {
        match framer.next(rest, |view| matcher.matches(view)) {
            RequestStep::Head { head, decision } => {
                matches.push(decision);
                rest = &rest[head.len..];
            }
            RequestStep::Body(len) => rest = &rest[len..],
            RequestStep::End => {}
            RequestStep::NeedMore(_) | RequestStep::Raw(_) => return matches,
        }
    }
}

fn any_matcher() -> impl Strategy<Value = Matcher> {
    let condition = prop_oneof![
        Just(Condition::Header("x-user=alice".parse().unwrap())),
        Just(Condition::Header("Upgrade-Insecure-Requests=1".parse().unwrap())),
        Just(Condition::Baggage("user=alice".parse().unwrap())),
        Just(Condition::Baggage("User=a b".parse().unwrap())),
        Just(Condition::Tracestate("user=alice".parse().unwrap())),
        Just(Condition::Key("abcdefghijklmnop".parse().unwrap())),
    ];
    prop::collection::vec(condition, 1..3).prop_map(|conditions| Matcher { conditions })
}

/// Requests that carry context, in every way that is allowed and in some that are not.
fn request_with_context() -> impl Strategy<Value = Vec<u8>> {
    let blank = || "[ \t]{0,2}";
    let key = || prop::sample::select(vec!["user", "User", "redirector", "x", "other", ""]);
    let value = || prop::sample::select(vec!["alice", "a%20b", "abcdefghijklmnop", "", "=", "alice;p=1"]);
    let member =
        (blank(), key(), blank(), prop::sample::select(vec!["=", "", "=="]), blank(), value(), blank())
            .prop_map(|(a, key, b, equals, c, value, d)| format!("{a}{key}{b}{equals}{c}{value}{d}"));
    let list = prop::collection::vec(member, 0..4).prop_map(|members| members.join(","));
    let list_name =
        || prop::sample::select(vec!["baggage", "Baggage", "BAGGAGE", "tracestate", "TraceState", "cookie"]);
    let header_name = prop::sample::select(vec![
        "x-user",
        "X-User",
        "X-REDIRECTOR-INTERCEPT",
        "upgrade-insecure-requests",
        "x-other",
    ]);
    let header = (header_name, blank(), prop_oneof![value(), Just("1")], blank())
        .prop_map(|(name, a, value, b)| format!("{name}:{a}{value}{b}\r\n"));
    let line = prop_oneof![
        (list_name(), blank(), list).prop_map(|(name, blank, list)| format!("{name}:{blank}{list}\r\n")),
        header,
        Just("Accept: */*\r\n".to_owned()),
    ];
    let lines = prop::collection::vec(line, 0..6).prop_map(|lines| lines.concat());
    (lines, any::<bool>()).prop_map(|(lines, body)| {
        let (length, body) = if body { ("Content-Length: 7\r\n", "user=ab") } else { ("", "") };
        format!("POST /?user=alice HTTP/1.1\r\n{lines}{length}\r\n{body}").into_bytes()
    })
}

#[test]
fn what_the_framer_takes_for_raw_is_given_up() {
    let lines = [
        "Content-Length: 4\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 4",
        "Content-Length: 4\r\ncontent-length: 4",
        "Content-Length: 4, 4",
        "Content-Length:",
        "Content-Length: +4",
        "Content-Length: 4 4",
        "Content-Length: 18446744073709551616",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: chunkedx",
        "Transfer-Encoding: chunke",
        "Transfer-Encoding:",
        "Transfer-Encoding : chunked",
        " Content-Length: 4",
        "X: 1\r\n\tfolded",
        "Transfer-Encoding:\r\n chunked",
        ": empty name",
        "no colon",
        "X: 1\nTransfer-Encoding: chunked",
        "X: 1\rTransfer-Encoding: chunked",
    ];
    for lines in lines {
        let (seen, raw) =
            assert_requests_agree(format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n").as_bytes());
        assert!(raw && seen.is_empty(), "{lines:?}");
    }
    for stream in [
        "\x16\x03\x01",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "SSH-2.0-OpenSSH_9.2p1\r\n",
        "GET /\u{e9} HTTP/1.1\r\n\r\n",
    ] {
        assert!(assert_requests_agree(stream.as_bytes()).1, "{stream:?}");
    }
}

#[test]
fn connections_that_change_their_protocol_are_given_up() {
    for head in ["GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n", "CONNECT a:1 HTTP/1.1\r\n\r\n"] {
        let ((seen, raw), _) = scan_requests(head.as_bytes(), &NoNeedles, By::Byte);
        assert!(raw && seen.is_empty(), "{head:?}");
    }
    assert!(scan_responses(b"HTTP/1.1 101 Switching Protocols\r\n\r\n", &[MethodKind::Other], By::Byte).1);
}

#[test]
fn bodies_of_two_gibibytes_are_given_up() {
    for (length, raw) in [("2147483600", false), ("2147483648", true), ("99999999999", true)] {
        let head = format!("PUT / HTTP/1.1\r\nContent-Length: {length}\r\n\r\n");
        assert_eq!(scan_requests(head.as_bytes(), &NoNeedles, By::Byte).0.1, raw, "{length}");
        let response = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
        assert_eq!(scan_responses(response.as_bytes(), &[MethodKind::Other], By::Byte).1, raw, "{length}");
    }
    for (size, raw) in
        [("7fffffff", false), ("80000000", true), ("0000000000000001", false), ("00000000000000001", true)]
    {
        let head = format!("PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{size}\r\n");
        assert_eq!(scan_requests(head.as_bytes(), &NoNeedles, By::Byte).0.1, raw, "{size}");
    }
}

#[test]
fn a_response_without_a_length_never_ends() {
    let stream = b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(scan_responses(stream, &[MethodKind::Other], By::Byte), (vec![Seen::Head(19)], false));
}

#[test]
fn heads_are_bounded_as_the_framer_bounds_them() {
    let start = "GET / HTTP/1.1\r\nX: ";
    for (len, ends) in [(MAX_HEAD, true), (MAX_HEAD + 1, false)] {
        let head = format!("{start}{}\r\n\r\n", "x".repeat(len - start.len() - 4));
        let (seen, raw) = assert_requests_agree(head.as_bytes());
        assert_eq!((seen.len(), raw), if ends { (2, false) } else { (0, true) }, "{len}");
    }
    for (lines, ends) in [(256, true), (257, false)] {
        let head = format!("GET / HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(lines));
        let (seen, raw) = assert_requests_agree(head.as_bytes());
        assert_eq!((seen.len(), raw), if ends { (2, false) } else { (0, true) }, "{lines}");
    }
}
