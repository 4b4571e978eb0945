//! The responses of a connection.

use super::message::{
    Body, CODE, HTTP_1_0, LINE_START, Message, RAW, REASON, START, START_LINE_LF, VALUE, VERSION,
    VERSION_END, line_feed,
};
use super::names::{self, is_text_byte};
use super::{Block, Event, NONE, Needles, version, words};

/// `HTTP/1.`; a digit follows.
const VERSION_PREFIX: u64 = u64::from_le_bytes(*b"HTTP/1.\0");

/// The state of a scan of responses; all zeros is the beginning of a connection.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResponseScan(Message);

/// What is looked for in a response: how long it is. Lines that can't say so are taken for text, whatever their names.
struct Framing;

impl Needles for Framing {
    #[inline(always)]
    fn may_begin(&self, first: u8) -> bool {
        matches!(first | 0x20, b'c' | b't')
    }
}

impl ResponseScan {
    /// As [`RequestScan::read`](super::RequestScan::read).
    #[inline(always)]
    pub fn read(&mut self, block: &Block, at: u32, end: u32, to_head: bool) -> (u32, Event) {
        let next = match self.0.state {
            LINE_START => {
                let (next, event) = self.read_end(block, at, end, to_head);
                if next != at {
                    return (next, event);
                }
                at
            }
            START => self.read_status_line(block, at, end),
            VALUE => self.0.read_value(block, at, end),
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
        (at + 1, self.push(block.byte(at), to_head))
    }

    /// As [`RequestScan::read_line`](super::RequestScan::read_line).
    #[inline(always)]
    pub fn read_line(&mut self, block: &Block, at: u32, end: u32) -> u32 {
        if !self.is_at_line() { at } else { self.0.read_line(block, at, end, &Framing) }
    }

    /// As [`RequestScan::skip_lines`](super::RequestScan::skip_lines): past those that can't say how long it is.
    #[inline(always)]
    pub fn skip_lines(&mut self, block: &Block, at: u32, end: u32) -> u32 {
        self.0.skip_lines(block, at, end, |first, at| names::is_length(first, block.word(at + 8)))
    }

    /// As [`RequestScan::skip_line`](super::RequestScan::skip_line): past a simple length.
    #[inline(always)]
    pub fn skip_line(&mut self, block: &Block, at: u32, end: u32) -> u32 {
        self.0.read_length_line(block, at, end)
    }

    #[inline(always)]
    pub fn is_at_line(&self) -> bool {
        self.0.state == LINE_START
    }

    /// As [`RequestScan::read_end`](super::RequestScan::read_end).
    #[inline(always)]
    pub fn read_end(&mut self, block: &Block, at: u32, end: u32, to_head: bool) -> (u32, Event) {
        if !block.is_line_end(at, end) {
            return (at, NONE);
        }
        self.0.count(2);
        (at + 2, if self.is_raw() { NONE } else { self.end_head(to_head) })
    }

    /// [At the start](Self::is_at_start): reads a status line, if the whole line is there.
    #[inline(always)]
    pub fn read_status_line(&mut self, block: &Block, at: u32, end: u32) -> u32 {
        /// `HTTP/1.1`, and ` 200 ` behind it.
        const CODE_AT: u32 = 8;
        const REASON_AT: u32 = 13;
        let Some(version) = version(block.word(at)) else { return at };
        let code = block.word(at + CODE_AT);
        let digit = |place: u32| (code >> (place * 8)) as u8;
        let hundreds = digit(1).wrapping_sub(b'0') as u16;
        let tens = digit(2).wrapping_sub(b'0') as u16;
        let ones = digit(3).wrapping_sub(b'0') as u16;
        let spaced = digit(0) == b' ' && digit(4) == b' ';
        if !spaced || hundreds.wrapping_sub(1) > 8 || tens > 9 || ones > 9 || at + REASON_AT >= end {
            return at;
        }
        let reason_end = self.0.find(block, at + REASON_AT, end, words::control);
        if !block.is_line_end(reason_end, end) {
            return at;
        }
        let message = &mut self.0;
        message.flags = version;
        message.status = hundreds * 100 + tens * 10 + ones;
        message.begin_lines();
        message.count(reason_end + 2 - at);
        reason_end + 2
    }

    /// Judges the next byte. `to_head` tells of the request that is being answered: it was a HEAD.
    #[inline(always)]
    pub fn push(&mut self, byte: u8, to_head: bool) -> Event {
        self.0.count(1);
        if self.0.state > START_LINE_LF {
            return match self.0.push(byte, &Framing) {
                Some(event) => event,
                None => self.end_head(to_head),
            };
        }
        self.0.state = self.status_line(byte);
        if self.0.state == START_LINE_LF + 1 {
            self.0.begin_lines();
        }
        NONE
    }

    /// Between two responses, or before the one behind an interim one, and no byte of it has come.
    #[inline(always)]
    pub fn is_at_start(&self) -> bool {
        self.0.state == START
    }

    #[inline(always)]
    pub fn is_raw(&self) -> bool {
        self.0.is_raw()
    }

    /// It is raw because what follows is another protocol.
    #[inline(always)]
    pub fn is_switched(&self) -> bool {
        self.is_raw() && self.0.status == 101
    }

    /// So many of the bytes that follow need not be looked at, if they go to [`Self::skip`], which says what the last of them ended.
    #[inline(always)]
    pub fn skippable(&self) -> u32 {
        self.0.skippable()
    }

    #[inline(always)]
    pub fn skip(&mut self, bytes: u32) -> Event {
        self.0.skip(bytes)
    }

    /// `HTTP-version SP 3DIGIT [SP reason-phrase] CRLF`
    #[inline(always)]
    fn status_line(&mut self, byte: u8) -> u32 {
        let message = &mut self.0;
        match message.state {
            START if byte == b'H' => {
                message.flags = 0;
                message.status = 0;
                message.matched = 1;
                VERSION
            }
            VERSION => {
                let at = message.matched;
                message.matched = at.wrapping_add(1);
                if at < 7 {
                    return if byte == (VERSION_PREFIX >> ((at & 7) * 8)) as u8 { VERSION } else { RAW };
                }
                match byte {
                    b'0' => {
                        message.flags |= HTTP_1_0;
                        VERSION_END
                    }
                    b'1' => VERSION_END,
                    _ => RAW,
                }
            }
            VERSION_END if byte == b' ' => {
                message.matched = 0;
                CODE
            }
            CODE if message.matched < 3 => {
                let digit = byte.wrapping_sub(b'0');
                // There is no status below 100 (RFC 9110 §15).
                if digit > 9 || (digit == 0 && message.matched == 0) {
                    return RAW;
                }
                message.matched += 1;
                message.status = message.status.wrapping_mul(10).wrapping_add(digit as u16);
                CODE
            }
            CODE if byte == b' ' => REASON,
            CODE | REASON if byte == b'\r' => START_LINE_LF,
            REASON if is_text_byte(byte) => REASON,
            START_LINE_LF => line_feed(byte, START_LINE_LF + 1),
            _ => RAW,
        }
    }

    /// The order of the cases is that of RFC 9112 §6.3.
    #[inline(always)]
    fn end_head(&mut self, to_head: bool) -> Event {
        let body = match self.0.status {
            101 => {
                self.0.give_up();
                return NONE;
            }
            100 | 102..=199 => Body::Interim,
            204 | 304 => Body::None,
            _ if to_head => Body::None,
            _ => Body::AsDeclaredOrOpen,
        };
        self.0.end_head(body)
    }
}
