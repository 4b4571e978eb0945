//! Drives the scanners as the eBPF program does, and makes requests with context.
#![allow(dead_code, reason = "each test binary uses its half")]
#![allow(clippy::unwrap_used, reason = "test code, though not within a test function")]

use proptest::prelude::*;
use redirector::context::{Condition, Matcher, Needle};
use redirector::http1::{MethodKind, RequestFramer, RequestStep};
use redirector_common::scan::{
    BLOCK, Block, END, HEAD, LineStarts, MemberStarts, Needles, NoNeedles, RequestScan, ResponseScan,
    name_hash,
};
use std::collections::BTreeSet;
use std::sync::LazyLock;

/// What a scan said: where in the stream something ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    Head(usize),
    End(usize),
}

/// What a scan said, and whether it gave up.
pub type Scanned = (Vec<Seen>, bool);

pub fn push_seen(seen: &mut Vec<Seen>, event: u32, at: usize) {
    if event & HEAD != 0 {
        seen.push(Seen::Head(at));
    }
    if event & END != 0 {
        seen.push(Seen::End(at));
    }
}

/// How bytes get into a scan.
#[derive(Debug, Clone, Copy)]
pub enum By {
    /// Each one.
    Byte,
    /// As the eBPF program does it: in blocks, of these sizes in turn, with bytes skipped where that is allowed.
    Blocks(&'static [usize]),
}

pub const BLOCKS: [By; 4] =
    [By::Blocks(&[BLOCK]), By::Blocks(&[1, 2, 3]), By::Blocks(&[7, 64, 1, 333]), By::Blocks(&[16])];

/// What is in a block before anything is read. What is behind the end of a stream ends nothing; but a short line there may be judged
/// for its sake, so that one without a colon is given up, or gone past.
pub const BEFORE: [u8; BLOCK] = {
    let mut bytes = [0; BLOCK];
    let mut at = 0;
    while at < BLOCK {
        bytes[at] = b"\nx,\r\n\r\n"[at % 7];
        at += 1;
    }
    bytes
};

/// Names that are looked for, and the lines that are judged for them.
pub trait Sought: Needles {
    fn lines(&self) -> LineStarts;
    fn member_starts(&self) -> MemberStarts;
}

impl Sought for NoNeedles {
    fn lines(&self) -> LineStarts {
        LineStarts::OF_REQUESTS
    }

