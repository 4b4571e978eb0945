//! What follows a head: counted and chunked bodies, trailers.

use super::message::{
    BODY, DATA, DATA_CR, DATA_LF, EXTENSION, LARGEST_BODY, Message, RAW, SIZE, SIZE_LF, SIZE_START,
    TRAILER_LF, TRAILER_NAME, TRAILER_START, TRAILER_VALUE, TRAILERS_LF, UNTIL_CLOSE, line_feed,
};
use super::names::{is_text_byte, is_token_byte};
use super::{Event, NONE};

/// Most bytes of extensions on a chunk line, from the first `;` to its CR LF.
const MAX_EXTENSION: u32 = 4 * 1024;
/// Most hex digits of a chunk size.
const MAX_SIZE_DIGITS: u16 = 16;

impl Message {
    /// Bytes at hand that need not be looked at.
    #[inline(always)]
    pub fn skippable(&self) -> u32 {
        match self.state {
            BODY => self.missing,
            // The last byte is one to look at.
            DATA => self.missing.wrapping_sub(1),
            UNTIL_CLOSE | RAW => u32::MAX,
            _ => 0,
        }
    }

    /// Takes so many of the [`skippable`](Self::skippable) bytes for seen; says what the last of them ended.
    #[inline(always)]
    pub fn skip(&mut self, bytes: u32) -> Event {
        if self.state == BODY || self.state == DATA {
            self.missing = self.missing.wrapping_sub(bytes);
        }
        if self.state == BODY && self.missing == 0 { self.end() } else { NONE }
    }

    /// The next bytes, so many of them, could be [passed over](Self::pass_over).
    #[inline(always)]
    pub fn is_within_body(&self, bytes: u32) -> bool {
        (self.state == BODY && bytes <= self.missing) || (self.state == DATA && bytes < self.missing)
    }

    /// Goes past bytes of a body, up to its end, that were not seen. False: they are not of a body alone.
    #[inline(always)]
    pub fn pass_over(&mut self, bytes: u32) -> bool {
        if self.state == BODY && bytes == self.missing {
            self.end();
            return true;
        }
        let within = (self.state == BODY || self.state == DATA) && bytes < self.missing;
        if within {
            self.missing = self.missing.wrapping_sub(bytes);
        }
        within
    }

    /// Goes past the bytes of a body that are in `at..end`, but for the last of a chunk. As [`Self::skip`].
    #[inline(always)]
    pub fn read_body(&mut self, at: u32, end: u32) -> (u32, Event) {
        let skippable = self.skippable();
        let left = end.saturating_sub(at);
        let bytes = if skippable < left { skippable } else { left };
        (at + bytes, self.skip(bytes))
    }

    /// The state after a byte that ends nothing.
    #[inline(always)]
    pub fn body(&mut self, byte: u8) -> u32 {
        match self.state {
            UNTIL_CLOSE => UNTIL_CLOSE,
            TRAILER_START | TRAILER_NAME | TRAILER_VALUE | TRAILER_LF => trailer(self.state, byte),
            _ => self.chunk(byte),
        }
    }

    /// `1*HEXDIG [";" extension] CRLF data CRLF`, again and again (RFC 9112 §7.1).
    #[inline(always)]
    fn chunk(&mut self, byte: u8) -> u32 {
        match self.state {
            SIZE_START => {
                self.missing = 0;
                self.matched = 0;
                self.length = 0;
                self.size_digit(byte)
            }
            SIZE => match byte {
                b'\r' => SIZE_LF,
                b';' => {
                    self.length = 1;
                    EXTENSION
                }
                _ => self.size_digit(byte),
            },
            EXTENSION => {
                if byte == b'\r' {
                    return SIZE_LF;
                }
                self.length += 1;
                if self.length <= MAX_EXTENSION && is_text_byte(byte) { EXTENSION } else { RAW }
            }
            SIZE_LF => {
                self.length = 0;
                line_feed(byte, if self.missing == 0 { TRAILER_START } else { DATA })
            }
            DATA => {
                self.missing = self.missing.wrapping_sub(1);
                if self.missing == 0 { DATA_CR } else { DATA }
            }
            DATA_CR if byte == b'\r' => DATA_LF,
            DATA_LF => line_feed(byte, SIZE_START),
            _ => RAW,
        }
    }

    #[inline(always)]
    fn size_digit(&mut self, byte: u8) -> u32 {
        let letter = (byte | 0x20).wrapping_sub(b'a');
        let digit = if letter < 6 { letter + 10 } else { byte.wrapping_sub(b'0') };
        if (letter >= 6 && digit > 9) || self.matched >= MAX_SIZE_DIGITS || self.missing > LARGEST_BODY >> 4 {
            return RAW;
        }
        self.matched += 1;
        self.missing = self.missing << 4 | digit as u32;
        SIZE
    }
}

/// `*( field-line CRLF ) CRLF`
#[inline(always)]
fn trailer(state: u32, byte: u8) -> u32 {
    match state {
        TRAILER_START if byte == b'\r' => TRAILERS_LF,
        TRAILER_NAME if byte == b':' => TRAILER_VALUE,
        TRAILER_START | TRAILER_NAME if is_token_byte(byte) => TRAILER_NAME,
        TRAILER_VALUE if byte == b'\r' => TRAILER_LF,
        TRAILER_VALUE if is_text_byte(byte) => TRAILER_VALUE,
        TRAILER_LF => line_feed(byte, TRAILER_START),
        _ => RAW,
    }
}
