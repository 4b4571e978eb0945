//! Header lines by words: the usual ones, which are whole and plain. They go before the ways of `header`, which
//! see the same in them; whatever is odd is left to those.

use super::message::{
    CHUNKED, HAS_LENGTH, INTERESTING, KEY_START, LINE_START, MAX_HEADERS, MEMBER, Message, UPGRADE, VALUE,
};
use super::names::{self, NameHash, may_frame, plain_bytes};
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
        let mut state = LINE_START;
        let mut next = at;
        if may_frame(name.len) {
            if is_name(block, at, name.len, &names::CONTENT_LENGTH) {
                next = self.read_length(block, value, end);
                if next == value {
                    return at;
                }
            } else if is_name(block, at, name.len, &names::TRANSFER_ENCODING) {
                next = self.read_coding(block, value, end);
                if next == value {
                    return at;
                }
            } else if is_name(block, at, name.len, &names::UPGRADE) {
                self.flags |= UPGRADE;
            }
        }
        if next == at {
            if needles.list(name.hash) {
                state = KEY_START;
                next = value;
            } else {
                next = self.find(block, value, end, words::control);
                if block.is_line_end(next, end) {
                    next += 2;
                } else {
                    state = VALUE;
                }
            }
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

    /// Reads members of a list, in [`KEY_START`] or [`MEMBER`]. As [`Self::read_value`].
    #[inline(always)]
    pub fn read_members(&mut self, block: &Block, at: u32, end: u32, needles: &impl Needles) -> u32 {
        /// More take another turn.
        const MEMBERS: u32 = 4;
        let mut next = at;
        for _ in 0..MEMBERS {
            if self.state == KEY_START {
                let after = self.read_key(block, next, end, needles);
                if after == next {
                    break;
                }
                next = self.forgotten(after);
            } else if self.state == MEMBER {
                next = self.find(block, next, end, |word| words::control(word) | words::equal(word, b','));
                if next >= end {
                    break;
                }
                if block.byte(next) == b',' {
                    self.state = KEY_START;
                    next += 1;
                } else {
                    if block.is_line_end(next, end) {
                        self.state = LINE_START;
                        next += 2;
                    }
                    break;
                }
            }
            next = self.forgotten(next);
            if next >= end {
                break;
            }
        }
        self.count(next - at);
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
            len = self.forgotten(len + words::count(before));
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
        let colons = words::equal(word, b':');
        let before = words::before(colons);
        let letters = words::letters(word);
        if !words::all_marked(plain_bytes(word, letters), before) {
            return None;
        }
        hash.add(words::to_lower_case(word, letters) & before);
        if colons != 0 {
            len += words::count(before);
            return (len != 0).then(|| LineName { hash: hash.finish(len), len });
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
