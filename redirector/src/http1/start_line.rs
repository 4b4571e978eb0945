//! Request line and status line, judged byte by byte, so that what cannot be HTTP/1.x is known at its first
//! impossible byte and not only when a whole head has come in (RFC 9112 §3 and §4).

use super::raw::RawReason;

/// Longest method that is taken for one; the longest registered ones have 17 bytes.
const MAX_METHOD: usize = 32;
/// Empty lines tolerated before a request line (RFC 9112 §2.2).
const MAX_EMPTY_LINES: usize = 4;

/// A start line as it comes in.
pub(super) trait StartLine: Default {
    /// Judges the next byte. `Ok(true)`: it was the last one of the line.
    fn push(&mut self, byte: u8) -> Result<bool, RawReason>;
}

/// `method SP request-target SP HTTP-version CRLF`, after a few empty lines.
#[derive(Debug)]
pub(super) enum RequestLine {
    Start { empty_lines: usize },
    EmptyLine { empty_lines: usize },
    Method { len: usize },
    TargetStart,
    Target,
    Version { matched: usize },
    LineFeed,
}

/// `HTTP-version SP 3DIGIT [SP reason-phrase] CRLF`. Many servers leave out the SP of an empty reason.
#[derive(Debug)]
pub(super) enum StatusLine {
    Version { matched: usize },
    VersionEnd,
    Code { digits: usize },
    Reason,
    LineFeed,
}

impl Default for RequestLine {
    fn default() -> Self {
        Self::Start { empty_lines: 0 }
    }
}

impl Default for StatusLine {
    fn default() -> Self {
        Self::Version { matched: 0 }
    }
}

impl StartLine for RequestLine {
    fn push(&mut self, byte: u8) -> Result<bool, RawReason> {
        *self = match (&*self, byte) {
            (Self::LineFeed, b'\n') => return Ok(true),
            (&Self::Start { empty_lines }, b'\r') if empty_lines < MAX_EMPTY_LINES => {
                Self::EmptyLine { empty_lines: empty_lines + 1 }
            }
            (&Self::EmptyLine { empty_lines }, b'\n') => Self::Start { empty_lines },
            (Self::Start { .. }, byte) if is_token_byte(byte) => Self::Method { len: 1 },
            (Self::Start { .. }, 0x16) => return Err(RawReason::Tls),
            (&Self::Method { len }, byte) if is_token_byte(byte) && len < MAX_METHOD => {
                Self::Method { len: len + 1 }
            }
            (Self::Method { .. }, b' ') => Self::TargetStart,
            (Self::TargetStart | Self::Target, 0x21..=0x7e | 0x80..) => Self::Target,
            (Self::Target, b' ') => Self::Version { matched: 0 },
            (&Self::Version { matched: VERSION_LEN }, b'\r') => Self::LineFeed,
            (&Self::Version { matched }, byte) if is_version_byte(matched, byte) => {
                Self::Version { matched: matched + 1 }
            }
            (Self::Version { matched: VERSION_MAJOR }, b'2') => return Err(RawReason::Http2),
            _ => return Err(RawReason::NotHttp1),
        };
        Ok(false)
    }
}

impl StartLine for StatusLine {
    fn push(&mut self, byte: u8) -> Result<bool, RawReason> {
        *self = match (&*self, byte) {
            (Self::LineFeed, b'\n') => return Ok(true),
            (&Self::Version { matched }, byte) if is_version_byte(matched, byte) => match matched + 1 {
                VERSION_LEN => Self::VersionEnd,
                matched => Self::Version { matched },
            },
            (Self::VersionEnd, b' ') => Self::Code { digits: 0 },
            // There is no status below 100 (RFC 9110 §15).
            (Self::Code { digits: 0 }, b'1'..=b'9') => Self::Code { digits: 1 },
            (&Self::Code { digits: digits @ 1..=2 }, b'0'..=b'9') => Self::Code { digits: digits + 1 },
            (Self::Code { digits: 3 }, b' ') => Self::Reason,
            (Self::Reason, b'\t' | 0x20..=0x7e | 0x80..) => Self::Reason,
            (Self::Code { digits: 3 } | Self::Reason, b'\r') => Self::LineFeed,
            _ => return Err(RawReason::NotHttp1),
        };
        Ok(false)
    }
}

const VERSION_LEN: usize = 8;
/// Offset of the major version in `HTTP/1.1`.
const VERSION_MAJOR: usize = 5;

fn is_version_byte(offset: usize, byte: u8) -> bool {
    match offset {
        7 => matches!(byte, b'0' | b'1'),
        _ => b"HTTP/1.".get(offset) == Some(&byte),
    }
}

/// `tchar` of RFC 9110 §5.6.2.
pub(crate) fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
