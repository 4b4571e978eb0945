//! Header lines by words: the usual ones, which are whole and plain. They go before the ways of `header`, which
//! see the same in them; whatever is odd is left to those.

use super::message::{
    CHUNKED, HAS_LENGTH, INTERESTING, KEY_START, LINE_START, MAX_HEADERS, MEMBER, Message, UPGRADE, VALUE,
};
use super::names::{self, NameHash, may_frame};
use super::{Block, Needles, words};

/// A header's name at the start of a line, in lower case.
struct LineName {
    hash: u32,
    len: u32,
}

impl Message {
    /// Reads a header line, or its name if its value is a list or cut off, and says where it got to: to `at` if the line
    /// is not that simple. [`LINE_START`] must be the state.
    #[inline(always)]
    pub fn read_line(&mut self, block: &Block, at: u32, end: u32, needles: &impl Needles) -> u32 {
        let Some(LineName { hash, len }) = read_name(block, at) else { return at };
        let name = LineName { hash, len: self.forgotten(len) };
        let value = at + name.len + 1;
        if value >= end || self.lines >= MAX_HEADERS {
            return at;
        }
        // First of all, and not where it is certain to be of use: the verifier looks at it for each way that leads there. From the
        // start of the line, so that a processor need not wait for the length of the name, which has no such bytes.
        let mut next = self.find(block, at, end, words::control);
        let mut state = VALUE;
        if block.is_line_end(next, end) {
            next += 2;
            state = LINE_START;
        }
        let mut is_framing = false;
        if may_frame(name.len) {
            if is_name(block, at, name.len, &names::CONTENT_LENGTH) {
                is_framing = true;
                next = self.read_length(block, value, end);
            } else if is_name(block, at, name.len, &names::TRANSFER_ENCODING) {
                is_framing = true;
                next = self.read_coding(block, value, end);
            } else if is_name(block, at, name.len, &names::UPGRADE) {
                self.flags |= UPGRADE;
            }
        }
        if is_framing {
            if next == value {
                return at;
            }
            state = LINE_START;
        } else if needles.list(name.hash) {
            state = KEY_START;
            next = value;
        }
        if needles.header(name.hash) {
            self.flags |= INTERESTING;
        }
        self.lines += 1;
        self.matched = 0;
        self.state = state;
        self.count(next - at);
        next
    }

    /// The rest of a value of which nothing is wanted. To `at` if the byte there is to be judged by itself.
    #[inline(always)]
    pub fn read_value(&mut self, block: &Block, at: u32, end: u32) -> u32 {
        let mut next = self.find(block, at, end, words::control);
        if block.is_line_end(next, end) {
            next += 2;
            self.state = LINE_START;
        }
        self.count(next - at);
        next
    }

    /// Reads a key of a list, in [`KEY_START`], or the rest of a member, in [`MEMBER`]. As [`Self::read_value`].
    #[inline(always)]
    pub fn read_member(&mut self, block: &Block, at: u32, end: u32, needles: &impl Needles) -> u32 {
        let next = if self.state == KEY_START {
            self.read_key(block, at, end, needles)
        } else {
            self.read_rest(block, at, end)
        };
        let next = self.forgotten(next);
        self.count(next - at);
        next
    }

    /// Reads up to the next key or line.
    #[inline(always)]
    fn read_rest(&mut self, block: &Block, at: u32, end: u32) -> u32 {
        let next = self.find(block, at, end, |word| words::control(word) | words::equal(word, b','));
        if next >= end {
            return next;
        }
        if block.byte(next) == b',' {
            self.state = KEY_START;
            return next + 1;
        }
        if block.is_line_end(next, end) {
            self.state = LINE_START;
            return next + 2;
        }
        next
    }

    #[inline(always)]
    pub fn find(&mut self, block: &Block, at: u32, end: u32, marks: impl Fn(u64) -> u64) -> u32 {
        let found = block.find(at, end, marks);
        self.forgotten(found)
    }

    /// Reads a key and the `=` behind it, or the `,` instead.
    #[inline(always)]
    fn read_key(&mut self, block: &Block, at: u32, end: u32, needles: &impl Needles) -> u32 {
        let key = if block.byte(at) == b' ' { at + 1 } else { at };
        let mut hash = NameHash::new();
        let mut len = 0;
        for _ in 0..4 {
            let word = block.word(key + len);
            let stops = words::ends_key(word);
            let before = words::before(stops);
            hash.add(word & before);
            if stops == 0 {
                len += 8;
                continue;
            }
            len = self.forgotten(len + words::first(stops));
            if key + len >= end {
                return at;
            }
            match block.byte(key + len) {
                b'=' => {
                    if needles.member(hash.finish(len)) {
                        self.flags |= INTERESTING;
                    }
                    self.state = MEMBER;
                }
                b',' => {}
                _ => return at,
            }
            return key + len + 1;
        }
        at
    }

    /// ` 1*9DIGIT CR LF`
    #[inline(always)]
    fn read_length(&mut self, block: &Block, at: u32, end: u32) -> u32 {
        const MOST_DIGITS: u32 = 9;
        let first = if block.byte(at) == b' ' { at + 1 } else { at };
        let mut length = 0_u32;
        let mut next = first;
        for _ in 0..MOST_DIGITS {
            let digit = block.byte(next).wrapping_sub(b'0') as u32;
            if digit > 9 {
                break;
            }
            length = length * 10 + digit;
            next += 1;
        }
        next = self.forgotten(next);
        if next == first || !block.is_line_end(next, end) || self.flags & HAS_LENGTH != 0 {
            return at;
        }
        self.flags |= HAS_LENGTH;
        self.missing = length;
        next + 2
    }

    /// ` chunked CR LF`
    #[inline(always)]
    fn read_coding(&mut self, block: &Block, at: u32, end: u32) -> u32 {
        let is_chunked = block.word(at) == u64::from_le_bytes(*b" chunked") && block.is_line_end(at + 8, end);
        if !is_chunked || self.flags & CHUNKED != 0 {
            return at;
        }
        self.flags |= CHUNKED;
        at + 10
    }
}

/// A name of less than 32 letters, digits and dashes, with its colon.
#[inline(always)]
fn read_name(block: &Block, at: u32) -> Option<LineName> {
    let mut hash = NameHash::new();
    let mut len = 0;
    for _ in 0..4 {
        let word = block.word(at + len);
        let stops = words::not_plain(word);
        let before = words::before(stops);
        hash.add(words::to_lower_case(word) & before);
        if stops != 0 {
            len += words::first(stops);
            let is_name = len != 0 && block.byte(at + len) == b':';
            return is_name.then(|| LineName { hash: hash.finish(len), len });
        }
        len += 8;
    }
    None
}

/// The plain name of so many bytes at `at` is this one, of more than 7 bytes or of 7.
#[inline(always)]
fn is_name(block: &Block, at: u32, len: u32, name: &names::Known) -> bool {
    // Letters become lower case, dashes stay what they are.
    const LOWER: u64 = 0x2020_2020_2020_2020;
    let part = |index: u32| {
        let left = name.len.saturating_sub(index * 8);
        let mask = if left >= 8 { u64::MAX } else { (1_u64 << (left * 8)) - 1 };
        ((block.word(at + index * 8) | LOWER) ^ name.words[index as usize]) & mask == 0
    };
    len == name.len && part(0) && part(1) && part(2)
}
