//! What both ends of the tunnel agree on in HTTP/2, and the heartbeat both run.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use h2::{Ping, PingPong};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep_until};

use super::error::TunnelError;
use super::liveness::{Action, Liveness, LivenessConfig};

/// What one stream may have in flight, so what one stalled stream costs in memory. Bytes.
const STREAM_WINDOW: u32 = 256 << 10;
/// What all streams of a tunnel together may have in flight, so what a tunnel costs at most. 64 fully stalled streams
/// use it up and stall the others of the same tunnel and direction. Bytes.
const CONNECTION_WINDOW: u32 = 16 << 20;
/// What one stream buffers before its writer waits. Bytes.
const SEND_BUFFER: usize = 256 << 10;
/// Streams at a time, agreed by both ends.
pub(super) const MAX_STREAMS: u32 = 4096;
const MAX_HEADERS: u32 = 64 << 10;
/// Cancelled requests are everyday life here and both ends are authenticated, so none of h2's guards against floods
/// of resets may end the tunnel. (Some of them count over the connection's whole life.)
const RESETS_REMEMBERED: usize = 1 << 16;
/// h2 ends a connection on which too many DATA frames below 256 bytes wait to be read, counting 256 minus its size for
/// each. Stalled streams of small events must not do that: this is four windows full of one-byte frames, or the
/// whole connection window in frames of 17 bytes. In return a hostile peer can make this end spend some 250 MB.
const SMALL_FRAME_BUDGET: usize = 4 * 256 * STREAM_WINDOW as usize;

pub(super) fn client() -> h2::client::Builder {
    let mut builder = h2::client::Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER)
        .initial_max_send_streams(MAX_STREAMS as usize)
        .max_concurrent_streams(0)
        .enable_push(false)
        .max_header_list_size(MAX_HEADERS)
        .max_concurrent_reset_streams(RESETS_REMEMBERED)
        .max_pending_accept_reset_streams(RESETS_REMEMBERED)
        .max_local_error_reset_streams(None)
        .data_frame_budget(SMALL_FRAME_BUDGET);
    builder
}

pub(super) fn server() -> h2::server::Builder {
    let mut builder = h2::server::Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER)
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEADERS)
        .max_concurrent_reset_streams(RESETS_REMEMBERED)
        .max_pending_accept_reset_streams(RESETS_REMEMBERED)
        .max_local_error_reset_streams(None)
        .data_frame_budget(SMALL_FRAME_BUDGET);
    builder
}

/// When the connection last delivered bytes, shared between the connection's I/O and its heartbeat.
pub(super) struct Heard {
    start: Instant,
    nanos: AtomicU64,
    end: AtomicBool,
}

impl Heard {
    fn last(&self) -> Instant {
        self.start + Duration::from_nanos(self.nanos.load(Ordering::Relaxed))
    }

    /// The peer closed its direction of the connection.
    pub(super) fn end(&self) -> bool {
        self.end.load(Ordering::Relaxed)
    }

    fn note(&self, bytes: usize) {
        if bytes == 0 {
            self.end.store(true, Ordering::Relaxed);
        } else {
            let nanos = u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX);
            self.nanos.store(nanos, Ordering::Relaxed);
        }
    }
}

/// An `io` that notes when bytes arrive.
pub(super) struct Listened<IO> {
    io: IO,
    heard: Arc<Heard>,
}

impl<IO> Listened<IO> {
    pub(super) fn new(io: IO) -> (Self, Arc<Heard>) {
        let heard =
            Arc::new(Heard { start: Instant::now(), nanos: AtomicU64::new(0), end: AtomicBool::new(false) });
        (Self { io, heard: heard.clone() }, heard)
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Listened<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let room = buf.remaining() > 0;
        let result = Pin::new(&mut self.io).poll_read(cx, buf);
        if room && matches!(result, Poll::Ready(Ok(()))) {
            self.heard.note(buf.filled().len() - before);
        }
        result
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Listened<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// Sends PINGs and resolves when the peer is dead. Must be polled in the connection's task, after the connection:
/// what has arrived is then known before the peer is judged.
pub(super) struct Heartbeat {
    config: LivenessConfig,
    liveness: Liveness,
    heard: Arc<Heard>,
    pings: Option<PingPong>,
    timer: Pin<Box<Sleep>>,
}

impl Heartbeat {
    pub(super) fn new(config: LivenessConfig, heard: Arc<Heard>, pings: Option<PingPong>) -> Self {
        let now = Instant::now();
        Self {
            config,
            liveness: Liveness::new(config, now),
            heard,
            pings,
            timer: Box::pin(sleep_until(now.into())),
        }
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<TunnelError> {
        let Some(pings) = &mut self.pings else { return Poll::Pending };
        loop {
            self.liveness.heard(self.heard.last());
            match pings.poll_pong(cx) {
                Poll::Ready(Ok(_)) => self.liveness.ponged(Instant::now()),
                // The connection is closing and will say why itself.
                Poll::Ready(Err(_)) => return Poll::Pending,
                Poll::Pending => {}
            }
            match self.liveness.poll(Instant::now()) {
                Action::Ping => {
                    // Fails only while closing, or when a PING is on its way already.
                    let _ = pings.send_ping(Ping::opaque());
                }
                Action::Dead => return Poll::Ready(TunnelError::Dead { silence: self.config.deadline }),
                Action::Wait(until) => {
                    // A timer that fires too early is cheaper than one moved with every packet.
                    if self.timer.is_elapsed() || self.timer.deadline() > until.into() {
                        self.timer.as_mut().reset(until.into());
                    }
                    if self.timer.as_mut().poll(cx).is_pending() {
                        return Poll::Pending;
                    }
                }
            }
        }
    }
}
