//! The chunked transfer coding, framed but not decoded (RFC 9112 §7.1).

use super::MAX_HEAD;
use super::body::{BodyStep, take};
use super::line::{LineEnd, line_end};
use super::raw::RawReason;
use super::start_line::is_token_byte;

/// Most hex digits of a chunk size: those of a `u64`.
const MAX_SIZE_DIGITS: usize = 16;
/// Most bytes of extensions on a chunk line, from the first `;` to its CR LF.
const MAX_EXTENSION: usize = 4 * 1024;

/// The rest of a chunked body. Keeps counters only.
#[derive(Debug, Default)]
pub(super) struct Chunked {
    expected: Expected,
    /// How far the line at the start of the buffer has been searched for its end.
    scanned: usize,
}

#[derive(Debug, Default)]
enum Expected {
    #[default]
    SizeLine,
    Data {
        missing: u64,
    },
    DataEnd,
    Trailer {
        /// Bytes of the trailer section before this line.
        before: usize,
    },
    Nothing,
}

/// What the first bytes of a buffer are to the coding. Only whole lines are judged, so that a bad one is reported
/// at its first byte, however the stream was cut.
enum Unit {
    Whole(usize),
    Partial,
    Bad(RawReason),
}

impl Chunked {
    pub(super) fn next(&mut self, buf: &[u8]) -> BodyStep {
        let mut consumed = 0;
        let stop = loop {
            let rest = &buf[consumed..];
            if matches!(self.expected, Expected::Nothing) {
                break BodyStep::End;
            }
            if rest.is_empty() {
                break BodyStep::NeedMore;
            }
            match self.unit(rest) {
                Unit::Whole(len) => {
                    consumed += len;
                    self.scanned = 0;
                }
                Unit::Partial => break BodyStep::NeedMore,
                Unit::Bad(reason) => break BodyStep::Raw(reason),
            }
        };
        // What stopped the loop stands at the start of the next call's buffer and is found again there.
        if consumed > 0 { BodyStep::Bytes(consumed) } else { stop }
    }

    /// `buf` is not empty.
    fn unit(&mut self, buf: &[u8]) -> Unit {
        match &mut self.expected {
            Expected::SizeLine => self.size_line(buf),
            Expected::Data { missing } => {
                let taken = take(missing, buf);
                if *missing == 0 {
                    self.expected = Expected::DataEnd;
                }
                Unit::Whole(taken)
            }
            Expected::DataEnd => match buf {
                [b'\r', b'\n', ..] => {
                    self.expected = Expected::SizeLine;
                    Unit::Whole(2)
                }
                [b'\r'] => Unit::Partial,
                _ => Unit::Bad(RawReason::MalformedChunk),
            },
            &mut Expected::Trailer { before } => self.trailer_line(buf, before),
            Expected::Nothing => Unit::Partial,
        }
    }

    /// `1*HEXDIG [";" extension] CRLF`; blanks around the size are not tolerated.
    fn size_line(&mut self, buf: &[u8]) -> Unit {
        let bad = Unit::Bad(RawReason::MalformedChunk);
        let digits = buf.iter().take(MAX_SIZE_DIGITS + 1).take_while(|byte| byte.is_ascii_hexdigit()).count();
        if digits > MAX_SIZE_DIGITS {
            return bad;
        }
        match buf.get(digits) {
            Some(b';' | b'\r') if digits > 0 => {}
            None => return Unit::Partial,
            Some(_) => return bad,
        }
        let longest = digits + MAX_EXTENSION + 2;
        let end = match line_end(&buf[..buf.len().min(longest)], self.scanned.max(digits)) {
            LineEnd::At(end) => end,
            LineEnd::Open(scanned) if buf.len() < longest => {
                self.scanned = scanned;
                return Unit::Partial;
            }
            LineEnd::Open(_) | LineEnd::Bare => return bad,
        };
        if !buf[digits..end - 2].iter().all(|&byte| is_text_byte(byte)) {
            return bad;
        }
        self.expected = match hexadecimal(&buf[..digits]) {
            0 => Expected::Trailer { before: 0 },
            size => Expected::Data { missing: size },
        };
        Unit::Whole(end)
    }

    fn trailer_line(&mut self, buf: &[u8], before: usize) -> Unit {
        let longest = MAX_HEAD - before;
        match line_end(&buf[..buf.len().min(longest)], self.scanned) {
            LineEnd::At(2) => {
                self.expected = Expected::Nothing;
                Unit::Whole(2)
            }
            LineEnd::At(end) if is_field_line(&buf[..end - 2]) => {
                self.expected = Expected::Trailer { before: before + end };
                Unit::Whole(end)
            }
            LineEnd::Open(scanned) if buf.len() < longest => {
                self.scanned = scanned;
                Unit::Partial
            }
            _ => Unit::Bad(RawReason::MalformedTrailer),
        }
    }
}

/// The value of at most 16 hex digits.
fn hexadecimal(digits: &[u8]) -> u64 {
    digits.iter().fold(0, |number, &byte| {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            _ => (byte | 0x20) - b'a' + 10,
        };
        number << 4 | u64::from(digit)
    })
}

/// `field-name ":" field-value` (RFC 9112 §5), without its line end.
fn is_field_line(line: &[u8]) -> bool {
    let name = line.iter().take_while(|&&byte| is_token_byte(byte)).count();
    name > 0 && line.get(name) == Some(&b':') && line[name..].iter().all(|&byte| is_text_byte(byte))
}

fn is_text_byte(byte: u8) -> bool {
    matches!(byte, b'\t' | 0x20..=0x7e | 0x80..)
}
