//! Shared by the framing tests: drivers that behave as an I/O loop does, and generators of messages.
#![allow(dead_code, reason = "each test binary uses its half")]
#![allow(clippy::unwrap_used, reason = "test code, though not within a test function")]

use proptest::prelude::*;
use redirector::http1::{
    MAX_HEAD, MethodKind, RawReason, RequestContext, RequestFramer, RequestStep, ResponseFramer, ResponseStep,
};

/// What a framer said, with the bytes; consecutive pieces of a body are one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Head(Vec<u8>),
    Body(Vec<u8>),
    End,
    Switch,
    Raw(RawReason),
    Closed,
    Truncated,
}

impl Event {
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Head(bytes) | Self::Body(bytes) => bytes,
            _ => &[],
        }
    }
}

/// Sizes of the pieces in which a stream arrives, used in turn.
#[derive(Debug, Clone)]
pub struct Cuts(Vec<usize>);

impl Cuts {
    pub fn every(size: usize) -> Self {
        Self(vec![size])
    }
}

/// The whole stream at once.
pub fn whole() -> Cuts {
    Cuts::every(usize::MAX)
}

pub fn cuts() -> impl Strategy<Value = Cuts> {
    prop_oneof![
        Just(Cuts::every(1)),
        prop::collection::vec(1usize..8, 1..20).prop_map(Cuts),
        prop::collection::vec(1usize..200, 1..20).prop_map(Cuts),
    ]
}

/// A receive buffer that is filled piece by piece.
struct Arriving<'a> {
    stream: &'a [u8],
    start: usize,
    end: usize,
    sizes: std::iter::Cycle<std::slice::Iter<'a, usize>>,
}

impl<'a> Arriving<'a> {
    fn new(stream: &'a [u8], cuts: &'a Cuts) -> Self {
        Self { stream, start: 0, end: 0, sizes: cuts.0.iter().cycle() }
    }

    fn buffer(&self) -> &'a [u8] {
        &self.stream[self.start..self.end]
    }

    fn consume(&mut self, len: usize) -> &'a [u8] {
        let consumed = &self.buffer()[..len];
        self.start += len;
        consumed
    }

    /// False at the end of the stream.
    fn receive(&mut self) -> bool {
        let more = self.end < self.stream.len();
        self.end = self.end.saturating_add(*self.sizes.next().unwrap()).min(self.stream.len());
        more
    }
}

fn push_body(events: &mut Vec<Event>, bytes: &[u8]) {
    assert!(!bytes.is_empty(), "no progress");
    match events.last_mut() {
        Some(Event::Body(body)) => body.extend_from_slice(bytes),
        _ => events.push(Event::Body(bytes.to_vec())),
    }
}

pub fn run_requests(stream: &[u8], cuts: &Cuts) -> Vec<Event> {
    let mut framer = RequestFramer::new();
    let mut arriving = Arriving::new(stream, cuts);
    let mut events = Vec::new();
    loop {
        match framer.next(arriving.buffer(), |view| view.method.len()) {
            RequestStep::NeedMore(_) => {
                assert!(arriving.buffer().len() < MAX_HEAD, "holds back more than a buffer");
                if !arriving.receive() {
                    return events;
                }
            }
            RequestStep::Head { head, decision } => {
                let bytes = arriving.consume(head.len);
                let start = bytes.iter().position(|byte| !b"\r\n".contains(byte)).unwrap();
                assert_eq!(bytes[start + decision], b' ', "decided on another head");
                events.push(Event::Head(bytes.to_vec()));
            }
            RequestStep::Body(len) => push_body(&mut events, arriving.consume(len)),
            RequestStep::End => events.push(Event::End),
            RequestStep::Raw(reason) => {
                events.push(Event::Raw(reason));
                return events;
            }
        }
    }
}

/// `methods` of the requests in their order, used in turn.
pub fn run_responses(stream: &[u8], methods: &[MethodKind], cuts: &Cuts) -> Vec<Event> {
    let mut framer = ResponseFramer::new();
    let mut methods = methods.iter().cycle();
    let mut request = RequestContext { method: *methods.next().unwrap_or(&MethodKind::Other) };
    let mut arriving = Arriving::new(stream, cuts);
    let mut events = Vec::new();
    let mut eof = false;
    loop {
        let last = match framer.next(arriving.buffer(), request, eof) {
            ResponseStep::NeedMore => {
                assert!(!eof, "waits for bytes that will never come");
                assert!(arriving.buffer().len() < MAX_HEAD, "holds back more than a buffer");
                eof = !arriving.receive();
                continue;
            }
            ResponseStep::Head(head) => {
                events.push(Event::Head(arriving.consume(head.len).to_vec()));
                continue;
            }
            ResponseStep::Body(len) => {
                push_body(&mut events, arriving.consume(len));
                continue;
            }
            ResponseStep::End => {
                request.method = *methods.next().unwrap_or(&MethodKind::Other);
                events.push(Event::End);
                continue;
            }
            ResponseStep::Closed => Event::Closed,
            ResponseStep::Truncated => Event::Truncated,
            ResponseStep::Switch => Event::Switch,
            ResponseStep::Raw(reason) => Event::Raw(reason),
        };
        events.push(last);
        return events;
    }
}

/// A valid message, and how it must be framed.
#[derive(Debug, Clone)]
pub struct Message {
    pub head: String,
    pub body: Vec<u8>,
    /// Method of the request that a response answers.
    pub method: MethodKind,
    pub interim: bool,
}

