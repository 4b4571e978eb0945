//! Names of headers and keys of members: how they are told apart.

/// Bytes of a name that are kept.
const KEPT: u32 = 32;

/// The odd number next to 2^64 divided by the golden ratio, and the same with 32 bits: spreads what is multiplied.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
const SPREAD_LENGTH: u32 = 0x9e37_79b1;

/// What a name or key is looked for by: a hash of its first 32 bytes and its length. Header names must be in lower case.
pub const fn name_hash(name: &[u8]) -> u32 {
    let mut kept = Name { words: [0; 4] };
    let mut at = 0;
    while at < name.len() {
        kept.push(at as u32, name[at]);
        at += 1;
    }
    kept.hash(name.len() as u32)
}

/// A name that is read a byte at a time.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Name {
    words: [u64; 4],
}

impl Name {
    #[inline(always)]
    pub const fn push(&mut self, at: u32, byte: u8) {
        if at < KEPT {
            self.words[(at >> 3) as usize & 3] |= (byte as u64) << ((at & 7) * 8);
        }
    }

    #[inline(always)]
    pub const fn hash(&self, len: u32) -> u32 {
        let mut hash = NameHash::new();
        let mut index = 0;
        while index < 4 && index * 8 <= len {
            hash.add(self.words[index as usize]);
            index += 1;
        }
        hash.finish(len)
    }

    /// Is the name of so many bytes this one, of at most 24 bytes?
    #[inline(always)]
    pub fn is(&self, len: u32, name: &Known) -> bool {
        len == name.len
            && self.words[0] == name.words[0]
            && self.words[1] == name.words[1]
            && self.words[2] == name.words[2]
    }
}

/// The same of a name that is read by words: each of its first four, and the empty or partial one at its end.
#[derive(Clone, Copy)]
pub struct NameHash(u64);

impl NameHash {
    #[inline(always)]
    pub const fn new() -> Self {
        Self(0)
    }

    #[inline(always)]
    pub const fn add(&mut self, word: u64) {
        let hash = (self.0 ^ word).wrapping_mul(SPREAD);
        self.0 = hash ^ (hash >> 32);
    }

    #[inline(always)]
    pub const fn finish(self, len: u32) -> u32 {
        (self.0 >> 32) as u32 ^ len.wrapping_mul(SPREAD_LENGTH)
    }
}

/// A name or method that decides on framing.
pub struct Known {
    pub words: [u64; 3],
    pub len: u32,
}

impl Known {
    const fn new(text: &str) -> Self {
        let mut name = Name { words: [0; 4] };
        let mut at = 0;
        while at < text.len() {
            name.push(at as u32, text.as_bytes()[at]);
            at += 1;
        }
        Self { words: [name.words[0], name.words[1], name.words[2]], len: text.len() as u32 }
    }
}

pub const CONTENT_LENGTH: Known = Known::new("content-length");
pub const TRANSFER_ENCODING: Known = Known::new("transfer-encoding");
pub const UPGRADE: Known = Known::new("upgrade");
pub const CONNECT: Known = Known::new("CONNECT");
pub const HEAD: Known = Known::new("HEAD");

/// The bits of the lengths that these three headers have.
const LENGTHS: u32 = 1 << CONTENT_LENGTH.len | 1 << TRANSFER_ENCODING.len | 1 << UPGRADE.len;

/// A header's name of so many bytes, less than 32, is as long as one that decides on framing.
#[inline(always)]
pub fn may_frame(len: u32) -> bool {
    LENGTHS >> (len & 31) & 1 != 0
}

/// A line that begins with these 16 bytes may say how long a message is.
#[inline(always)]
pub fn is_length(first: u64, second: u64) -> bool {
    const LOWER: u64 = 0x2020_2020_2020_2020;
    const LENGTH: u64 = 0xffff_ffff_ffff;
    let first = first | LOWER;
    first == TRANSFER_ENCODING.words[0]
        || (first == CONTENT_LENGTH.words[0] && ((second | LOWER) ^ CONTENT_LENGTH.words[1]) & LENGTH == 0)
}

/// How long the name of a list, whose members may be looked for, and its colon are, of a line that begins with these 16 bytes.
#[inline(always)]
pub fn list_name(first: u64, second: u64) -> Option<u32> {
    const LOWER: u64 = 0x2020_2020_2020_2020;
    const COLON: u64 = (b':' as u64) << 56;
    let lower = first | LOWER;
    if lower == u64::from_le_bytes(*b"baggage:") && first >> 56 << 56 == COLON {
        Some(8)
    } else if lower == u64::from_le_bytes(*b"tracesta") && (second | 0x2020) & 0xff_ffff == 0x3a_6574 {
        Some(11)
    } else {
        None
    }
}

/// These 16 bytes are the name, a colon and a blank.
#[inline(always)]
pub fn is_plain_length(first: u64, second: u64) -> bool {
    const LOWER: u64 = 0x2020_2020_2020_2020;
    const COLON: u64 = 0xffff << 48;
    let rest = CONTENT_LENGTH.words[1] | u64::from_le_bytes(*b"\0\0\0\0\0\0: ");
    let dash = (first >> 56) as u8 == b'-';
    dash && first | LOWER == CONTENT_LENGTH.words[0]
        && (second | LOWER) == rest
        && second & COLON == rest & COLON
}

/// `tchar` of RFC 9110 §5.6.2.
#[inline(always)]
pub fn is_token_byte(byte: u8) -> bool {
    const LOW: u64 = token_bits(0);
    const HIGH: u64 = token_bits(64);
    let bits = if byte & 0x40 == 0 { LOW } else { HIGH };
    byte < 0x80 && (bits >> (byte & 0x3f)) & 1 == 1
}

/// A byte of a field value (RFC 9110 §5.5).
#[inline(always)]
pub fn is_text_byte(byte: u8) -> bool {
    (byte >= 0x20 && byte != 0x7f) || byte == b'\t'
}

#[inline(always)]
pub fn to_lower_case(byte: u8) -> u8 {
    if byte.wrapping_sub(b'A') < 26 { byte | 0x20 } else { byte }
}

const fn token_bits(from: u8) -> u64 {
    let mut bits = 0;
    let mut bit = 0;
    while bit < 64 {
        let byte = from + bit;
        let token = byte.is_ascii_alphanumeric()
            || matches!(
                byte,
                b'!' | b'#'
                    | b'$'
                    | b'%'
                    | b'&'
                    | b'\''
                    | b'*'
                    | b'+'
                    | b'-'
                    | b'.'
                    | b'^'
                    | b'_'
                    | b'`'
                    | b'|'
                    | b'~'
            );
        if token {
            bits |= 1 << bit;
        }
        bit += 1;
    }
    bits
}
