//! The header names and bytes that decide on framing.

/// Bytes of a name that are kept to recognise it; the longest one that matters has 17.
pub const KEPT: usize = 24;

/// Is the name (in lower case) of so many bytes `upgrade`?
#[inline(always)]
pub fn is_upgrade(name: &[u8; KEPT], len: u16) -> bool {
    len == 7 && word(name, 0) & 0x00ff_ffff_ffff_ffff == literal(b"upgrade\0")
}

#[inline(always)]
pub fn is_content_length(name: &[u8; KEPT], len: u16) -> bool {
    len == 14
        && word(name, 0) == literal(b"content-")
        && word(name, 8) & 0x0000_ffff_ffff_ffff == literal(b"length\0\0")
}

#[inline(always)]
pub fn is_transfer_encoding(name: &[u8; KEPT], len: u16) -> bool {
    len == 17
        && word(name, 0) == literal(b"transfer")
        && word(name, 8) == literal(b"-encodin")
        && name[16] == b'g'
}

/// The method, as it is.
#[inline(always)]
pub fn is_head(name: &[u8; KEPT], len: u16) -> bool {
    len == 4 && word(name, 0) & 0xffff_ffff == literal(b"HEAD\0\0\0\0")
}

/// The method, as it is.
#[inline(always)]
pub fn is_connect(name: &[u8; KEPT], len: u16) -> bool {
    len == 7 && word(name, 0) & 0x00ff_ffff_ffff_ffff == literal(b"CONNECT\0")
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

/// `at` is constant and at most 16.
#[inline(always)]
fn word(name: &[u8; KEPT], at: usize) -> u64 {
    u64::from_le_bytes([
        name[at],
        name[at + 1],
        name[at + 2],
        name[at + 3],
        name[at + 4],
        name[at + 5],
        name[at + 6],
        name[at + 7],
    ])
}

const fn literal(text: &[u8; 8]) -> u64 {
    u64::from_le_bytes(*text)
}
