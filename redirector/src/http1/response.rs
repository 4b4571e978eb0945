//! Framing of the responses of one connection.

use super::body::{Body, BodyStep};
use super::fields::FramingFields;
use super::head::{HeadScan, HeadScanner, header_slots, refusal};
use super::raw::RawReason;
use super::request::{MethodKind, RequestHead};
use super::start_line::StatusLine;

/// What must be known of a request to frame its response. The same for all steps of one response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestContext {
    pub method: MethodKind,
}

/// What the first bytes of the buffer are.
#[derive(Debug, PartialEq, Eq)]
pub enum ResponseStep {
    /// Nothing to consume before more bytes, or the end of the stream, have come in.
    NeedMore,
    /// A whole head: consume [`ResponseHead::len`] bytes. After an interim one the next head follows, without
    /// [`ResponseStep::End`].
    Head(ResponseHead),
    /// So many bytes, never 0, of the current response's body, chunk lines and trailers included: consume them.
    Body(usize),
    /// The response ended before the first byte of the buffer; nothing to consume. Follows every final head that
    /// does not switch, at once when there is no body.
    End,
    /// The stream ended between two responses.
    Closed,
    /// The stream ended within a head or a body. What is left in the buffer belongs to the broken response: pass it
    /// on, then end the stream as the sender did.
    Truncated,
    /// Follows the head of a 101, or of a 2xx to CONNECT: from the first byte of the buffer on both directions are
    /// raw (RFC 9110 §7.8 and §9.3.6). Said again on every later call.
    Switch,
    /// From the first byte of the buffer on everything is raw. Said again on every later call.
    Raw(RawReason),
}

/// What a response head means for its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResponseHead {
    /// Bytes of the head, the empty line at its end included.
    pub len: usize,
    /// Status code, 100 to 999.
    pub status: u16,
    /// A 1xx other than 101: the response proper is still to come (RFC 9110 §15.2).
    pub interim: bool,
    /// The sender closes the connection after this response.
    pub close: bool,
    /// The body ends with the stream (RFC 9112 §6.3, last case).
    pub until_close: bool,
}

/// Frames the responses that a server sends on one connection, one after the other.
#[derive(Debug, Default)]
pub struct ResponseFramer {
    state: State,
}

#[derive(Debug)]
enum State {
    Head(HeadScanner<StatusLine>),
    Body(Body),
    UntilClose,
    End,
    Switch,
    Raw(RawReason),
}

impl Default for State {
    fn default() -> Self {
        Self::Head(HeadScanner::default())
    }
}

impl From<&RequestHead> for RequestContext {
    fn from(head: &RequestHead) -> Self {
        Self { method: head.method }
    }
}

impl ResponseFramer {
    /// A framer at the start of a connection.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Says what the first bytes of `buf` are. `buf` holds the bytes received and not consumed; the caller consumes
    /// exactly what the step says before the next call. `request` is the request that this response answers. `eof`
    /// says that nothing will follow `buf`.
    pub fn next(&mut self, buf: &[u8], request: RequestContext, eof: bool) -> ResponseStep {
        match &mut self.state {
            State::Head(scanner) => match scanner.scan(buf) {
                Ok(HeadScan::Complete(len)) => match read_head(&buf[..len], request) {
                    Ok((head, next)) => {
                        self.state = next;
                        ResponseStep::Head(head)
                    }
                    Err(reason) => self.raw(reason),
                },
                Ok(HeadScan::Incomplete { .. }) if eof && buf.is_empty() => ResponseStep::Closed,
                Ok(HeadScan::Incomplete { .. }) => need_more(eof),
                Err(reason) => self.raw(reason),
            },
            State::Body(body) => match body.next(buf) {
                BodyStep::NeedMore => need_more(eof),
                BodyStep::Bytes(len) => ResponseStep::Body(len),
                BodyStep::End => self.end(),
                BodyStep::Raw(reason) => self.raw(reason),
            },
            State::UntilClose if !buf.is_empty() => ResponseStep::Body(buf.len()),
            State::UntilClose if !eof => ResponseStep::NeedMore,
            State::UntilClose | State::End => self.end(),
            State::Switch => ResponseStep::Switch,
            &mut State::Raw(reason) => ResponseStep::Raw(reason),
        }
    }

    fn end(&mut self) -> ResponseStep {
        self.state = State::default();
        ResponseStep::End
    }

    fn raw(&mut self, reason: RawReason) -> ResponseStep {
        self.state = State::Raw(reason);
        ResponseStep::Raw(reason)
    }
}

fn need_more(eof: bool) -> ResponseStep {
    if eof { ResponseStep::Truncated } else { ResponseStep::NeedMore }
}

/// The head, and the state that follows it.
fn read_head(bytes: &[u8], request: RequestContext) -> Result<(ResponseHead, State), RawReason> {
    let mut slots = header_slots();
    let mut parsed = httparse::Response::new(&mut []);
    let status = httparse::ParserConfig::default()
        .parse_response_with_uninit_headers(&mut parsed, bytes, &mut slots)
        .map_err(refusal)?;
    let (httparse::Status::Complete(len), Some(code), Some(minor)) = (status, parsed.code, parsed.version)
    else {
        return Err(RawReason::NotHttp1);
    };
    // The parser may not see the end of the head elsewhere than the scanner.
    if len != bytes.len() {
        return Err(RawReason::MalformedHeader);
    }
    let fields = FramingFields::read(parsed.headers, minor)?;
    let interim = matches!(code, 100 | 102..=199);
    // The order of the cases is that of RFC 9112 §6.3.
    let next = match (request.method, code) {
        (_, 101) | (MethodKind::Connect, 200..=299) => State::Switch,
        _ if interim => State::default(),
        (MethodKind::Head, _) | (_, 204 | 304) => State::End,
        _ => fields.length.map_or(State::UntilClose, |length| State::Body(Body::from(length))),
    };
    let until_close = matches!(next, State::UntilClose);
    let head = ResponseHead { len, status: code, interim, close: fields.close || until_close, until_close };
    Ok((head, next))
}
