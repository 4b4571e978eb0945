//! The requests of a connection.

use super::message::{
    Body, CHUNKED, EMPTY_LINE_LF, HTTP_1_0, INTERESTING, IS_HEAD, KEY_START, LINE_START, MEMBER, METHOD,
    Message, RAW, START, START_LINE_LF, TARGET, TARGET_START, UPGRADE, VALUE, VERSION, line_feed,
};
use super::names::{self, is_token_byte};
use super::{Block, Event, LineStarts, MemberStarts, NONE, Needles, version, words};

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
    /// what the last of them ended. Header lines are for [`Self::read_line`] first.
    #[inline(always)]
    pub fn read(&mut self, block: &Block, at: u32, end: u32, needles: &impl Needles) -> (u32, Event) {
        let next = match self.0.state {
            LINE_START => {
                let (next, event) = self.read_end(block, at, end);
                if next != at {
                    return (next, event);
                }
                at
            }
            START => self.read_start_line(block, at, end),
            KEY_START | MEMBER => self.0.read_member(block, at, end, needles),
            VALUE => self.0.read_value(block, at, end),
            TARGET => self.read_target(block, at, end),
            _ => {
                let (next, event) = self.0.read_body(at, end);
                if next != at {
                    return (next, event);
                }
                at
            }
        };
        if next != at {
            return (next, NONE);
        }
        (at + 1, self.push(block.byte(at), needles))
    }

    /// Where a header line begins: reads it, and says where it got to. To `at` if that is for [`Self::read`].
    #[inline(always)]
    pub fn read_line(&mut self, block: &Block, at: u32, end: u32, needles: &impl Needles) -> u32 {
        if !self.is_at_line() { at } else { self.0.read_line(block, at, end, needles) }
    }

    /// Where a header line begins: goes past the lines of which all is there and that begin in none of the ways that are `judged`. The
    /// next one is for [`Self::skip_line`], or the end of the head.
    #[inline(always)]
    pub fn skip_lines(&mut self, block: &Block, at: u32, end: u32, judged: LineStarts) -> u32 {
        self.0.skip_lines(block, at, end, |first, _| judged.has(first))
    }

    /// Where a header line begins: goes past it if it is a simple length, or a list whose members begin in none of the ways that are
    /// `judged`. To `at` if it is for [`Self::read_line`].
    #[inline(always)]
    pub fn skip_line(&mut self, block: &Block, at: u32, end: u32, judged: MemberStarts) -> u32 {
        let next = self.0.read_length_line(block, at, end);
        if next != at { next } else { self.0.skip_list(block, at, end, judged) }
    }

    /// Where a header line begins: it is `Connection: close` as clients write it, in any case. (Written in another
    /// way it is not seen, which costs some time and nothing else.)
    #[inline(always)]
    pub fn is_closing_line(block: &Block, at: u32, end: u32) -> bool {
        const LOWER: u64 = 0x2020_2020_2020_2020;
        /// Of the second word, where a colon and a blank are.
        const LETTERS: u64 = u64::from_le_bytes([0x20, 0x20, 0, 0, 0x20, 0x20, 0x20, 0x20]);
        block.word(at) | LOWER == u64::from_le_bytes(*b"connecti")
            && block.word(at + 8) | LETTERS == u64::from_le_bytes(*b"on: clos")
            && block.byte(at + 16) | 0x20 == b'e'
            && block.is_line_end(at + 17, end)
    }

    /// The next byte is of a list whose members are looked at.
    #[inline(always)]
    pub fn is_in_list(&self) -> bool {
        self.0.state == KEY_START || self.0.state == MEMBER
    }

    /// [Within a list](Self::is_in_list): reads a key, or the rest of a member. As [`Self::read_line`].
    #[inline(always)]
    pub fn read_member(&mut self, block: &Block, at: u32, end: u32, needles: &impl Needles) -> u32 {
        self.0.read_member(block, at, end, needles)
    }

    /// A header line, or the end of the head, begins with the next byte.
    #[inline(always)]
    pub fn is_at_line(&self) -> bool {
        self.0.state == LINE_START
    }

    /// Where a header line would begin: reads the end of the head. As [`Self::read`]; to `at` if it is not there.
    #[inline(always)]
    pub fn read_end(&mut self, block: &Block, at: u32, end: u32) -> (u32, Event) {
        if !block.is_line_end(at, end) {
            return (at, NONE);
        }
        self.0.count(2);
        (at + 2, if self.is_raw() { NONE } else { self.end_head() })
    }

    /// [At the start](Self::is_at_start): reads a request line whose method is one of the most common ones. To `at` if it is not.
    #[inline(always)]
    pub fn read_start_line(&mut self, block: &Block, at: u32, end: u32) -> u32 {
        let word = block.word(at);
        let method = if word as u32 == u32::from_le_bytes(*b"GET ") {
            4
        } else if word & 0xff_ffff_ffff == u64::from_le_bytes(*b"POST \0\0\0") {
            5
        } else if word as u32 == u32::from_le_bytes(*b"PUT ") {
            4
        } else {
            // All others byte by byte.
            return at;
        };
        let target = at + method;
        if target >= end || !matches!(block.byte(target), b'!'..=b'~') {
            return at;
        }
        self.0.flags = 0;
        self.0.state = TARGET;
        self.0.count(method);
        self.read_target(block, target, end)
    }

    /// Reads a request target, and the rest of the line if all of it is there.
    #[inline(always)]
    fn read_target(&mut self, block: &Block, at: u32, end: u32) -> u32 {
        /// ` HTTP/1.1`
        const VERSION_LEN: u32 = 9;
        let mut next = self.0.find(block, at, end, words::not_visible);
        if block.is_line_end(next + VERSION_LEN, end)
            && block.byte(next) == b' '
            && let Some(version) = version(block.word(next + 1))
        {
            self.0.flags |= version;
            next += VERSION_LEN + 2;
            self.0.begin_lines();
        }
        self.0.count(next - at);
        next
    }

    /// Judges the next byte.
    #[inline(always)]
    pub fn push(&mut self, byte: u8, needles: &impl Needles) -> Event {
        self.0.count(1);
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
    pub fn skip(&mut self, bytes: u32) -> Event {
        self.0.skip(bytes)
    }

    /// The request that is being read, or was read last, is known to have no body or one of a known length.
    #[inline(always)]
    pub fn is_counted(&self) -> bool {
        !self.is_in_head() && self.0.flags & CHUNKED == 0
    }

    /// The next bytes, so many of them, could be [passed over](Self::pass_over).
    #[inline(always)]
    pub fn is_within_body(&self, bytes: u32) -> bool {
        self.0.is_within_body(bytes)
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
                } else if message.name.is(u32::from(message.matched), &names::CONNECT) {
                    // What follows it is not HTTP.
                    message.flags |= UPGRADE;
                    RAW
                } else {
                    if message.name.is(u32::from(message.matched), &names::HEAD) {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn is_closing_line(line: &str, end: u32) -> bool {
        let mut block = Block::filled(b'x');
        block.bytes[1..=line.len()].copy_from_slice(line.as_bytes());
        RequestScan::is_closing_line(&block, 1, 1 + end)
    }

    #[test]
    fn a_line_is_closing_as_clients_write_it_in_any_case() {
        for line in ["Connection: close\r\n", "connection: close\r\n", "CONNECTION: CLOSE\r\n"] {
            assert!(is_closing_line(line, 19), "{line:?}");
            // The rest has not come.
            assert!(!is_closing_line(line, 18), "{line:?}");
        }
        for line in [
            "Connection: keep-alive\r\n",
            "Connection: close, te\r\n",
            "Connection:\tclose\r\n",
            "Connection\x1a close\r\n",
            "Connection:\0close\r\n",
            "Connections: clos\r\n",
            "Connection: close\n\r",
        ] {
            assert!(!is_closing_line(line, line.len() as u32), "{line:?}");
        }
    }
}
