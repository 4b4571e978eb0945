//! Framing of the requests of one connection.

use httparse::Header;

use super::body::{Body, BodyStep};
use super::fields::FramingFields;
use super::head::{HeadScan, HeadScanner, header_slots, refusal};
use super::raw::RawReason;
use super::start_line::RequestLine;

/// A request head as a routing decision sees it, borrowed from the receive buffer.
#[derive(Debug, Clone, Copy)]
pub struct RequestView<'a> {
    /// Method, in the case in which it was sent (methods are case-sensitive).
    pub method: &'a str,
    /// Request target in any of the four forms of RFC 9112 §3.2, not decoded.
    pub target: &'a str,
    headers: &'a [Header<'a>],
}

/// What the first bytes of the buffer are. `D` is the routing decision.
#[derive(Debug, PartialEq, Eq)]
pub enum RequestStep<D> {
    /// Nothing to consume before more bytes have come in.
    NeedMore(Pending),
    /// A whole head: consume [`RequestHead::len`] bytes.
    Head { head: RequestHead, decision: D },
    /// So many bytes, never 0, of the current request's body, chunk lines and trailers included: consume them.
    Body(usize),
    /// The request ended before the first byte of the buffer; nothing to consume. Follows every head, at once when
    /// there is no body.
    End,
    /// From the first byte of the buffer on everything is raw. Said again on every later call.
    Raw(RawReason),
}

/// What a buffer without a verdict can still become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pending {
    /// Between requests, no byte is there.
    Empty,
    /// What is there could be the beginning of a request line, or not be HTTP.
    Undecided,
    /// A valid request line is there, or its method and the beginning of a path; the rest of the head is missing.
    Http,
    /// The rest of the current request's body is missing.
    Body,
}

/// What a request head means for its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestHead {
    /// Bytes of the head, empty lines before it and the one at its end included.
    pub len: usize,
    /// The methods that change the framing of the response.
    pub method: MethodKind,
    /// Has a body of at least one chunk line or byte.
    pub has_body: bool,
    /// GET, HEAD, OPTIONS or TRACE (RFC 9110 §9.2.1) without a body: may be sent a second time.
    pub safe_without_body: bool,
    /// Has an Upgrade field or is CONNECT: interpret nothing behind this request until the final response to it
    /// is known.
    pub wants_switch: bool,
    /// Has `Expect: 100-continue`: the client may wait for an interim response before it sends the body.
    pub expect_continue: bool,
    /// HTTP/1.0 without keep-alive, or `Connection: close`: no request follows (RFC 9112 §9.3).
    pub close: bool,
}

/// The methods that change the framing of the response (RFC 9112 §6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MethodKind {
    Head,
    Connect,
    Other,
}

/// Frames the requests that a client sends on one connection, one after the other.
#[derive(Debug, Default)]
pub struct RequestFramer {
    state: State,
}

#[derive(Debug)]
enum State {
    Head(HeadScanner<RequestLine>),
    Body(Body),
    End,
    Raw(RawReason),
}

impl Default for State {
    fn default() -> Self {
        Self::Head(HeadScanner::default())
    }
}

