//! Header lines, a byte at a time: what is odd, or cut off by the end of a segment.

use super::message::{
    CHUNKED, CODING, CODING_START, CODING_TAIL, HAS_LENGTH, INTERESTING, KEY, KEY_START, KEY_TAIL,
    LARGEST_BODY, LENGTH, LENGTH_START, LENGTH_TAIL, LINE_LF, MEMBER, Message, RAW, UPGRADE, VALUE,
};
use super::names::{self, Name, is_text_byte, is_token_byte, to_lower_case};
use super::{Event, NONE, Needles};

impl Message {
    #[inline(always)]
    pub fn value(&self, byte: u8) -> u32 {
        if byte == b'\r' {
            LINE_LF
        } else if is_text_byte(byte) {
            VALUE
        } else {
            RAW
        }
    }

    #[inline(always)]
    pub fn name(&mut self, byte: u8, needles: &impl Needles) -> Event {
        if byte == b':' {
            self.end_name(needles);
        } else if is_token_byte(byte) {
            self.keep(to_lower_case(byte));
        } else {
            self.state = RAW;
        }
        NONE
    }

    /// At its colon.
    #[inline(always)]
    fn end_name(&mut self, needles: &impl Needles) {
        let len = u32::from(self.matched);
        let hash = self.name.hash(len);
        let mut next = VALUE;
        if self.name.is(len, &names::CONTENT_LENGTH) {
            next = if self.flags & HAS_LENGTH == 0 { LENGTH_START } else { RAW };
            self.flags |= HAS_LENGTH;
        } else if self.name.is(len, &names::TRANSFER_ENCODING) {
            next = if self.flags & CHUNKED == 0 { CODING_START } else { RAW };
            self.flags |= CHUNKED;
        } else if self.name.is(len, &names::UPGRADE) {
            self.flags |= UPGRADE;
        } else if needles.list(hash) {
            next = KEY_START;
        }
        if needles.header(hash) {
            self.flags |= INTERESTING;
        }
        self.matched = 0;
        self.state = next;
    }

    /// `1*DIGIT` with blanks around it.
    #[inline(always)]
    pub fn content_length(&mut self, byte: u8) -> u32 {
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
    pub fn transfer_coding(&mut self, byte: u8) -> u32 {
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
    pub fn member(&mut self, byte: u8, needles: &impl Needles) -> u32 {
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
            self.name = Name::default();
            self.matched = 0;
        } else if self.state == MEMBER {
            return MEMBER;
        }
        if byte == b'=' {
            let len = u32::from(self.matched);
            if needles.member(self.name.hash(len)) {
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
        self.keep(byte);
        KEY
    }
}
