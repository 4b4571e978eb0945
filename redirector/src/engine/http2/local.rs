//! The tunnel's stream below the connection to a developer's local server.
//!
//! An HTTP/2 connection has no end that either side could tell from its bytes, so the agent says when the request is
//! over, and what became of it.

use crate::tunnel::{agent_end::OpeningStream, report::Report};
use std::{
    cell::Cell,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What the developer's end is told when the connection is shut down.
pub(super) type Verdict = Rc<Cell<Report>>;

pub(super) struct Local {
    stream: OpeningStream,
    verdict: Verdict,
    concluded: bool,
}

impl Local {
    pub(super) fn new(stream: OpeningStream) -> (Self, Verdict) {
        let verdict = Verdict::default();
        (Self { stream, verdict: Rc::clone(&verdict), concluded: false }, verdict)
    }
}

impl AsyncRead for Local {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Local {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// Tells the verdict, and waits until the developer's end has let go of the local server.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.concluded {
            self.concluded = true;
            let report = self.verdict.get();
            self.stream.conclude(report)?;
        }
        let mut rest = [0; 1024];
        loop {
            let mut rest = ReadBuf::new(&mut rest);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut rest))?;
            if rest.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }
}
