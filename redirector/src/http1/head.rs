//! Finding the end of a head in bytes that trickle in, each looked at once.

use std::mem::MaybeUninit;

use super::line::{LineEnd, line_end};
use super::raw::RawReason;
use super::start_line::StartLine;
use super::{MAX_HEAD, MAX_HEADERS};

/// Room for the parsed header lines of one head, on the stack.
pub(super) type HeaderSlots<'buf> = [MaybeUninit<httparse::Header<'buf>>; MAX_HEADERS];

/// Uninitialised room for header lines.
pub(super) const fn header_slots<'buf>() -> HeaderSlots<'buf> {
    [const { MaybeUninit::uninit() }; MAX_HEADERS]
}

/// What is known of the head at the start of a buffer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum HeadScan {
    /// Its length in bytes. Line ends and start line are good, the header lines not yet judged.
    Complete(usize),
    /// More bytes are needed; whether a whole, valid start line has been seen.
    Incomplete { start_line_seen: bool },
}

/// Remembers how far a head has been scanned, so that 64 KiB in single bytes cost 64 Ki steps.
#[derive(Debug, Default)]
pub(super) struct HeadScanner<L> {
    start_line: L,
    /// Offset of the header line that is being scanned; `None` while the start line is.
    header_line: Option<usize>,
    scanned: usize,
}

impl<L: StartLine> HeadScanner<L> {
    /// `buf` starts with the first byte of the head and only grows from call to call.
    pub(super) fn scan(&mut self, buf: &[u8]) -> Result<HeadScan, RawReason> {
        let window = &buf[..buf.len().min(MAX_HEAD)];
        while self.header_line.is_none() {
            let Some(&byte) = window.get(self.scanned) else { break };
            self.scanned += 1;
            if self.start_line.push(byte)? {
                self.header_line = Some(self.scanned);
            }
        }
        while let Some(line) = self.header_line {
            match line_end(window, self.scanned) {
                LineEnd::At(end) if end - line == 2 => return Ok(HeadScan::Complete(end)),
                LineEnd::At(end) => {
                    self.header_line = Some(end);
                    self.scanned = end;
                }
                LineEnd::Open(scanned) => {
                    self.scanned = scanned;
                    break;
                }
                LineEnd::Bare => return Err(RawReason::BareLineEnd),
            }
        }
        if buf.len() >= MAX_HEAD {
            return Err(RawReason::HeadTooLong);
        }
        Ok(HeadScan::Incomplete { start_line_seen: self.header_line.is_some() })
    }
}

/// The reason for a head that the parser refuses although its lines and its start line are good.
pub(super) fn refusal(error: httparse::Error) -> RawReason {
    match error {
        httparse::Error::TooManyHeaders => RawReason::TooManyHeaders,
        httparse::Error::HeaderName | httparse::Error::HeaderValue => RawReason::MalformedHeader,
        _ => RawReason::NotHttp1,
    }
}
