//! Questions about eight bytes at once. The answer is a mark in the high bit of each byte that is meant.

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGH_BITS: u64 = 0x8080_8080_8080_8080;
const LOW_BITS: u64 = !HIGH_BITS;
/// The bit that tells lower case from upper case.
const CASE: u64 = ONES * 0x20;

/// The bytes that are `byte`. Only the lowest mark is certain.
#[inline(always)]
pub fn equal(word: u64, byte: u8) -> u64 {
    let difference = word ^ (ONES * byte as u64);
    difference.wrapping_sub(ONES) & !difference & HIGH_BITS
}

/// The bytes that no field value has but for HTAB: controls. Only the lowest mark is certain to be one or a `~`.
#[inline(always)]
pub fn control(word: u64) -> u64 {
    (word.wrapping_sub(CASE) | word.wrapping_add(ONES)) & !word & HIGH_BITS
}

/// As [`control`], and quicker: without DEL, and what is not ASCII may have a mark, too.
#[inline(always)]
pub fn not_line(word: u64) -> u64 {
    word.wrapping_sub(CASE) & HIGH_BITS
}

/// The bytes that a request target can't have: controls, blanks, and what is not ASCII. As [`control`].
#[inline(always)]
pub fn not_visible(word: u64) -> u64 {
    (word.wrapping_sub(ONES * 0x21) | word.wrapping_add(ONES) | word) & HIGH_BITS
}

/// The bytes that end the key of a list's member, or that no key has. As [`control`].
#[inline(always)]
pub fn ends_key(word: u64) -> u64 {
    let not_text = (word.wrapping_sub(ONES * 0x21) | word.wrapping_add(ONES)) & !word & HIGH_BITS;
    not_text | equal(word, b'=') | equal(word, b',')
}

/// The bytes that are no ASCII letter, digit or `-`, exactly: a name has few others.
#[inline(always)]
pub fn not_plain(word: u64) -> u64 {
    let low = word & LOW_BITS;
    let letters = between(low | CASE, b'a', b'z');
    let digits = between(low, b'0', b'9');
    let no_dashes = (low ^ (ONES * b'-' as u64)) + LOW_BITS;
    ((!(letters | digits) & no_dashes) | word) & HIGH_BITS
}

/// Of bytes below 0x80; other bits than the high ones mean nothing.
#[inline(always)]
fn between(word: u64, first: u8, last: u8) -> u64 {
    (word + ONES * (0x80 - first as u64)) ^ (word + ONES * (0x7f - last as u64))
}

/// The bytes that are no ASCII digit, exactly.
#[inline(always)]
pub fn not_digit(word: u64) -> u64 {
    (!between(word & LOW_BITS, b'0', b'9') | word) & HIGH_BITS
}

/// The number that the first `digits` bytes are, 1 to 7 digits, the first one lowest.
#[inline(always)]
pub fn number(word: u64, digits: u32) -> u32 {
    // Zeros before the first one, and of each digit its value. Then pairs become one number, and pairs of these.
    let values = (word << (64 - digits * 8)) & (ONES * 0x0f);
    let twos = (values * 10 + (values >> 8)) & 0x00ff_00ff_00ff_00ff;
    let fours = (twos * 100 + (twos >> 16)) & 0x0000_ffff_0000_ffff;
    (fours * 10_000 + (fours >> 32)) as u32
}

/// Turns plain bytes, see [`not_plain`], to lower case.
#[inline(always)]
pub fn to_lower_case(word: u64) -> u64 {
    word | CASE
}

/// All bits of the bytes before the first mark; of all bytes if there is none.
#[inline(always)]
pub fn before(marks: u64) -> u64 {
    ((marks & marks.wrapping_neg()) >> 7).wrapping_sub(1)
}

/// The place of the first mark, which there must be.
#[inline(always)]
pub fn first(marks: u64) -> u32 {
    /// Multiplied by 256 to the power of the place, it has the place in its highest byte.
    const PLACES: u64 = 0x0001_0203_0405_0607;
    (((marks & marks.wrapping_neg()) >> 7).wrapping_mul(PLACES) >> 56) as u32
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;

    /// The byte in each place, among others that may or may not be meant.
    fn each_place(byte: u8) -> impl Iterator<Item = (u32, u64)> {
        (0..8).flat_map(move |place| {
            [b'x', 0, 0x7f, 0x80, 0xff, b'-', b':'].map(|other| {
                let mut bytes = [other; 8];
                bytes[place as usize] = byte;
                (place, u64::from_le_bytes(bytes))
            })
        })
    }

    #[test]
    fn exact_marks_are_right_in_every_place() {
        for byte in 0..=255_u8 {
            for (place, word) in each_place(byte) {
                let is_plain = byte.is_ascii_alphanumeric() || byte == b'-';
                assert_eq!(not_plain(word) >> (place * 8) & 0x80 == 0, is_plain, "{byte} {word:x}");
                if is_plain {
                    let lower = to_lower_case(word) >> (place * 8);
                    assert_eq!(lower as u8, byte.to_ascii_lowercase());
                }
            }
        }
    }

    #[test]
    fn numbers_are_what_their_digits_say() {
        for number in [0, 7, 10, 42, 599, 1000, 65_535, 123_456, 9_999_999_u32] {
            for behind in ["\r\n345678", "        ", "99999999"] {
                let mut text = std::format!("{number}{behind}");
                let digits = text.len() - behind.len();
                text.truncate(8);
                let word = u64::from_le_bytes(text.as_bytes().try_into().unwrap());
                assert_eq!(super::number(word, digits as u32), number, "{text}");
                if behind != "99999999" {
                    assert_eq!(first(not_digit(word)) as usize, digits, "{text}");
                }
            }
        }
        for byte in 0..=255_u8 {
            for (place, word) in each_place(byte) {
                assert_eq!(
                    not_digit(word) >> (place * 8) & 0x80 == 0,
                    byte.is_ascii_digit(),
                    "{byte} {word:x}"
                );
            }
        }
    }

    #[test]
    fn no_byte_that_is_meant_is_before_the_first_mark() {
        for byte in 0..=255_u8 {
            for place in 0..8 {
                for before_it in [b'x', 0x80, 0xff] {
                    let mut bytes = [before_it; 8];
                    bytes[place] = byte;
                    let word = u64::from_le_bytes(bytes);
                    let found = |marks: u64| if marks == 0 { 8 } else { first(marks) as usize };
                    if byte < 0x20 || byte == 0x7f {
                        assert_eq!(found(control(word)), place);
                    }
                    if byte < 0x20 {
                        assert!(before_it != b'x' || found(not_line(word)) == place);
                    }
                    if byte == b':' {
                        assert_eq!(found(equal(word, b':')), place);
                    }
                    if byte <= 0x20 || matches!(byte, 0x7f | b'=' | b',') {
                        assert_eq!(found(ends_key(word)), place);
                    }
                    if before_it == b'x' && (byte <= 0x20 || byte >= 0x7f) {
                        assert_eq!(found(not_visible(word)), place);
                    }
                }
            }
        }
    }
}
