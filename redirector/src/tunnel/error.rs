//! How tunnels and the streams in them end.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use h2::Reason;
use http::StatusCode;
use thiserror::Error;

/// Why a tunnel ended.
#[derive(Clone, Debug, Error)]
pub enum TunnelError {
    #[error(
        "nothing was heard from the other end of the tunnel for {silence:?}; it sleeps, hangs, or its network is gone"
    )]
    Dead { silence: Duration },
    #[error("the other end closed the tunnel")]
    ClosedByPeer,
    #[error("the tunnel was closed on this side")]
    ClosedHere,
    #[error("the tunnel's connection broke: {0}")]
    Io(Arc<io::Error>),
    #[error(
        "the two ends of the tunnel don't understand each other: {0}; run the same version of redirector on both"
    )]
    Protocol(Arc<h2::Error>),
}

/// Why no stream could be opened. Known at once: opening never waits.
#[derive(Clone, Debug, Error)]
pub enum OpenError {
    #[error("the tunnel is gone: {0}")]
    Gone(TunnelError),
    #[error("the tunnel already carries {0} requests, its limit")]
    Busy(usize),
    #[error("the tunnel takes no new requests: {0}")]
    NotAccepting(Arc<h2::Error>),
}

/// Why a stream failed. Found inside the `io::Error` of a read or write.
#[derive(Debug, Error)]
pub enum StreamError {
    #[error("the other end of the tunnel reset the request ({0})")]
    Reset(Reason),
    #[error("the developer's local server broke its connection off")]
    BrokenOff,
    #[error("the tunnel ended: {0}")]
    TunnelEnded(h2::Error),
    #[error("the request was reset on this side")]
    ResetHere,
}

/// The developer's side did not take the request, for instance because nothing listens on its local port.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("the developer's side refused the request ({}): {reason}", .status.as_u16())]
pub struct Refusal {
    pub status: StatusCode,
    pub reason: String,
}

impl Refusal {
    /// The refusal inside the error of a read from, or write to, an opened stream.
    #[must_use]
    pub fn from_io(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }

    pub(super) fn into_io(self) -> io::Error {
        io::Error::new(io::ErrorKind::ConnectionRefused, self)
    }
}

impl StreamError {
    pub(super) fn into_io(self) -> io::Error {
        let kind = match self {
            Self::Reset(_) | Self::BrokenOff => io::ErrorKind::ConnectionReset,
            Self::TunnelEnded(_) => io::ErrorKind::ConnectionAborted,
            Self::ResetHere => io::ErrorKind::BrokenPipe,
        };
        io::Error::new(kind, self)
    }

    /// The reason for which the other end reset the stream of this error.
    #[must_use]
    pub fn reset_reason(error: &io::Error) -> Option<Reason> {
        match error.get_ref()?.downcast_ref()? {
            Self::Reset(reason) => Some(*reason),
            _ => None,
        }
    }
}

impl From<h2::Error> for StreamError {
    fn from(error: h2::Error) -> Self {
        match error.reason() {
            Some(reason) if error.is_reset() && error.is_remote() => Self::Reset(reason),
            _ => Self::TunnelEnded(error),
        }
    }
}

impl From<h2::Error> for TunnelError {
    fn from(error: h2::Error) -> Self {
        if error.is_go_away() && error.is_remote() && error.reason() == Some(Reason::NO_ERROR) {
            return Self::ClosedByPeer;
        }
        if !error.is_io() {
            return Self::Protocol(Arc::new(error));
        }
        match error.into_io() {
            Some(io) => io.into(),
            None => Self::ClosedByPeer,
        }
    }
}

impl From<io::Error> for TunnelError {
    fn from(error: io::Error) -> Self {
        // A process that was killed says no goodbye.
        if error.kind() == io::ErrorKind::UnexpectedEof {
            return Self::ClosedByPeer;
        }
        Self::Io(Arc::new(error))
    }
}
