//! A part of a payload, to be read eight bytes at a time where that is enough.

/// Bytes of a block.
pub const BLOCK: usize = 1024;

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGH_BITS: u64 = 0x8080_8080_8080_8080;

/// Offsets beyond the end are taken modulo its size, so that nothing has to be checked.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug)]
pub struct Block {
    pub bytes: [u8; BLOCK],
}

impl Block {
    #[inline(always)]
    pub fn byte(&self, at: u32) -> u8 {
        self.bytes[at as usize & (BLOCK - 1)]
    }

    /// The eight bytes at eight times `index`, the first one lowest.
    #[inline(always)]
    pub fn word(&self, index: u32) -> u64 {
        let at = (index as usize * 8) & (BLOCK - 8);
        // SAFETY: at most `BLOCK - 8`, and aligned like the block.
        u64::from_le(unsafe { self.bytes.as_ptr().add(at).cast::<u64>().read() })
    }

    /// The eight bytes from `at` on, the first one lowest; there must be a word behind theirs.
    #[inline(always)]
    pub fn word_at(&self, at: u32) -> u64 {
        let shift = at % 8 * 8;
        let low = self.word(at / 8) >> shift;
        // In two steps, because a shift by all 64 bits is none.
        let high = self.word(at / 8 + 1) << 1 << (63 - shift);
        low | high
    }

    /// The first byte in `at..end` that is below `lowest` (at most 0x80), or 0x7f, or with `ascii` above it; else `end`.
    #[inline(always)]
    pub fn find(&self, at: u32, end: u32, lowest: u8, ascii: bool) -> u32 {
        let mut index = at / 8;
        // What is before `at` is made harmless.
        let before = (1_u64 << (at % 8 * 8)) - 1;
        let mut word = (self.word(index) & !before) | ((ONES * 0x61) & before);
        for _ in 0..BLOCK / 8 {
            let low = word.wrapping_sub(ONES * lowest as u64) & !word;
            let delete = (word ^ (ONES * 0x7f)).wrapping_sub(ONES) & !(word ^ (ONES * 0x7f));
            let high = if ascii { word } else { 0 };
            // The lowest mark is always right; borrows make wrong ones above it only.
            let marks = (low | delete | high) & HIGH_BITS;
            if marks != 0 {
                let found = index * 8 + lowest_byte(marks);
                return if found < end { found } else { end };
            }
            index += 1;
            if index * 8 >= end {
                break;
            }
            word = self.word(index);
        }
        end
    }
}

/// Which byte has the lowest of the marks, of which there is at least one, in the high bits of bytes.
#[inline(always)]
fn lowest_byte(marks: u64) -> u32 {
    // The bits below it, of which each whole byte has one in this product's top byte.
    let below = (marks & marks.wrapping_neg()).wrapping_sub(1);
    (((below >> 7) & ONES).wrapping_mul(ONES) >> 56) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_byte_of_its_kind_is_found_wherever_it_is() {
        let mut block = Block { bytes: [b'x'; BLOCK] };
        for stop in [b'\r', b'\t', 0, 0x1f, 0x7f] {
            for at in 0..20 {
                for found in at..40 {
                    for end in at + 1..44 {
                        block.bytes = [b'x'; BLOCK];
                        // A stop before the range, one behind it, and what is no stop.
                        block.bytes[..at as usize].fill(b'\n');
                        block.bytes[found as usize] = stop;
                        block.bytes[found as usize + 1] = b'\n';
                        block.bytes[found as usize + 2] = 0xff;
                        assert_eq!(
                            block.find(at, end, 0x20, false),
                            found.min(end),
                            "{stop} {at} {found} {end}"
                        );
                    }
                }
            }
        }
        block.bytes[..17].copy_from_slice(b"abcdefghijklmnopq");
        for at in 0..9 {
            let expected = &block.bytes[at as usize..at as usize + 8];
            assert_eq!(block.word_at(at).to_le_bytes(), expected, "{at}");
        }
        block.bytes = [0x80; BLOCK];
        assert_eq!(block.find(3, BLOCK as u32, 0x20, false), BLOCK as u32);
        assert_eq!(block.find(3, BLOCK as u32, 0x20, true), 3);
        assert_eq!(block.find(BLOCK as u32 - 1, BLOCK as u32, 0x20, false), BLOCK as u32);
    }
}
