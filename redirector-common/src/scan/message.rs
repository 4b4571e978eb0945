//! What requests and responses have in common: header lines and bodies.

use super::names::{
    KEPT, is_content_length, is_text_byte, is_token_byte, is_transfer_encoding, is_upgrade, to_lower_case,
};
use super::{Block, END, Event, HEAD, NONE, Needles};

/// Longest head, and longest trailer section, in bytes.
pub const MAX_HEAD: u32 = 64 * 1024;
/// Most header lines of a head.
pub const MAX_HEADERS: u16 = 256;
/// Longest body, and longest chunk, in bytes: positions in the stream are compared as 32-bit numbers.
pub const LARGEST_BODY: u32 = 0x7fff_ffff;
/// Most bytes of extensions on a chunk line, from the first `;` to its CR LF.
const MAX_EXTENSION: u32 = 4 * 1024;
/// Most hex digits of a chunk size.
const MAX_SIZE_DIGITS: u16 = 16;

const FNV_OFFSET: u32 = 0x811c_9dc5;
const FNV_PRIME: u32 = 0x0100_0193;

/// States up to [`TRAILERS_LF`] count their bytes towards [`MAX_HEAD`].
pub const START: u32 = 0;
pub const EMPTY_LINE_LF: u32 = 1;
pub const METHOD: u32 = 2;
pub const TARGET_START: u32 = 3;
pub const TARGET: u32 = 4;
pub const VERSION: u32 = 5;
pub const VERSION_END: u32 = 6;
pub const CODE: u32 = 7;
pub const REASON: u32 = 8;
pub const START_LINE_LF: u32 = 9;
pub const LINE_START: u32 = 10;
pub const NAME: u32 = 11;
pub const VALUE: u32 = 12;
const LINE_LF: u32 = 13;
const HEAD_LF: u32 = 14;
const LENGTH_START: u32 = 15;
const LENGTH: u32 = 16;
const LENGTH_TAIL: u32 = 17;
const CODING_START: u32 = 18;
const CODING: u32 = 19;
const CODING_TAIL: u32 = 20;
const KEY_START: u32 = 21;
const KEY: u32 = 22;
const KEY_TAIL: u32 = 23;
const MEMBER: u32 = 24;
const TRAILER_START: u32 = 25;
const TRAILER_NAME: u32 = 26;
const TRAILER_VALUE: u32 = 27;
const TRAILER_LF: u32 = 28;
const TRAILERS_LF: u32 = 29;
const BODY: u32 = 30;
const SIZE_START: u32 = 31;
const SIZE: u32 = 32;
const EXTENSION: u32 = 33;
const SIZE_LF: u32 = 34;
const DATA: u32 = 35;
const DATA_CR: u32 = 36;
const DATA_LF: u32 = 37;
const UNTIL_CLOSE: u32 = 38;
pub const RAW: u32 = 39;

/// The head so far has or is …
pub const HAS_LENGTH: u16 = 1;
pub const CHUNKED: u16 = 2;
pub const UPGRADE: u16 = 4;
pub const HTTP_1_0: u16 = 8;
pub const INTERESTING: u16 = 16;
/// A HEAD request.
pub const IS_HEAD: u16 = 32;

/// The state of a scan; all zeros is the beginning of a connection.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Message {
    pub state: u32,
    /// Bytes of the body or chunk that are to come.
    missing: u32,
    /// Of the name or key so far.
    hash: u32,
    /// Bytes of the head, the trailer section, or the extensions of a chunk line so far.
    length: u32,
    lines: u16,
    /// Bytes of a name, a literal or a number so far.
    pub matched: u16,
    pub flags: u16,
    /// Of a response.
    pub status: u16,
    /// The name or method so far.
    pub name: [u8; KEPT],
}

/// What a head says about the body behind it.
pub enum Body {
    AsDeclared,
    /// As declared, or up to the end of the connection.
    AsDeclaredOrOpen,
    None,
    /// Another head follows.
    Interim,
}

