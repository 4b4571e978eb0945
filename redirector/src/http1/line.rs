//! Strict line ends: CR LF, nothing else.

use memchr::memchr2;

/// What a search for the end of a line found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum LineEnd {
    /// The line ends; this is the offset just behind its CR LF.
    At(usize),
    /// No end yet; a later search of the longer buffer may start at this offset.
    Open(usize),
    /// A CR or LF that stands alone.
    Bare,
}

/// Looks for the first line end in `buf` at or after `from`.
pub(super) fn line_end(buf: &[u8], from: usize) -> LineEnd {
    let Some(at) = memchr2(b'\r', b'\n', &buf[from..]).map(|offset| from + offset) else {
        return LineEnd::Open(buf.len());
    };
    match &buf[at..] {
        [b'\r', b'\n', ..] => LineEnd::At(at + 2),
        [b'\r'] => LineEnd::Open(at),
        _ => LineEnd::Bare,
    }
}
