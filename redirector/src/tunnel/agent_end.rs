//! The agent's end of the tunnel: opens a stream for each matched request. HTTP/2 client.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::Reason;
use h2::client::{ResponseFuture, SendRequest};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;

use super::error::{OpenError, Refusal, StreamError, TunnelError};
use super::liveness::LivenessConfig;
use super::meta::StreamMeta;
use super::report::Report;
use super::stream::{RecvHalf, SendHalf};
use super::wire::{self, Heartbeat, Listened};
use crate::byte_counts::ByteCounts;

/// Starts the agent's end on an upgraded connection.
pub struct AgentEnd;

/// A live tunnel to one developer. Clones are the same tunnel.
#[derive(Clone)]
pub struct Tunnel {
    requests: SendRequest<Bytes>,
    shared: Arc<Shared>,
    bytes: Arc<ByteCounts>,
}

struct Shared {
    state: watch::Sender<State>,
    streams: AtomicUsize,
}

#[derive(Clone)]
enum State {
    Open,
    Closing,
    Ended(TunnelError),
}

/// A stream that may be written before the developer's side has answered. The first read waits for that answer and
/// fails with a [`Refusal`] inside when it was a no.
///
/// Dropping it before the response has been read to its end cancels the request; [`OpeningStream::finish`] is for an
/// exchange whose end is known otherwise (by content-length, for instance).
pub struct OpeningStream {
    send: SendHalf,
    answer: Answer,
    bytes: Arc<ByteCounts>,
    _slot: Slot,
}

enum Answer {
    Awaited(ResponseFuture),
    Taken(RecvHalf),
    Refused(Refusal),
}

/// One of the streams a tunnel may carry at a time.
struct Slot(Arc<Shared>);

impl AgentEnd {
    /// Speaks first, waits for nothing. The returned future drives the connection: spawn it. It resolves when the
    /// tunnel has ended, with the reason; dropping it ends the tunnel. A TCP connection below `io` needs TCP_NODELAY,
    /// else small frames wait for delayed ACKs (40 ms each).
    ///
    /// # Errors
    /// When the connection breaks at once.
    pub async fn handshake<IO>(
        io: IO,
        liveness: LivenessConfig,
    ) -> Result<(Tunnel, impl Future<Output = TunnelError> + Send), TunnelError>
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let (io, heard) = Listened::new(io);
        let (requests, mut connection) = wire::client().handshake::<_, Bytes>(io).await?;
        let shared =
            Arc::new(Shared { state: watch::Sender::new(State::Open), streams: AtomicUsize::new(0) });
        let mut closing = shared.state.subscribe();
        let mut guard = EndGuard(shared.state.clone());
        let mut heartbeat = Heartbeat::new(liveness, heard.clone(), connection.ping_pong());
        let driver = async move {
            let connection = poll_fn(|cx| match Pin::new(&mut connection).poll(cx) {
                Poll::Ready(Ok(())) if heard.end() => Poll::Ready(TunnelError::ClosedByPeer),
                // Every `Tunnel` and stream was dropped.
                Poll::Ready(Ok(())) => Poll::Ready(TunnelError::ClosedHere),
                Poll::Ready(Err(error)) => Poll::Ready(error.into()),
                Poll::Pending => heartbeat.poll(cx),
            });
            let reason = tokio::select! {
                biased;
                reason = connection => reason,
                _ = closing.wait_for(|state| !matches!(state, State::Open)) => TunnelError::ClosedHere,
            };
            guard.end(reason.clone());
            reason
        };
        Ok((Tunnel { requests, shared, bytes: Arc::default() }, driver))
    }
}

impl Tunnel {
    /// The same tunnel; the bytes of streams opened with it are counted in `bytes`.
    #[must_use]
    pub fn counted_in(self, bytes: &Arc<ByteCounts>) -> Self {
        Self { bytes: Arc::clone(bytes), ..self }
    }

    /// Opens a stream for a request. Never waits: the stream can be written at once.
    ///
    /// # Errors
    /// When the tunnel is gone or full, or the developer's side takes no new requests.
    pub fn open(&self, meta: &StreamMeta) -> Result<OpeningStream, OpenError> {
        if let Some(reason) = self.ended() {
            return Err(OpenError::Gone(reason));
        }
        let slot = Slot::take(&self.shared, self.requests.current_max_send_streams())?;
        let mut requests = self.requests.clone();
        match requests.send_request(meta.to_request(), false) {
            Ok((response, body)) => Ok(OpeningStream {
                send: SendHalf::new(body),
                answer: Answer::Awaited(response),
                bytes: Arc::clone(&self.bytes),
                _slot: slot,
            }),
            Err(error) => {
                // 2^30 streams are the life of an HTTP/2 connection (RFC 9113 §5.1.1). The developer reconnects.
                if !error.is_io() && !error.is_remote() {
                    self.close();
                }
                Err(OpenError::NotAccepting(Arc::new(error)))
            }
        }
    }

