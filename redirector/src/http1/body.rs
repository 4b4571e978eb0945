//! Bodies whose message says where they end.

use super::chunked::Chunked;
use super::fields::DeclaredLength;
use super::raw::RawReason;

/// What the first bytes of a buffer are to the body that is being read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum BodyStep {
    /// Nothing can be said yet.
    NeedMore,
    /// This many bytes, never 0, belong to the body.
    Bytes(usize),
    /// The body ended before the first byte.
    End,
    /// The first byte starts something that is not understood.
    Raw(RawReason),
}

/// The rest of a body.
#[derive(Debug)]
pub(super) enum Body {
    /// So many bytes are missing.
    Exact(u64),
    /// Chunks and trailers are missing.
    Chunked(Chunked),
}

impl From<DeclaredLength> for Body {
    fn from(length: DeclaredLength) -> Self {
        match length {
            DeclaredLength::Exact(length) => Self::Exact(length),
            DeclaredLength::Chunked => Self::Chunked(Chunked::default()),
        }
    }
}

impl Body {
    /// The caller consumes what [`BodyStep::Bytes`] says before the next call.
    pub(super) fn next(&mut self, buf: &[u8]) -> BodyStep {
        match self {
            Self::Exact(0) => BodyStep::End,
            Self::Exact(_) if buf.is_empty() => BodyStep::NeedMore,
            Self::Exact(missing) => BodyStep::Bytes(take(missing, buf)),
            Self::Chunked(chunked) => chunked.next(buf),
        }
    }
}

/// Takes as much of `missing` off `buf` as is there, and says how much that is.
pub(super) fn take(missing: &mut u64, buf: &[u8]) -> usize {
    let taken = usize::try_from(*missing).map_or(buf.len(), |missing| missing.min(buf.len()));
    *missing -= taken as u64;
    taken
}
