//! Comma-separated lists that span several header lines (RFC 9110 §5.3 and §5.6.1).

use crate::http1::{RequestView, is_token_byte};

/// The members of the list in the field `name`, all its lines combined, without the whitespace around each.
/// A member may be empty. Not for fields with quoted strings: neither baggage nor tracestate has them.
pub(super) fn list_members<'a, 'n>(
    request: &RequestView<'a>,
    name: &'n str,
) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
    request.header_lines(name).flat_map(|line| line.split(|&byte| byte == b',')).map(trim_ows)
}

/// `bytes` without the optional whitespace (space and tab, RFC 9110 §5.6.3) at both ends.
pub(super) fn trim_ows(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

/// Both sides of the first `=`.
pub(super) fn split_member(member: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = memchr::memchr(b'=', member)?;
    Some((&member[..at], &member[at + 1..]))
}

/// `token` of RFC 9110 §5.6.2.
pub(super) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|&byte| is_token_byte(byte))
}