impl Message {
    /// Judges a byte of a header line, or of what follows the head. `None` at the end of the head: the caller, who knows
    /// what its start line meant, calls [`Self::end_head`].
    #[inline(always)]
    pub fn push(&mut self, byte: u8, needles: &impl Needles) -> Option<Event> {
        let next = match self.state {
            VALUE => self.value(byte),
            NAME => return Some(self.name(byte, needles)),
            LINE_START => match byte {
                b'\r' => HEAD_LF,
                byte if is_token_byte(byte) && self.lines < MAX_HEADERS => {
                    self.lines += 1;
                    self.begin_name(to_lower_case(byte));
                    NAME
                }
                _ => RAW,
            },
            LINE_LF => line_feed(byte, LINE_START),
            HEAD_LF => {
                if byte == b'\n' {
                    return None;
                }
                RAW
            }
            LENGTH_START | LENGTH | LENGTH_TAIL => self.content_length(byte),
            CODING_START | CODING | CODING_TAIL => self.transfer_coding(byte),
            KEY_START | KEY | KEY_TAIL | MEMBER => self.member(byte, needles),
            BODY => {
                self.missing = self.missing.wrapping_sub(1);
                if self.missing == 0 {
                    return Some(self.end());
                }
                BODY
            }
            UNTIL_CLOSE => UNTIL_CLOSE,
            RAW => RAW,
            TRAILERS_LF if byte == b'\n' => return Some(self.end()),
            TRAILER_START | TRAILER_NAME | TRAILER_VALUE | TRAILER_LF => trailer(self.state, byte),
            _ => self.chunk(byte),
        };
        self.state = next;
        Some(NONE)
    }

    /// Reads what can be read at once of a header's value, and says where it got to; [`Self::push`] takes it from there. At
    /// least one byte if the byte at `at` is one of a value.
    #[inline(always)]
    pub fn read_value(&mut self, block: &Block, at: u32, end: u32) -> u32 {
        let mut next = block.find(at, end, b' ', false);
        if next + 1 < end && block.byte(next) == b'\r' && block.byte(next + 1) == b'\n' {
            next += 2;
            self.state = LINE_START;
        }
        self.count_many(next - at);
        next
    }

    /// The same with a header's name, from its first byte to its colon, in [`LINE_START`] or [`NAME`], and its value.
    #[inline(always)]
    pub fn read_name(&mut self, block: &Block, at: u32, end: u32, needles: &impl Needles) -> u32 {
        /// Longer names take several turns.
        const LONGEST: u32 = 48;
        let mut next = at;
        let mut byte = block.byte(next);
        if self.state == LINE_START {
            if !is_token_byte(byte) || self.lines >= MAX_HEADERS {
                return at;
            }
            self.lines += 1;
            self.begin_name(to_lower_case(byte));
            self.state = NAME;
            next += 1;
        }
        // In registers, not in memory, while it goes on.
        let (mut hash, mut len) = (self.hash, self.matched);
        for _ in 0..LONGEST {
            if next >= end {
                break;
            }
            byte = block.byte(next);
            if !is_token_byte(byte) {
                break;
            }
            let lower = to_lower_case(byte);
            if (len as usize) < KEPT {
                self.name[len as usize] = lower;
            }
            len = len.wrapping_add(1);
            hash = (hash ^ lower as u32).wrapping_mul(FNV_PRIME);
            next += 1;
        }
        (self.hash, self.matched) = (hash, len);
        if next < end && byte == b':' {
            self.end_name(needles);
            next += 1;
        }
        self.count_many(next - at);
        if self.state == VALUE && next < end { self.read_value(block, next, end) } else { next }
    }

    /// The same with the bytes of a body, but for its last.
    #[inline(always)]
    pub fn read_body(&mut self, at: u32, end: u32) -> u32 {
        let skippable = self.skippable();
        let left = end.saturating_sub(at);
        let bytes = if skippable < left { skippable } else { left };
        self.skip(bytes);
        at + bytes
    }

