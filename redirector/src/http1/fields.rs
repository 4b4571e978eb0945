//! The header fields that decide where a message ends and what becomes of its connection.

use httparse::Header;

use super::raw::RawReason;

/// The fields of one head that matter to framing, read in one pass over its lines.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct FramingFields {
    /// The length that the message declares for its body, if any.
    pub(super) length: Option<DeclaredLength>,
    /// Has an Upgrade field.
    pub(super) upgrade: bool,
    /// Has `Expect: 100-continue`.
    pub(super) expect_continue: bool,
    /// The sender closes, or wants closed, the connection after this message (RFC 9112 §9.3).
    pub(super) close: bool,
}

/// How a message says where its body ends (RFC 9112 §6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DeclaredLength {
    /// Content-Length, in bytes.
    Exact(u64),
    /// Transfer-Encoding: chunked.
    Chunked,
}

impl FramingFields {
    /// `minor` is the 0 or 1 of HTTP/1.x.
    pub(super) fn read(headers: &[Header<'_>], minor: u8) -> Result<Self, RawReason> {
        let mut fields = Self::default();
        let mut content_length = None;
        let mut chunked = false;
        let mut keep_alive = false;
        for Header { name, value } in headers {
            // Lengths tell the interesting names from nearly all others without comparing them.
            match name.len() {
                6 if name.eq_ignore_ascii_case("expect") => {
                    fields.expect_continue |= value.eq_ignore_ascii_case(b"100-continue");
                }
                7 if name.eq_ignore_ascii_case("upgrade") => fields.upgrade = true,
                10 if name.eq_ignore_ascii_case("connection") => {
                    fields.close |= has_option(value, b"close");
                    keep_alive |= has_option(value, b"keep-alive");
                }
                14 if name.eq_ignore_ascii_case("content-length") => {
                    let length = decimal(value).ok_or(RawReason::ContentLength)?;
                    if content_length.replace(length).is_some() {
                        return Err(RawReason::ContentLength);
                    }
                }
                17 if name.eq_ignore_ascii_case("transfer-encoding") => {
                    if chunked || minor == 0 || !value.eq_ignore_ascii_case(b"chunked") {
                        return Err(RawReason::TransferEncoding);
                    }
                    chunked = true;
                }
                _ => {}
            }
        }
        fields.close |= minor == 0 && !keep_alive;
        fields.length = match (content_length, chunked) {
            (Some(_), true) => return Err(RawReason::BothLengths),
            (Some(length), false) => Some(DeclaredLength::Exact(length)),
            (None, true) => Some(DeclaredLength::Chunked),
            (None, false) => None,
        };
        Ok(fields)
    }
}

/// `1*DIGIT` below 2^64; no sign, no list, no blank.
fn decimal(value: &[u8]) -> Option<u64> {
    if value.is_empty() {
        return None;
    }
    value.iter().try_fold(0u64, |number, &byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

/// Whether the comma-separated list has this member, in any case (RFC 9110 §7.6.1).
fn has_option(list: &[u8], option: &[u8]) -> bool {
    list.split(|&byte| byte == b',').any(|member| member.trim_ascii().eq_ignore_ascii_case(option))
}