impl Message {
    pub fn bytes(&self) -> Vec<u8> {
        [self.head.as_bytes(), &self.body].concat()
    }

    pub fn events(&self) -> Vec<Event> {
        let mut events = vec![Event::Head(self.head.clone().into_bytes())];
        events.extend((!self.body.is_empty()).then(|| Event::Body(self.body.clone())));
        events.extend((!self.interim).then_some(Event::End));
        events
    }
}

/// The framing header line, empty or with its CR LF, and the body as it travels.
fn any_body() -> impl Strategy<Value = (String, Vec<u8>)> {
    let data = || prop::collection::vec(any::<u8>(), 0..80);
    let length = (data(), name_case("Content-Length"), any::<bool>()).prop_map(|(data, name, zero)| {
        let zeros = if zero { "000" } else { "" };
        (format!("{name}: {zeros}{}\r\n", data.len()), data)
    });
    let chunk = (data(), "(;[a-z]{1,5}(=[a-z\" ]{0,9})?){0,2}", 0usize..4, any::<bool>());
    let chunked = (
        prop::collection::vec(chunk, 0..4),
        "(0|00|0000000000000000)(;x)?",
        "([A-Za-z-]{1,9}:[ -~]{0,12}\r\n){0,3}",
        name_case("Transfer-Encoding"),
        name_case("chunked"),
    )
        .prop_map(|(chunks, last, trailers, name, coding)| {
            let mut body = Vec::new();
            for (data, extension, zeros, upper) in chunks.into_iter().filter(|(data, ..)| !data.is_empty()) {
                let zeros = "0".repeat(zeros);
                let size = data.len();
                let size = if upper { format!("{size:X}") } else { format!("{size:x}") };
                body.extend(format!("{zeros}{size}{extension}\r\n").bytes());
                body.extend(data);
                body.extend(b"\r\n");
            }
            body.extend(format!("{last}\r\n{trailers}\r\n").bytes());
            (format!("{name}:\t{coding} \r\n"), body)
        });
    prop_oneof![Just((String::new(), Vec::new())), length, chunked]
}

fn name_case(name: &'static str) -> impl Strategy<Value = String> {
    prop::sample::select(vec![name.to_owned(), name.to_lowercase(), name.to_uppercase()])
}

fn harmless_lines() -> impl Strategy<Value = String> {
    // Names that cannot be mistaken for a field that decides on framing.
    "(X-[A-Za-z0-9]{1,8}:[ \t]{0,2}[ -~]{0,20}\r\n){0,4}"
}

pub fn any_request() -> impl Strategy<Value = Message> {
    let line = "(\r\n){0,2}(GET|HEAD|POST|M-SEARCH) /[!-~]{0,20} HTTP/1\\.1\r\n";
    (line, harmless_lines(), any_body(), harmless_lines()).prop_map(
        |(line, before, (length, body), after)| Message {
            head: format!("{line}{before}{length}{after}\r\n"),
            body,
            method: MethodKind::Other,
            interim: false,
        },
    )
}

fn status_line(codes: &str) -> impl Strategy<Value = String> + use<> {
    let line = format!("HTTP/1\\.1 ({codes})( [ -~]{{0,12}})?\r\n");
    proptest::string::string_regex(&line).unwrap()
}

pub fn any_response() -> impl Strategy<Value = Message> {
    let with_body = (status_line("200|206|404|500|600"), harmless_lines(), any_body());
    let with_body = with_body.prop_map(|(line, before, (length, body))| {
        // Without any length the body would run to the end of the stream.
        let length = if length.is_empty() { "Content-Length: 0\r\n".to_owned() } else { length };
        let head = format!("{line}{before}{length}\r\n");
        Message { head, body, method: MethodKind::Other, interim: false }
    });
    let without = |codes, method, interim| {
        let parts = (status_line(codes), harmless_lines(), any_body());
        parts.prop_map(move |(line, before, (length, _))| Message {
            head: format!("{line}{before}{length}\r\n"),
            body: Vec::new(),
            method,
            interim,
        })
    };
    prop_oneof![
        3 => with_body,
        1 => without("204|304", MethodKind::Other, false),
        1 => without("200|404", MethodKind::Head, false),
        1 => without("100|102|103|199", MethodKind::Other, true),
    ]
}

/// Bytes that reach deep into the framers: pieces of messages in any order, with a little garbage.
pub fn http_like_bytes() -> impl Strategy<Value = Vec<u8>> {
    let pieces: Vec<&'static [u8]> = vec![
        b"GET / HTTP/1.1\r\n",
        b"POST /a HTTP/1.1\r\n",
        b"CONNECT a:1 HTTP/1.1\r\n",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n",
        b"HTTP/1.0 304\r\n",
        b"Content-Length: 3\r\n",
        b"Content-Length: 0\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Connection: close\r\n",
        b"\r\n",
        b"\r\n\r\n",
        b"3\r\nabc\r\n",
        b"0\r\n\r\n",
        b"0\r\n",
        b"10;a=b\r\n",
        b"X: y\r\n",
        b"X: y\n",
        b"abc",
        b"\r",
        b"\n",
        b" ",
    ];
    let piece = prop_oneof![
        20 => prop::sample::select(pieces).prop_map(<[u8]>::to_vec),
        1 => prop::collection::vec(any::<u8>(), 1..4),
    ];
    prop::collection::vec(piece, 0..16).prop_map(|pieces| pieces.concat())
}