    /// `HTTP/1.0` or `HTTP/1.1` at `at`, with `flags` set accordingly.
    #[inline(always)]
    pub fn is_version(&mut self, block: &Block, at: u32) -> bool {
        let word = block.word_at(at);
        if word == u64::from_le_bytes(*b"HTTP/1.0") {
            self.flags |= HTTP_1_0;
            return true;
        }
        word == u64::from_le_bytes(*b"HTTP/1.1")
    }

    #[inline(always)]
    pub fn count_many(&mut self, bytes: u32) {
        self.length += bytes;
        if self.length > MAX_HEAD {
            self.state = RAW;
        }
    }

    /// Counts a byte of a head or trailer section.
    #[inline(always)]
    pub fn count(&mut self) {
        if self.state <= TRAILERS_LF {
            self.length += 1;
            if self.length > MAX_HEAD {
                self.state = RAW;
            }
        }
    }

    #[inline(always)]
    pub fn begin_name(&mut self, first: u8) {
        self.name[0] = first;
        self.matched = 1;
        self.hash = (FNV_OFFSET ^ first as u32).wrapping_mul(FNV_PRIME);
    }

    #[inline(always)]
    pub fn keep(&mut self, byte: u8) {
        let at = self.matched as usize;
        if at < KEPT {
            self.name[at] = byte;
        }
        self.matched = self.matched.wrapping_add(1);
    }

    /// After the LF of the start line.
    #[inline(always)]
    pub fn begin_lines(&mut self) {
        self.state = LINE_START;
    }

    #[inline(always)]
    pub fn give_up(&mut self) {
        self.state = RAW;
    }

    #[inline(always)]
    pub fn is_raw(&self) -> bool {
        self.state == RAW
    }

    /// After the LF of the head.
    #[inline(always)]
    pub fn end_head(&mut self, body: Body) -> Event {
        let flags = self.flags;
        // Both lengths, or none that this version knows.
        if flags & CHUNKED != 0 && flags & (HAS_LENGTH | HTTP_1_0) != 0 {
            self.state = RAW;
            return NONE;
        }
        match body {
            Body::Interim => {
                self.restart();
                return HEAD;
            }
            Body::None => return HEAD | self.end(),
            Body::AsDeclared | Body::AsDeclaredOrOpen => {}
        }
        if flags & CHUNKED != 0 {
            self.state = SIZE_START;
        } else if flags & HAS_LENGTH == 0 && matches!(body, Body::AsDeclaredOrOpen) {
            self.state = UNTIL_CLOSE;
        } else if flags & HAS_LENGTH == 0 || self.missing == 0 {
            return HEAD | self.end();
        } else {
            self.state = BODY;
        }
        HEAD
    }

    /// Within a head, or at its start.
    #[inline(always)]
    pub fn is_in_head(&self) -> bool {
        self.state < TRAILER_START
    }

    /// Bytes at hand that need not be looked at.
    #[inline(always)]
    pub fn skippable(&self) -> u32 {
        match self.state {
            // The last byte is one to look at.
            BODY | DATA => self.missing.wrapping_sub(1),
            UNTIL_CLOSE | RAW => u32::MAX,
            _ => 0,
        }
    }

