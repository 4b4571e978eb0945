//! What requests and responses have in common: the state of a message that is being read.

use super::names::{Name, is_text_byte, is_token_byte, to_lower_case};
use super::{END, Event, HEAD, NONE, Needles};

/// Longest head, and longest trailer section, in bytes.
pub const MAX_HEAD: u32 = 64 * 1024;
/// Most header lines of a head.
pub const MAX_HEADERS: u16 = 256;
/// Longest body, and longest chunk, in bytes: positions in the stream are compared as 32-bit numbers.
pub const LARGEST_BODY: u32 = 0x7fff_ffff;

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
pub const LINE_LF: u32 = 13;
pub const HEAD_LF: u32 = 14;
pub const LENGTH_START: u32 = 15;
pub const LENGTH: u32 = 16;
pub const LENGTH_TAIL: u32 = 17;
pub const CODING_START: u32 = 18;
pub const CODING: u32 = 19;
pub const CODING_TAIL: u32 = 20;
pub const KEY_START: u32 = 21;
pub const KEY: u32 = 22;
pub const KEY_TAIL: u32 = 23;
pub const MEMBER: u32 = 24;
pub const TRAILER_START: u32 = 25;
pub const TRAILER_NAME: u32 = 26;
pub const TRAILER_VALUE: u32 = 27;
pub const TRAILER_LF: u32 = 28;
pub const TRAILERS_LF: u32 = 29;
pub const BODY: u32 = 30;
pub const SIZE_START: u32 = 31;
pub const SIZE: u32 = 32;
pub const EXTENSION: u32 = 33;
pub const SIZE_LF: u32 = 34;
pub const DATA: u32 = 35;
pub const DATA_CR: u32 = 36;
pub const DATA_LF: u32 = 37;
pub const UNTIL_CLOSE: u32 = 38;
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
///
/// What [`Self::restart`] sets to zero is not side by side: the compiler for BPF makes a call of that, which goes byte by byte.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Message {
    pub state: u32,
    pub flags: u16,
    /// Bytes of a name, a literal or a number so far.
    pub matched: u16,
    /// The name, key or method so far.
    pub name: Name,
    /// Bytes of the body or chunk that are to come.
    pub missing: u32,
    /// Always zero: see [`Self::forgotten`].
    nothing: u32,
    /// Bytes of the head, the trailer section, or the extensions of a chunk line so far.
    pub length: u32,
    /// Of a response.
    pub status: u16,
    pub lines: u16,
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
                byte if !needles.may_begin(byte) => {
                    let is_line = byte > b' ' && is_text_byte(byte) && self.lines < MAX_HEADERS;
                    self.lines += 1;
                    if is_line { VALUE } else { RAW }
                }
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
            TRAILERS_LF if byte == b'\n' => return Some(self.end()),
            BODY => {
                self.missing = self.missing.wrapping_sub(1);
                if self.missing == 0 {
                    return Some(self.end());
                }
                BODY
            }
            _ => self.body(byte),
        };
        self.state = next;
        Some(NONE)
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

    /// After the LF of the start line.
    #[inline(always)]
    pub fn begin_lines(&mut self) {
        self.state = LINE_START;
    }

    /// Of a header, a key, or a method.
    #[inline(always)]
    pub fn begin_name(&mut self, first: u8) {
        self.name = Name::default();
        self.matched = 0;
        self.keep(first);
    }

    #[inline(always)]
    pub fn keep(&mut self, byte: u8) {
        self.name.push(u32::from(self.matched), byte);
        self.matched = self.matched.wrapping_add(1);
    }

    /// Counts bytes of a head or trailer section.
    #[inline(always)]
    pub fn count(&mut self, bytes: u32) {
        if self.state <= TRAILERS_LF {
            self.length += bytes;
            if self.length > MAX_HEAD {
                self.state = RAW;
            }
        }
    }

    /// The same number, of which the verifier knows nothing any more: it does not follow what is in a map, where the zero is. Otherwise
    /// it would look at all that comes then for each way that led to the number.
    #[inline(always)]
    pub fn forgotten(&self, number: u32) -> u32 {
        if cfg!(target_arch = "bpf") {
            // SAFETY: it is a field of this message.
            number ^ unsafe { (&raw const self.nothing).read_volatile() }
        } else {
            number
        }
    }

    #[inline(always)]
    pub fn give_up(&mut self) {
        self.state = RAW;
    }

    #[inline(always)]
    pub fn is_raw(&self) -> bool {
        self.state == RAW
    }

    /// Within a head, or at its start.
    #[inline(always)]
    pub fn is_in_head(&self) -> bool {
        self.state < TRAILER_START
    }

    #[inline(always)]
    pub fn end(&mut self) -> Event {
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
}

#[inline(always)]
pub fn line_feed(byte: u8, next: u32) -> u32 {
    if byte == b'\n' { next } else { RAW }
}
