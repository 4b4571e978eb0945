//! Lines that need no look at what they say, many of them in one go: most of most heads. They go before the ways of `fast`, which see
//! the same in them; whatever is odd is left to those.
//!
//! What such a loop costs is mostly what it holds: it is to be small, with all that changes in registers.

use super::message::{HAS_LENGTH, MAX_HEADERS, Message};
use super::names;
use super::{Block, MemberStarts, words};

/// Turns of a loop: each reads 16 bytes, or ends a line or a member. Enough for a block without any. (What is behind the end may be
/// read, and ends nothing.)
const TURNS: u32 = 66;
/// Of longer lists the members are read one by one.
const LIST_TURNS: u32 = 24;
const _: () = assert!(TURNS as usize * 16 > super::BLOCK);

impl Message {
    /// Goes past whole lines up to one that `is_judged`, by its first eight bytes and where they are, or that is no such line: the end of
    /// the head, too. [`LINE_START`](super::message::LINE_START) must be the state.
    #[inline(always)]
    pub fn skip_lines(
        &mut self,
        block: &Block,
        at: u32,
        end: u32,
        is_judged: impl Fn(u64, u32) -> bool,
    ) -> u32 {
        // What is no text goes on with the line before, or ends the head.
        let is_left = |at: u32| {
            let word = block.word(at);
            word as u8 <= b' ' || is_judged(word, at)
        };
        if is_left(at) || u32::from(self.lines) + TURNS > u32::from(MAX_HEADERS) {
            return at;
        }
        let (mut line, mut next, mut lines) = (at, at, 0);
        for _ in 0..TURNS {
            let Some(stop) = block.find_in_16(next, words::not_line) else {
                next = self.forgotten(next + 16);
                continue;
            };
            if !block.is_line_end(stop, end) {
                break;
            }
            line = stop + 2;
            lines += 1;
            if is_left(line) {
                break;
            }
            next = self.forgotten(line);
        }
        let line = self.forgotten(line);
        self.lines += lines;
        self.count(line - at);
        line
    }

    /// Reads a whole line that is `Content-Length: ` and at most seven digits. To `at` if it is another.
    #[inline(always)]
    pub fn read_length_line(&mut self, block: &Block, at: u32, end: u32) -> u32 {
        const NAME: u32 = 16;
        let number = block.word(at + NAME);
        let stops = words::not_digit(number);
        let digits = words::first(stops);
        let next = at + NAME + digits;
        let is_plain =
            names::is_plain_length(block.word(at), block.word(at + 8)) && stops != 0 && digits != 0;
        if !is_plain
            || !block.is_line_end(next, end)
            || self.flags & HAS_LENGTH != 0
            || self.lines >= MAX_HEADERS
        {
            return at;
        }
        self.flags |= HAS_LENGTH;
        self.missing = words::number(number, digits);
        self.lines += 1;
        self.count(next + 2 - at);
        next + 2
    }

    /// Goes past a whole list none of whose members begins in one of the ways that are `judged`. To `at` if it is another line.
    #[inline(always)]
    pub fn skip_list(&mut self, block: &Block, at: u32, end: u32, judged: MemberStarts) -> u32 {
        let Some(name) = names::list_name(block.word(at), block.word(at + 8)) else { return at };
        let is_left = |at: u32| {
            let word = block.word(at);
            word as u8 <= b' ' || judged.has(word)
        };
        let mut next = block.after_blank(at + name);
        if is_left(next) || self.lines >= MAX_HEADERS {
            return at;
        }
        for _ in 0..LIST_TURNS {
            let stops = |word| words::control(word) | words::equal(word, b',');
            let Some(stop) = block.find_in_16(next, stops) else {
                next = self.forgotten(next + 16);
                continue;
            };
            if block.byte(stop) != b',' {
                if !block.is_line_end(stop, end) {
                    break;
                }
                self.lines += 1;
                self.count(stop + 2 - at);
                return stop + 2;
            }
            let member = block.after_blank(stop + 1);
            if is_left(member) {
                break;
            }
            next = self.forgotten(member);
        }
        at
    }
}
