//! One byte stream in the tunnel: the two directions of an HTTP/2 stream as `AsyncRead` and `AsyncWrite`.
//!
//! Shutdown sends END_STREAM; dropping a direction that was not shut down sends RST_STREAM(CANCEL). What the reader
//! has not taken stays in the peer's flow-control window, what the window does not admit stays with the writer.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use h2::{Reason, RecvStream, SendStream};
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};

use super::error::StreamError;

/// What one write hands to h2 at most. Bytes.
const PIECE: usize = 64 << 10;

/// Both directions of a stream.
pub struct TunnelStream {
    pub(super) send: SendHalf,
    pub(super) recv: RecvHalf,
}

/// The writing direction.
pub struct SendHalf {
    stream: SendStream<Bytes>,
    state: SendState,
}

/// The reading direction. Its window grows by what the consumer takes, never by what merely arrived.
pub struct RecvHalf {
    stream: RecvStream,
    chunk: Bytes,
    ended: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum SendState {
    Open,
    /// END_STREAM is queued.
    Shut,
    /// RST_STREAM is queued.
    Reset,
    /// Left to h2: sends what was written, then RST_STREAM.
    Abandoned,
}

impl TunnelStream {
    pub(super) fn new(send: SendStream<Bytes>, recv: RecvStream) -> Self {
        Self { send: SendHalf::new(send), recv: RecvHalf::new(recv) }
    }

    /// Ends both directions at once with RST_STREAM; bytes not sent yet are lost.
    pub fn reset(mut self, reason: Reason) {
        self.send.reset(reason);
    }

    /// Ends both directions with RST_STREAM(CANCEL), after the bytes written so far.
    pub fn abandon(mut self) {
        self.send.state = SendState::Abandoned;
    }
}

impl SendHalf {
    pub(super) fn new(stream: SendStream<Bytes>) -> Self {
        Self { stream, state: SendState::Open }
    }

    pub(super) fn reset(&mut self, reason: Reason) {
        self.state = SendState::Reset;
        self.stream.send_reset(reason);
    }

    /// Resolves when the peer resets the stream or the tunnel ends.
    pub(super) async fn failed(&mut self) -> io::Error {
        poll_fn(|cx| self.poll_failed(cx)).await
    }

    fn poll_failed(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let error = match ready!(self.stream.poll_reset(cx)) {
            Ok(reason) => StreamError::Reset(reason),
            Err(error) => StreamError::from(error),
        };
        Poll::Ready(error.into_io())
    }
}

impl AsyncWrite for SendHalf {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.state {
            SendState::Open => {}
            SendState::Shut => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            SendState::Reset | SendState::Abandoned => {
                return Poll::Ready(Err(StreamError::ResetHere.into_io()));
            }
        }
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let wanted = buf.len().min(PIECE);
        self.stream.reserve_capacity(wanted);
        // `poll_capacity` reports only increases; what an earlier write left over is not one.
        let mut admitted = self.stream.capacity();
        if admitted == 0 {
            admitted = match ready!(self.stream.poll_capacity(cx)) {
                Some(Ok(capacity)) => capacity,
                // The stream is closed; `poll_reset` knows why.
                Some(Err(_)) | None => 0,
            };
        }
        let piece = wanted.min(admitted);
        if piece > 0 && self.stream.send_data(Bytes::copy_from_slice(&buf[..piece]), false).is_ok() {
            return Poll::Ready(Ok(piece));
        }
        Poll::Ready(Err(ready!(self.poll_failed(cx))))
    }

    /// The connection's driver sends as fast as the network takes; there is nothing to hurry.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.state {
            SendState::Shut => return Poll::Ready(Ok(())),
            SendState::Reset | SendState::Abandoned => {
                return Poll::Ready(Err(StreamError::ResetHere.into_io()));
            }
            SendState::Open => {}
        }
        if self.stream.send_data(Bytes::new(), true).is_ok() {
            self.state = SendState::Shut;
            return Poll::Ready(Ok(()));
        }
        Poll::Ready(Err(ready!(self.poll_failed(cx))))
    }
}

impl Drop for SendHalf {
    fn drop(&mut self) {
        if self.state == SendState::Open {
            self.stream.send_reset(Reason::CANCEL);
        }
    }
}

impl RecvHalf {
    pub(super) fn new(stream: RecvStream) -> Self {
        Self { stream, chunk: Bytes::new(), ended: false }
    }

    /// Everything was received and taken.
    pub(super) fn ended(&self) -> bool {
        self.ended || (self.chunk.is_empty() && self.stream.is_end_stream())
    }

    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.chunk.is_empty() && !self.ended {
            match ready!(self.stream.poll_data(cx)) {
                Some(Ok(chunk)) => self.chunk = chunk,
                None => self.ended = true,
                // RFC 9113 §8.1: "done with it", not a failure.
                Some(Err(error)) if error.is_reset() && error.reason() == Some(Reason::NO_ERROR) => {
                    self.ended = true
                }
                Some(Err(error)) => return Poll::Ready(Err(StreamError::from(error).into_io())),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn take(&mut self, amount: usize) {
        let amount = amount.min(self.chunk.len());
        self.chunk.advance(amount);
        if amount > 0 {
            // Fails only when the stream is closed, and then nobody needs the window.
            let _ = self.stream.flow_control().release_capacity(amount);
        }
    }
}

impl AsyncRead for RecvHalf {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        ready!(self.poll_chunk(cx))?;
        let amount = self.chunk.len().min(buf.remaining());
        buf.put_slice(&self.chunk[..amount]);
        self.take(amount);
        Poll::Ready(Ok(()))
    }
}

impl AsyncBufRead for RecvHalf {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let this = self.get_mut();
        ready!(this.poll_chunk(cx))?;
        Poll::Ready(Ok(&this.chunk))
    }

    fn consume(mut self: Pin<&mut Self>, amount: usize) {
        self.take(amount);
    }
}

impl Drop for RecvHalf {
    fn drop(&mut self) {
        self.take(usize::MAX);
    }
}

impl AsyncRead for TunnelStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.recv).poll_read(cx, buf)
    }
}

impl AsyncWrite for TunnelStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.send).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.send).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.send).poll_shutdown(cx)
    }
}
