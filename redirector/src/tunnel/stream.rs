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
use http::{HeaderMap, HeaderValue};
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};

use super::error::StreamError;
use super::report::Report;

/// What one write hands to h2 at most. Bytes.
const PIECE: usize = 64 << 10;
/// The trailer of a stream whose bytes end too early.
const BROKEN_OFF: &str = "x-redirector-broken-off";

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
    state: RecvState,
    report: Option<Report>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum RecvState {
    Open,
    Ended,
    /// See [`TunnelStream::break_off`].
    BrokenOff,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum SendState {
    Open,
    /// END_STREAM is queued.
    Shut,
    /// RST_STREAM is queued.
    Reset,
}

impl TunnelStream {
    pub(super) fn new(send: SendStream<Bytes>, recv: RecvStream) -> Self {
        Self { send: SendHalf::new(send), recv: RecvHalf::new(recv) }
    }

    /// Ends both directions at once with RST_STREAM; bytes not sent yet are lost.
    pub fn reset(mut self, reason: Reason) {
        self.send.reset(reason);
    }

    /// Tells the reader, after the bytes written so far, that more should have come and won't.
    ///
    /// By trailers, as RST_STREAM makes h2 discard what it has not sent yet.
    pub fn break_off(mut self) {
        let mut trailers = HeaderMap::new();
        trailers.insert(BROKEN_OFF, HeaderValue::from_static("1"));
        if self.send.stream.send_trailers(trailers).is_ok() {
            self.send.state = SendState::Shut;
        }
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

    /// Ends this direction with a report.
    pub(super) fn conclude(&mut self, report: Report) -> io::Result<()> {
        self.stream
            .send_trailers(report.to_trailers())
            .map_err(|error| StreamError::from(error).into_io())?;
        self.state = SendState::Shut;
        Ok(())
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
            SendState::Reset => {
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
            SendState::Reset => {
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
        Self { stream, chunk: Bytes::new(), state: RecvState::Open, report: None }
    }

    /// Everything was received and taken.
    pub(super) fn ended(&self) -> bool {
        self.state != RecvState::Open || (self.chunk.is_empty() && self.stream.is_end_stream())
    }

    /// What the writer said at the end about the request as a whole.
    pub(super) fn report(&self) -> Option<Report> {
        self.report
    }

    /// Ready with a chunk, or with none at the end.
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.chunk.is_empty() && self.state == RecvState::Open {
            match ready!(self.stream.poll_data(cx)) {
                Some(Ok(chunk)) => self.chunk = chunk,
                None => self.state = ready!(self.poll_end(cx)),
                Some(Err(error)) if is_done(&error) => self.state = RecvState::Ended,
                Some(Err(error)) => return Poll::Ready(Err(StreamError::from(error).into_io())),
            }
        }
        if self.state == RecvState::BrokenOff {
            return Poll::Ready(Err(StreamError::BrokenOff.into_io()));
        }
        Poll::Ready(Ok(()))
    }

    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<RecvState> {
        Poll::Ready(match ready!(self.stream.poll_trailers(cx)) {
            Ok(Some(trailers)) if trailers.contains_key(BROKEN_OFF) => RecvState::BrokenOff,
            Ok(Some(trailers)) => {
                self.report = Report::from_trailers(&trailers);
                RecvState::Ended
            }
            // A reset after END_STREAM concerns the other direction.
            Ok(None) | Err(_) => RecvState::Ended,
        })
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

/// RFC 9113 §8.1: NO_ERROR says "done with it", which is no failure.
fn is_done(error: &h2::Error) -> bool {
    error.is_reset() && error.reason() == Some(Reason::NO_ERROR)
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