impl RequestFramer {
    /// A framer at the start of a connection.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Says what the first bytes of `buf` are. `buf` holds the bytes received and not consumed; the caller consumes
    /// exactly what the step says before the next call. `decide` is called once per request, with its parsed head.
    ///
    /// The steps, with the lengths of consecutive [`RequestStep::Body`] added up, don't depend on how the stream
    /// was cut into calls.
    pub fn next<D>(&mut self, buf: &[u8], decide: impl FnOnce(&RequestView<'_>) -> D) -> RequestStep<D> {
        match &mut self.state {
            State::Head(scanner) => match scanner.scan(buf) {
                Ok(HeadScan::Complete(len)) => match read_head(&buf[..len], decide) {
                    Ok((head, body, decision)) => {
                        self.state = body.map_or(State::End, State::Body);
                        RequestStep::Head { head, decision }
                    }
                    Err(reason) => self.raw(reason),
                },
                Ok(HeadScan::Incomplete { .. }) if buf.is_empty() => RequestStep::NeedMore(Pending::Empty),
                Ok(HeadScan::Incomplete { start_line_seen }) => {
                    let is_http = start_line_seen || has_path(buf);
                    RequestStep::NeedMore(if is_http { Pending::Http } else { Pending::Undecided })
                }
                Err(reason) => self.raw(reason),
            },
            State::Body(body) => match body.next(buf) {
                BodyStep::NeedMore => RequestStep::NeedMore(Pending::Body),
                BodyStep::Bytes(len) => RequestStep::Body(len),
                BodyStep::End => self.end(),
                BodyStep::Raw(reason) => self.raw(reason),
            },
            State::End => self.end(),
            &mut State::Raw(reason) => RequestStep::Raw(reason),
        }
    }

    fn end<D>(&mut self) -> RequestStep<D> {
        self.state = State::default();
        RequestStep::End
    }

    fn raw<D>(&mut self, reason: RawReason) -> RequestStep<D> {
        self.state = State::Raw(reason);
        RequestStep::Raw(reason)
    }
}

impl<'a> RequestView<'a> {
    /// A view of a head that was parsed elsewhere.
    #[must_use]
    pub fn new(method: &'a str, target: &'a str, headers: &'a [Header<'a>]) -> Self {
        Self { method, target, headers }
    }

    /// All header lines in their order: name as sent, value without the whitespace around it.
    pub fn headers(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> + use<'a> {
        self.headers.iter().map(|header| (header.name, header.value))
    }

    /// The values of all lines of the field `name`, in their order. Case does not matter.
    pub fn header_lines<'n>(&self, name: &'n str) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
        self.headers()
            .filter(move |(candidate, _)| candidate.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }
}

/// A method and the first byte of a path. Where lines are commands nobody answers before such a line has ended.
fn has_path(buf: &[u8]) -> bool {
    let line = buf.trim_ascii_start();
    line.iter()
        .position(|byte| !byte.is_ascii_uppercase())
        .is_some_and(|end| end > 0 && line[end..].starts_with(b" /"))
}

fn read_head<D>(
    bytes: &[u8],
    decide: impl FnOnce(&RequestView<'_>) -> D,
) -> Result<(RequestHead, Option<Body>, D), RawReason> {
    let mut slots = header_slots();
    let mut parsed = httparse::Request::new(&mut []);
    let status = parsed.parse_with_uninit_headers(bytes, &mut slots).map_err(refusal)?;
    let (httparse::Status::Complete(len), Some(method), Some(target), Some(minor)) =
        (status, parsed.method, parsed.path, parsed.version)
    else {
        return Err(RawReason::NotHttp1);
    };
    // The parser may not see the end of the head elsewhere than the scanner.
    if len != bytes.len() {
        return Err(RawReason::MalformedHeader);
    }
    let fields = FramingFields::read(parsed.headers, minor)?;
    let kind = match method {
        "HEAD" => MethodKind::Head,
        "CONNECT" => MethodKind::Connect,
        _ => MethodKind::Other,
    };
    let body = fields.length.map(Body::from).filter(|body| !matches!(body, Body::Exact(0)));
    if kind == MethodKind::Connect && fields.length.is_some() {
        return Err(RawReason::ConnectWithBody);
    }
    let head = RequestHead {
        len,
        method: kind,
        has_body: body.is_some(),
        safe_without_body: body.is_none() && matches!(method, "GET" | "HEAD" | "OPTIONS" | "TRACE"),
        wants_switch: fields.upgrade || kind == MethodKind::Connect,
        expect_continue: fields.expect_continue,
        close: fields.close,
    };
    let decision = decide(&RequestView::new(method, target, parsed.headers));
    Ok((head, body, decision))
}
