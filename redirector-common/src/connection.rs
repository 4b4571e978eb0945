//! What is known of a connection that the app has: the value of its socket in `CONNECTIONS`.

use crate::scan::{RequestScan, ResponseScan};

/// Requests are written by the ingress program, under `lock`; responses by the egress program, which the kernel runs once at
/// a time for a socket. All zeros is a connection of which nothing is known.
///
/// The two may run on two processors, so what each request needs is in the order of cache lines: the first 56 bytes (the
/// kernel puts 8 before them), then 64 at a time.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Connection {
    // Written for requests, and read for responses.
    pub lock: u64,
    /// One of the phases below.
    pub phase: u32,
    /// Left alone for good: a [`Raw`]. 0: it is not.
    pub raw: u32,
    /// Changes when the egress program is to start anew, at `response_from`.
    pub epoch: u32,
    /// The epoch in which a part of a response was missed: the one thing here that the egress program writes, and seldom.
    pub broken_epoch: u32,
    /// Heads of requests so far.
    pub requests: u32,
    /// Where the next byte for `request` is.
    pub next: u32,
    /// Of the latest 64 requests, by their number: were they HEAD requests?
    pub head_requests: u64,
    /// Where the body of the latest request begins, or would.
    pub body_from: u32,
    /// The latest segment that began where a request was due, and `requests` before it.
    pub began: u32,
    pub requests_before: u32,
    /// Not 0: of segments that came before their turn there are copies; the last of them ends at `early_end`.
    pub early: u32,

    // For requests alone.
    pub request: RequestScan,
    /// What `responses` was when it was looked at, which is not done for each request: the other processor would wait for it.
    pub answered: u32,
    pub early_end: u32,

    // Written for responses, and read for requests.
    /// The end of what the app has sent, or is just sending.
    pub sent_end: u64,
    /// Responses that were complete.
    pub responses: u32,
    // For responses alone.
    pub response_epoch: u32,
    /// Where the next byte for `response` is.
    pub response_next: u32,
    /// What the app had of the client's bytes when the latest response began.
    pub response_ack: u32,
    pub response: ResponseScan,

    // Seldom.
    pub response_from: u32,
    /// `requests` when the connection was first seen, or found again.
    pub found_at: u32,
    /// While nothing is known: the [`protocols`](crate::PORT_HTTP2) that the latest segment looked like.
    pub looks_like: u32,
    /// How many segments were held, and the sequence number of the last of them.
    pub holds: u32,
    pub held_seq: u32,
    /// How many segments were dropped to see whether the app is done, and the sequence number of the last of them.
    pub probes: u32,
    pub probed_seq: u32,
    /// How often the app was not done.
    pub failed_probes: u32,
    /// How often in a row the client sent them again before that could be seen.
    pub vain_probes: u32,
    /// What was read or passed over between these two is certainly what the client sent: it may come again.
    pub known_from: u32,
    pub known_to: u32,
    /// Not 0: the first part of a head is put aside, under this number.
    pub aside: u64,
    /// When the first of its parts came that were put aside, nanoseconds of `CLOCK_MONOTONIC`; how many there are, where they begin,
    /// and where they are.
    pub aside_since: u64,
    pub aside_parts: u32,
    pub aside_from: u32,
    pub aside_slot: u32,
    /// How often the last of them came once more.
    pub aside_repeats: u32,
    /// See the program's `unread`: of the chunked body of the latest request; that request, by its number; and where it seems to end.
    pub unread: u32,
    pub unread_of: u32,
    pub unread_end: u32,
    /// While it is not [`Self::PROVEN`]: when the last request came, when the app last sent something, and the longest time
    /// from the one to the other. Nanoseconds of `CLOCK_MONOTONIC`.
    pub asked_at: u64,
    pub spoke_at: u64,
    pub longest_answer: u64,
}

impl Connection {
    /// Where the next request begins is not known.
    pub const UNKNOWN: u32 = 0;
    /// A request began where one may begin. Until it and its response have ended as they should, it may have been a
    /// part of a body.
    pub const PROBATION: u32 = 1;
    /// A whole exchange was seen. But of a client that always has as many requests on the way the answers may be those to
    /// earlier ones, of before we looked. Only when the app is seen to have nothing more to say this is out of the question.
    pub const LIKELY: u32 = 2;
    /// Where the next request begins is certain.
    pub const PROVEN: u32 = 3;
    /// It was, but something that was read may have been damaged, or the end of a request was seen and not read. When the app has
    /// answered all the same and has nothing more to say, it is again.
    pub const DOUBTED: u32 = 4;
}

/// Why a connection is left alone for good.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Raw {
    /// It is the agent's. Said of its listening sockets, from which accepted ones inherit it.
    Own = 1,
    /// It began with the preface of HTTP/2, and the agent did not take it.
    Http2 = 2,
    /// It began with TLS, and the agent did not take it.
    Tls = 3,
    /// A request wants to change the protocol: CONNECT or an upgrade.
    Switched = 4,
    /// Not HTTP/1.x, or not beyond doubt, or more than is followed.
    NotHttp = 5,
    /// Requests were held, and the agent could not take them, or not in time.
    HeldInVain = 6,
    /// Urgent data (RFC 9293 §3.8.5).
    Urgent = 7,
    /// It has ECN, which no socket that the agent could make has.
    Ecn = 8,
    /// The client sends requests without waiting for answers, and it is not known how many wait.
    Pipelined = 9,
}

impl Raw {
    /// All of them, with a name for each.
    pub const ALL: [(Self, &'static str); 9] = [
        (Self::Own, "own"),
        (Self::Http2, "http2"),
        (Self::Tls, "tls"),
        (Self::Switched, "switched-protocol"),
        (Self::NotHttp, "not-http"),
        (Self::HeldInVain, "held-in-vain"),
        (Self::Urgent, "urgent-data"),
        (Self::Ecn, "ecn"),
        (Self::Pipelined, "pipelined"),
    ];

    /// What [`Connection::raw`] says.
    pub fn from_value(value: u32) -> Option<Self> {
        Self::ALL.into_iter().map(|(reason, _)| reason).find(|reason| *reason as u32 == value)
    }
}