    fn member_starts(&self) -> MemberStarts {
        MemberStarts::NONE
    }
}

/// Either scan.
trait Scan {
    fn push(&mut self, byte: u8) -> u32;
    fn read_line(&mut self, block: &Block, at: u32, end: u32) -> u32;
    fn read(&mut self, block: &Block, at: u32, end: u32) -> (u32, u32);
    fn skippable(&self) -> u32;
    /// Past many lines, and past one of those that stop this.
    fn skip_lines(&mut self, block: &Block, at: u32, end: u32) -> u32;
    fn skip_line(&mut self, block: &Block, at: u32, end: u32) -> u32;
    fn skip(&mut self, bytes: u32) -> u32;
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
    let mut block = Block::filled(0);
    block.bytes[..BLOCK].copy_from_slice(&BEFORE);
    let mut at = 0;
    while at < stream.len() {
        let skipped = (scan.skippable() as usize).min(stream.len() - at);
        if skipped > 0 {
            let event = scan.skip(u32::try_from(skipped).unwrap());
            at += skipped;
            push_seen(&mut seen, event, at);
            scan.ended(event);
            continue;
        }
        let len = (*sizes.next().unwrap()).min(stream.len() - at);
        block.bytes[..len].copy_from_slice(&stream[at..at + len]);
        let mut within = 0;
        while within < len {
            let (from, end) = (u32::try_from(within).unwrap(), u32::try_from(len).unwrap());
            let mut line = scan.skip_lines(&block, from, end);
            if line == from {
                line = scan.skip_line(&block, from, end);
            }
            if line == from {
                line = scan.read_line(&block, from, end);
            }
            let (next, event) = if line == from { scan.read(&block, from, end) } else { (line, 0) };
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

impl<N: Sought> Scan for Requests<'_, N> {
    fn push(&mut self, byte: u8) -> u32 {
        self.scan.push(byte, self.needles)
    }

    fn skip_lines(&mut self, block: &Block, at: u32, end: u32) -> u32 {
        if self.scan.is_at_line() { self.scan.skip_lines(block, at, end, self.needles.lines()) } else { at }
    }

    fn skip_line(&mut self, block: &Block, at: u32, end: u32) -> u32 {
        let judged = self.needles.member_starts();
        if self.scan.is_at_line() { self.scan.skip_line(block, at, end, judged) } else { at }
    }

    fn read_line(&mut self, block: &Block, at: u32, end: u32) -> u32 {
        self.scan.read_line(block, at, end, self.needles)
    }

    fn read(&mut self, block: &Block, at: u32, end: u32) -> (u32, u32) {
        self.scan.read(block, at, end, self.needles)
    }

    fn skippable(&self) -> u32 {
        self.scan.skippable()
    }

    fn skip(&mut self, bytes: u32) -> u32 {
        self.scan.skip(bytes)
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

    fn skip_lines(&mut self, block: &Block, at: u32, end: u32) -> u32 {
        if self.scan.is_at_line() { self.scan.skip_lines(block, at, end) } else { at }
    }

    fn skip_line(&mut self, block: &Block, at: u32, end: u32) -> u32 {
        if self.scan.is_at_line() { self.scan.skip_line(block, at, end) } else { at }
    }

    fn read_line(&mut self, block: &Block, at: u32, end: u32) -> u32 {
        self.scan.read_line(block, at, end)
    }

    fn read(&mut self, block: &Block, at: u32, end: u32) -> (u32, u32) {
        self.scan.read(block, at, end, self.method == Some(&MethodKind::Head))
    }

    fn skippable(&self) -> u32 {
        self.scan.skippable()
    }

    fn skip(&mut self, bytes: u32) -> u32 {
        self.scan.skip(bytes)
    }

    fn ended(&mut self, event: u32) {
        if event & END != 0 {
            self.method = self.methods.next();
        }
    }
}

pub fn scan_requests(stream: &[u8], needles: &impl Sought, by: By) -> (Scanned, Vec<bool>) {
    let mut requests = Requests { scan: RequestScan::default(), needles, interesting: Vec::new() };
    let seen = drive(&mut requests, stream, by);
    ((seen, requests.scan.is_raw()), requests.interesting)
}

pub fn scan_responses(stream: &[u8], methods: &[MethodKind], by: By) -> Scanned {
    let mut methods = methods.iter().cycle();
    let method = methods.next();
    let mut responses = Responses { scan: ResponseScan::default(), methods, method };
    let seen = drive(&mut responses, stream, by);
    (seen, responses.scan.is_raw())
}

/// As the agent fills the eBPF map.
#[derive(Debug, Default)]
pub struct Wanted {
    pub headers: BTreeSet<u32>,
    pub lists: BTreeSet<u32>,
    pub members: BTreeSet<u32>,
    pub lines: LineStarts,
    pub member_starts: MemberStarts,
}

impl Wanted {
    pub fn of(matcher: &Matcher) -> Self {
        let mut wanted = Self { lines: LineStarts::OF_REQUESTS, ..Self::default() };
        for needle in matcher.needles().unwrap() {
            wanted.lines = wanted.lines.with(needle.header_name().as_bytes());
            match needle {
                Needle::Header(name) => {
                    wanted.headers.insert(name_hash(name.as_bytes()));
                    wanted.member_starts = wanted.member_starts.with_header(name.as_bytes());
                }
                Needle::Member { field, key } => {
                    wanted.lists.insert(name_hash(field.as_bytes()));
                    wanted.members.insert(name_hash(key.as_bytes()));
                    wanted.member_starts = wanted.member_starts.with(key.as_bytes());
                }
            }
        }
        wanted
    }
}

impl Sought for Wanted {
    fn lines(&self) -> LineStarts {
        self.lines
    }

    fn member_starts(&self) -> MemberStarts {
        self.member_starts
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

pub fn matches_of(stream: &[u8], matcher: &Matcher) -> Vec<bool> {
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

pub fn any_matcher() -> impl Strategy<Value = Matcher> {
    let condition = prop_oneof![
        Just(Condition::Header("x-user=alice".parse().unwrap())),
        Just(Condition::Header("Upgrade-Insecure-Requests=1".parse().unwrap())),
        Just(Condition::Header("baggage=user=alice".parse().unwrap())),
        Just(Condition::Baggage("user=alice".parse().unwrap())),
        Just(Condition::Baggage("User=a b".parse().unwrap())),
        Just(Condition::Baggage("x=alice".parse().unwrap())),
        Just(Condition::Tracestate("user=alice".parse().unwrap())),
        Just(Condition::Key("abcdefghijklmnop".parse().unwrap())),
    ];
    prop::collection::vec(condition, 1..3).prop_map(|conditions| Matcher { conditions })
}

static LONG_VALUE: LazyLock<String> = LazyLock::new(|| "long value ".repeat(25));

/// Requests that carry context, in every way that is allowed and in some that are not.
pub fn request_with_context() -> impl Strategy<Value = Vec<u8>> {
    let blank = || "[ \t]{0,2}";
    // Some begin as others do that are looked for; some are longer than what is read in one go.
    let key = || prop::sample::select(vec!["user", "User", "userId", "redirector", "x", "other", ""]);
    let long = LONG_VALUE.as_str();
    let value = move || {
        prop::sample::select(vec![
            "alice",
            "a%20b",
            "abcdefghijklmnop",
            "",
            "=",
            "alice;p=1",
            "\u{e9}t\u{e9}",
            long,
        ])
    };
    let member =
        (blank(), key(), blank(), prop::sample::select(vec!["=", "", "=="]), blank(), value(), blank())
            .prop_map(|(a, key, b, equals, c, value, d)| format!("{a}{key}{b}{equals}{c}{value}{d}"));
    let length = prop_oneof![9 => 0..4_usize, 1 => 20..60_usize];
    let list = length.prop_flat_map(move |length| prop::collection::vec(member.clone(), length));
    let list = list.prop_map(|members| members.join(","));
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
