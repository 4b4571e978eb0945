//! The responses of a connection.

use super::message::{
    Body, CODE, HTTP_1_0, LINE_START, Message, NAME, RAW, REASON, START, START_LINE_LF, VALUE, VERSION,
    VERSION_END, line_feed,
};
use super::names::is_text_byte;
use super::{Block, Event, NONE, NoNeedles};

/// `HTTP/1.`; a digit follows.
const VERSION_PREFIX: u64 = u64::from_le_bytes(*b"HTTP/1.\0");

/// The state of a scan of responses; all zeros is the beginning of a connection.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResponseScan(Message);

impl ResponseScan {
    /// As [`RequestScan::read`](super::RequestScan::read).
    #[inline(always)]
    pub fn read(&mut self, block: &Block, at: u32, end: u32, to_head: bool) -> (u32, Event) {
        let next = match self.0.state {
            VALUE => self.0.read_value(block, at, end),
            LINE_START | NAME => self.0.read_name(block, at, end, &NoNeedles),
            START => self.read_status_line(block, at, end),
            _ => self.0.read_body(at, end),
        };
        if next != at {
            return (next, NONE);
        }
        (at + 1, self.push(block.byte(at), to_head))
    }

    /// Reads a status line, if the whole line is there.
    #[inline(always)]
    fn read_status_line(&mut self, block: &Block, at: u32, end: u32) -> u32 {
        /// `HTTP/1.1 200 `, and the shortest rest.
        const REASON_AT: u32 = 13;
        let message = &mut self.0;
        message.flags = 0;
        if at + REASON_AT + 8 > end || !message.is_version(block, at) {
            return at;
        }
        let hundreds = block.byte(at + 9).wrapping_sub(b'0') as u16;
        let tens = block.byte(at + 10).wrapping_sub(b'0') as u16;
        let ones = block.byte(at + 11).wrapping_sub(b'0') as u16;
        let spaced = block.byte(at + 8) == b' ' && block.byte(at + 12) == b' ';
        if !spaced || hundreds.wrapping_sub(1) > 8 || tens > 9 || ones > 9 {
            return at;
        }
        let reason_end = block.find(at + REASON_AT, end, b' ', false);
        if reason_end + 1 >= end || block.byte(reason_end) != b'\r' || block.byte(reason_end + 1) != b'\n' {
            return at;
        }
        message.status = hundreds * 100 + tens * 10 + ones;
        message.begin_lines();
        message.count_many(reason_end + 2 - at);
        reason_end + 2
    }

    /// Judges the next byte. `to_head` tells of the request that is being answered: it was a HEAD.
    #[inline(always)]
    pub fn push(&mut self, byte: u8, to_head: bool) -> Event {
        self.0.count();
        if self.0.state > START_LINE_LF {
            return match self.0.push(byte, &NoNeedles) {
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

    /// So many of the bytes that follow need not be looked at, if they go to [`Self::skip`].
    #[inline(always)]
    pub fn skippable(&self) -> u32 {
        self.0.skippable()
    }

    #[inline(always)]
    pub fn skip(&mut self, bytes: u32) {
        self.0.skip(bytes);
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
