//! The requests of a connection.

use super::message::{
    Body, CHUNKED, EMPTY_LINE_LF, HTTP_1_0, INTERESTING, IS_HEAD, LINE_START, METHOD, Message, NAME, RAW,
    START, START_LINE_LF, TARGET, TARGET_START, UPGRADE, VALUE, VERSION, line_feed,
};
use super::names::{is_connect, is_head, is_token_byte};
use super::{BLOCK, Block, Event, NONE, Needles};

/// Longest method that is taken for one.
const MAX_METHOD: u16 = 32;
/// Empty lines tolerated before a request line (RFC 9112 §2.2).
const MAX_EMPTY_LINES: u16 = 4;
/// `HTTP/1.`; a digit follows.
const VERSION_PREFIX: u64 = u64::from_le_bytes(*b"HTTP/1.\0");

/// The state of a scan of requests; all zeros is the beginning of a connection.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestScan(Message);

impl RequestScan {
    /// Judges the bytes of `block` from `at` on, at least one and at most those before `end`; says where it got to, and
    /// what the last of them ended.
    #[inline(always)]
    pub fn read(&mut self, block: &Block, at: u32, end: u32, needles: &impl Needles) -> (u32, Event) {
        let next = match self.0.state {
            VALUE => self.0.read_value(block, at, end),
            LINE_START | NAME => self.0.read_name(block, at, end, needles),
            START | METHOD => self.read_method(block, at, end),
            TARGET => self.read_target(block, at, end),
            _ => self.0.read_body(at, end),
        };
        if next != at {
            return (next, NONE);
        }
        (at + 1, self.push(block.byte(at), needles))
    }

    /// Reads a method and the space behind it, if both are there, and the target.
    #[inline(always)]
    fn read_method(&mut self, block: &Block, at: u32, end: u32) -> u32 {
        const LONGEST: u32 = 8;
        let message = &mut self.0;
        if message.state != START || at + LONGEST + 2 > end {
            return at;
        }
        let word = block.word_at(at);
        let len = if word & 0xffff_ffff == u64::from_le_bytes(*b"GET \0\0\0\0") {
            3
        } else if word & 0xff_ffff_ffff == u64::from_le_bytes(*b"POST \0\0\0") {
            4
        } else {
            // All others byte by byte.
            return at;
        };
        let next = at + len + 1;
        if !matches!(block.byte(next), b'!'..=b'~') {
            return at;
        }
        message.flags = 0;
        message.state = TARGET;
        message.count_many(next - at);
        self.read_target(block, next, end)
    }

    /// Reads a request target, and a version if the whole line is there.
    #[inline(always)]
    fn read_target(&mut self, block: &Block, at: u32, end: u32) -> u32 {
        /// ` HTTP/1.1\r\n`
        const REST: u32 = 11;
        let message = &mut self.0;
        let mut next = block.find(at, end, b'!', true);
        let whole = next + REST <= end && next + REST + 8 <= BLOCK as u32 && block.byte(next) == b' ';
        if whole
            && block.byte(next + 9) == b'\r'
            && block.byte(next + 10) == b'\n'
            && message.is_version(block, next + 1)
        {
            next += REST;
            message.begin_lines();
        }
        message.count_many(next - at);
        next
    }

    /// Judges the next byte.
    #[inline(always)]
    pub fn push(&mut self, byte: u8, needles: &impl Needles) -> Event {
        self.0.count();
        if self.0.state > START_LINE_LF {
            return match self.0.push(byte, needles) {
                Some(event) => event,
                None => self.end_head(),
            };
        }
        self.0.state = self.start_line(byte);
        if self.0.state == START_LINE_LF + 1 {
            self.0.begin_lines();
        }
        NONE
    }

    /// Between two requests, and no byte of the next has come.
    #[inline(always)]
    pub fn is_at_start(&self) -> bool {
        self.0.state == START && self.0.matched == 0
    }