    #[must_use]
    pub fn is_alive(&self) -> bool {
        matches!(*self.shared.state.borrow(), State::Open)
    }

    /// Resolves with the reason when the tunnel has ended.
    pub async fn closed(&self) -> TunnelError {
        let mut state = self.shared.state.subscribe();
        match state.wait_for(|state| matches!(state, State::Ended(_))).await.as_deref() {
            Ok(State::Ended(reason)) => reason.clone(),
            _ => TunnelError::ClosedHere,
        }
    }

    /// Ends the tunnel and every stream in it, for instance because its token was revoked.
    pub fn close(&self) {
        self.shared.state.send_if_modified(|state| {
            let open = matches!(state, State::Open);
            if open {
                *state = State::Closing;
            }
            open
        });
    }

    fn ended(&self) -> Option<TunnelError> {
        match &*self.shared.state.borrow() {
            State::Open => None,
            State::Closing => Some(TunnelError::ClosedHere),
            State::Ended(reason) => Some(reason.clone()),
        }
    }
}

impl OpeningStream {
    /// Says that the exchange is complete though neither side has closed: the developer's side lets go of its local
    /// connection without counting the request as cancelled. What was written but not sent yet is lost.
    pub fn finish(mut self) {
        self.send.reset(Reason::NO_ERROR);
    }

    /// Says that the exchange is over and how it went, after the bytes written so far. The developer's side then closes
    /// its direction.
    ///
    /// # Errors
    /// When the stream is over already.
    pub fn conclude(&mut self, report: Report) -> io::Result<()> {
        self.send.conclude(report)
    }

    /// Ends the request with RST_STREAM, as when its client went away.
    pub fn reset(mut self, reason: Reason) {
        self.send.reset(reason);
    }

    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<&mut RecvHalf>> {
        if let Answer::Awaited(response) = &mut self.answer {
            let response =
                ready!(Pin::new(response).poll(cx)).map_err(|error| StreamError::from(error).into_io())?;
            self.answer = match Refusal::from_response(&response) {
                None => Answer::Taken(RecvHalf::new(response.into_body())),
                Some(refusal) => Answer::Refused(refusal),
            };
        }
        match &mut self.answer {
            Answer::Taken(recv) => Poll::Ready(Ok(recv)),
            Answer::Refused(refusal) => Poll::Ready(Err(refusal.clone().into_io())),
            Answer::Awaited(_) => Poll::Pending,
        }
    }

    /// A write that failed because the request was refused should say so.
    fn explain(&mut self, error: io::Error, cx: &mut Context<'_>) -> io::Error {
        match self.poll_answer(cx) {
            Poll::Ready(Err(refusal)) if Refusal::from_io(&refusal).is_some() => refusal,
            _ => error,
        }
    }
}

impl AsyncRead for OpeningStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let recv = ready!(self.poll_answer(cx))?;
        let outcome = ready!(Pin::new(recv).poll_read(cx, buf));
        self.bytes.received(buf.filled().len() - before);
        Poll::Ready(outcome)
    }
}

impl AsyncWrite for OpeningStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let result = ready!(Pin::new(&mut self.send).poll_write(cx, buf));
        Poll::Ready(match result {
            Ok(written) => {
                self.bytes.sent(written);
                Ok(written)
            }
            Err(error) => Err(self.explain(error, cx)),
        })
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.send).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = ready!(Pin::new(&mut self.send).poll_shutdown(cx));
        Poll::Ready(result.map_err(|error| self.explain(error, cx)))
    }
}

impl Drop for OpeningStream {
    fn drop(&mut self) {
        let done = match &self.answer {
            Answer::Awaited(_) => false,
            Answer::Taken(recv) => recv.ended(),
            Answer::Refused(_) => true,
        };
        if !done {
            // Nobody waits for the answer any more, so bytes still queued are not worth sending.
            self.send.reset(Reason::CANCEL);
        }
    }
}

impl Slot {
    fn take(shared: &Arc<Shared>, peer_limit: usize) -> Result<Self, OpenError> {
        let limit = peer_limit.min(wire::MAX_STREAMS as usize);
        shared
            .streams
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |taken| (taken < limit).then_some(taken + 1))
            .map_err(|_| OpenError::Busy(limit))?;
        Ok(Self(shared.clone()))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Tells everyone that the tunnel is over, also when its driver is dropped.
struct EndGuard(watch::Sender<State>);

impl EndGuard {
    fn end(&mut self, reason: TunnelError) {
        self.0.send_if_modified(|state| {
            let first = !matches!(state, State::Ended(_));
            if first {
                *state = State::Ended(reason);
            }
            first
        });
    }
}

impl Drop for EndGuard {
    fn drop(&mut self) {
        self.end(TunnelError::ClosedHere);
    }
}
