//! A part of a payload, to be read eight bytes at a time where that is enough.

use super::words;
use crate::word_at;

/// Bytes of a block.
pub const BLOCK: usize = 1024;
/// Bytes that are searched at a time. Longer values take a turn more; the verifier has less to look at.
pub const FAR: u32 = 192;
/// So that two words can begin at any of them.
const ROOM: usize = BLOCK + 16;

/// Offsets beyond the end are taken modulo its size, so that nothing has to be checked.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug)]
pub struct Block {
    pub bytes: [u8; ROOM],
}

impl Block {
    /// All bytes alike.
    pub const fn filled(byte: u8) -> Self {
        Self { bytes: [byte; ROOM] }
    }

    #[inline(always)]
    pub fn byte(&self, at: u32) -> u8 {
        self.bytes[at as usize & (BLOCK - 1)]
    }

    /// The eight bytes from `at` on, the first one lowest.
    #[inline(always)]
    pub fn word(&self, at: u32) -> u64 {
        // SAFETY: at most `BLOCK - 1`, which has eight bytes to the end.
        u64::from_le(unsafe { word_at(self.bytes.as_ptr().add(at as usize & (BLOCK - 1))) })
    }

    /// CR LF is at `at`, and ends by `end`.
    #[inline(always)]
    pub fn is_line_end(&self, at: u32, end: u32) -> bool {
        at + 2 <= end && self.word(at) & 0xffff == 0x0a0d
    }

    /// The first of the 16 bytes from `at` on that has a mark.
    #[inline(always)]
    pub fn find_in_16(&self, at: u32, marks: impl Fn(u64) -> u64) -> Option<u32> {
        let mut at = at;
        let mut found = marks(self.word(at));
        if found == 0 {
            at += 8;
            found = marks(self.word(at));
            if found == 0 {
                return None;
            }
        }
        Some(at + words::first(found))
    }

    /// Past the blank, if one is there.
    #[inline(always)]
    pub fn after_blank(&self, at: u32) -> u32 {
        at + (self.byte(at) == b' ') as u32
    }

    /// The first byte in `at..end` that has a mark; else `end`, or [`FAR`] bytes from `at`.
    #[inline(always)]
    pub fn find(&self, at: u32, end: u32, marks: impl Fn(u64) -> u64) -> u32 {
        let mut at = at;
        for _ in 0..FAR / 16 {
            let pair = at as usize & (BLOCK - 1);
            for within in [0, 8] {
                // SAFETY: at most `BLOCK + 7`, which has eight bytes to the end.
                let word = u64::from_le(unsafe { word_at(self.bytes.as_ptr().add(pair + within)) });
                let marks = marks(word);
                if marks != 0 {
                    at += within as u32 + words::first(marks);
                    return if at < end { at } else { end };
                }
            }
            at += 16;
            if at >= end {
                break;
            }
        }
        if at < end { at } else { end }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_byte_of_its_kind_is_found_wherever_it_is() {
        for stop in [b'\r', b'\t', 0, 0x1f, 0x7f] {
            for at in 0..20 {
                for found in at..40 {
                    for end in at + 1..44 {
                        let mut block = Block::filled(b'x');
                        // A stop before the range, one behind it, and what is no stop.
                        block.bytes[..at as usize].fill(b'\n');
                        block.bytes[found as usize] = stop;
                        block.bytes[found as usize + 1] = b'\n';
                        block.bytes[found as usize + 2] = 0xff;
                        let seen = block.find(at, end, words::control);
                        assert_eq!(seen, found.min(end), "{stop} {at} {found} {end}");
                    }
                }
            }
        }
        let block = Block::filled(0x80);
        let end = BLOCK as u32;
        assert_eq!(block.find(3, end, words::control), 3 + FAR);
        assert_eq!(block.find(end - 9, end, words::control), end);
        assert_eq!(block.find(3, end, words::not_visible), 3);
        assert_eq!(block.find(end - 1, end, words::control), end);
    }

    #[test]
    fn a_word_begins_anywhere() {
        let mut block = Block::filled(b'x');
        block.bytes[..17].copy_from_slice(b"abcdefghijklmnopq");
        for at in 0..9 {
            assert_eq!(block.word(at).to_le_bytes(), block.bytes[at as usize..at as usize + 8], "{at}");
        }
        block.bytes[BLOCK - 1] = b'z';
        assert_eq!(block.word(BLOCK as u32 - 1).to_le_bytes(), *b"zxxxxxxx");
    }
}