    /// Within a head.
    #[inline(always)]
    pub fn is_in_head(&self) -> bool {
        !self.is_at_start() && self.0.is_in_head()
    }

    /// The head that is being read, or was read last, has one of the names that are looked for.
    #[inline(always)]
    pub fn is_interesting(&self) -> bool {
        self.0.flags & INTERESTING != 0
    }

    /// The head that was read last was of a HEAD request: the response has no body (RFC 9112 §6.3).
    #[inline(always)]
    pub fn is_head_request(&self) -> bool {
        self.0.flags & IS_HEAD != 0
    }

    #[inline(always)]
    pub fn is_raw(&self) -> bool {
        self.0.is_raw()
    }

    /// It is raw because what follows may be another protocol.
    #[inline(always)]
    pub fn is_switched(&self) -> bool {
        self.is_raw() && self.0.flags & UPGRADE != 0
    }

    /// See [`ResponseScan::skippable`](super::ResponseScan::skippable).
    #[inline(always)]
    pub fn skippable(&self) -> u32 {
        self.0.skippable()
    }

    #[inline(always)]
    pub fn skip(&mut self, bytes: u32) {
        self.0.skip(bytes);
    }

    /// The request that is being read, or was read last, is known to have no body or one of a known length.
    #[inline(always)]
    pub fn is_counted(&self) -> bool {
        !self.is_in_head() && self.0.flags & CHUNKED == 0
    }

    /// Goes past bytes that were not seen. False: nothing is known without them.
    #[inline(always)]
    pub fn pass_over(&mut self, bytes: u32) -> bool {
        self.0.pass_over(bytes)
    }

    /// `method SP request-target SP HTTP-version CRLF`, after a few empty lines.
    #[inline(always)]
    fn start_line(&mut self, byte: u8) -> u32 {
        let message = &mut self.0;
        match message.state {
            TARGET => match byte {
                b'!'..=b'~' => TARGET,
                b' ' => {
                    message.matched = 0;
                    VERSION
                }
                _ => RAW,
            },
            METHOD => {
                if is_token_byte(byte) && message.matched < MAX_METHOD {
                    message.keep(byte);
                    METHOD
                } else if byte != b' ' {
                    RAW
                } else if is_connect(&message.name, message.matched) {
                    // What follows it is not HTTP.
                    message.flags |= UPGRADE;
                    RAW
                } else {
                    if is_head(&message.name, message.matched) {
                        message.flags |= IS_HEAD;
                    }
                    TARGET_START
                }
            }
            TARGET_START if matches!(byte, b'!'..=b'~') => TARGET,
            VERSION => {
                let at = message.matched;
                message.matched = at.wrapping_add(1);
                if at < 7 {
                    return if byte == (VERSION_PREFIX >> ((at & 7) * 8)) as u8 { VERSION } else { RAW };
                }
                if at == 7 && byte == b'0' {
                    message.flags |= HTTP_1_0;
                }
                if at == 7 && (byte == b'0' || byte == b'1') {
                    VERSION
                } else if at == 8 && byte == b'\r' {
                    START_LINE_LF
                } else {
                    RAW
                }
            }
            START_LINE_LF => line_feed(byte, START_LINE_LF + 1),
            EMPTY_LINE_LF => line_feed(byte, START),
            START if is_token_byte(byte) => {
                message.flags = 0;
                message.begin_name(byte);
                METHOD
            }
            START if byte == b'\r' && message.matched < MAX_EMPTY_LINES => {
                message.matched += 1;
                EMPTY_LINE_LF
            }
            _ => RAW,
        }
    }

    #[inline(always)]
    fn end_head(&mut self) -> Event {
        // What follows the answer to it may not be HTTP.
        if self.0.flags & UPGRADE != 0 {
            self.0.give_up();
            return NONE;
        }
        self.0.end_head(Body::AsDeclared)
    }
}