    /// Takes so many of the [`skippable`](Self::skippable) bytes for seen.
    #[inline(always)]
    pub fn skip(&mut self, bytes: u32) {
        if self.state == BODY || self.state == DATA {
            self.missing = self.missing.wrapping_sub(bytes);
        }
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

    #[inline(always)]
    fn end(&mut self) -> Event {
        self.restart();
        END
    }

    /// The flags stay: what was just read can still be asked about.
    #[inline(always)]
    fn restart(&mut self) {
        self.state = START;
        self.missing = 0;
        self.length = 0;
        self.lines = 0;
        self.matched = 0;
    }

    #[inline(always)]
    fn value(&self, byte: u8) -> u32 {
        if byte == b'\r' {
            LINE_LF
        } else if is_text_byte(byte) {
            VALUE
        } else {
            RAW
        }
    }

    #[inline(always)]
    fn name(&mut self, byte: u8, needles: &impl Needles) -> Event {
        if byte != b':' {
            if is_token_byte(byte) {
                let byte = to_lower_case(byte);
                self.keep(byte);
                self.hash = (self.hash ^ byte as u32).wrapping_mul(FNV_PRIME);
            } else {
                self.state = RAW;
            }
            return NONE;
        }
        self.end_name(needles);
        NONE
    }

    /// At its colon.
    #[inline(always)]
    fn end_name(&mut self, needles: &impl Needles) {
        let mut next = VALUE;
        if is_content_length(&self.name, self.matched) {
            next = if self.flags & HAS_LENGTH == 0 { LENGTH_START } else { RAW };
            self.flags |= HAS_LENGTH;
        } else if is_transfer_encoding(&self.name, self.matched) {
            next = if self.flags & CHUNKED == 0 { CODING_START } else { RAW };
            self.flags |= CHUNKED;
        } else if is_upgrade(&self.name, self.matched) {
            self.flags |= UPGRADE;
        } else if needles.list(self.hash) {
            next = KEY_START;
        }
        if needles.header(self.hash) {
            self.flags |= INTERESTING;
        }
        self.matched = 0;
        self.state = next;
    }

    /// `1*DIGIT` with blanks around it.
    #[inline(always)]
    fn content_length(&mut self, byte: u8) -> u32 {
        let digit = byte.wrapping_sub(b'0') as u32;
        let blank = byte == b' ' || byte == b'\t';
        if digit < 10 && self.state != LENGTH_TAIL && self.missing <= (LARGEST_BODY - 9) / 10 {
            self.missing = self.missing * 10 + digit;
            LENGTH
        } else if blank && self.state == LENGTH_START {
            LENGTH_START
        } else if self.state == LENGTH_START {
            RAW
        } else if blank {
            LENGTH_TAIL
        } else if byte == b'\r' {
            LINE_LF
        } else {
            RAW
        }
    }

    /// `chunked` in any case, with blanks around it.
    #[inline(always)]
    fn transfer_coding(&mut self, byte: u8) -> u32 {
        const LITERAL: u64 = u64::from_le_bytes(*b"chunked\0");
        let blank = byte == b' ' || byte == b'\t';
        if self.state == CODING_START && blank {
            return CODING_START;
        }
        if self.state != CODING_TAIL && self.matched < 7 {
            let expected = (LITERAL >> ((self.matched & 7) * 8)) as u8;
            self.matched += 1;
            return if to_lower_case(byte) == expected { CODING } else { RAW };
        }
        if blank {
            CODING_TAIL
        } else if byte == b'\r' {
            LINE_LF
        } else {
            RAW
        }
    }

    /// `key OWS "=" rest ","`, again and again.
    #[inline(always)]
    fn member(&mut self, byte: u8, needles: &impl Needles) -> u32 {
        if byte == b'\r' {
            return LINE_LF;
        }
        if !is_text_byte(byte) {
            return RAW;
        }
        if byte == b',' {
            return KEY_START;
        }
        let blank = byte == b' ' || byte == b'\t';
        if self.state == KEY_START {
            if blank {
                return KEY_START;
            }
            self.hash = FNV_OFFSET;
        } else if self.state == MEMBER {
            return MEMBER;
        }
        if byte == b'=' {
            if needles.member(self.hash) {
                self.flags |= INTERESTING;
            }
            return MEMBER;
        }
        if blank {
            return KEY_TAIL;
        }
        if self.state == KEY_TAIL {
            // No key has a blank within.
            return MEMBER;
        }
        self.hash = (self.hash ^ byte as u32).wrapping_mul(FNV_PRIME);
        KEY
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

#[inline(always)]
pub fn line_feed(byte: u8, next: u32) -> u32 {
    if byte == b'\n' { next } else { RAW }
}
