//! A stream whose first bytes are looked at as they are read: does its other end speak HTTP/2, and what are its settings?

use super::greeting::{Greeting, PeerSettings, read_greeting};
use bytes::BytesMut;
use std::{
    cell::{Cell, RefCell},
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::Notify,
};

/// Reads and writes pass unchanged.
pub(super) struct Tap<IO> {
    io: IO,
    tapped: Rc<Tapped>,
    /// The first bytes, until they are understood.
    first: Option<BytesMut>,
}

/// What has been seen.
#[derive(Default)]
pub(super) struct Tapped {
    /// `Some(None)`: the other end does not speak HTTP/2.
    settings: Cell<Option<Option<PeerSettings>>>,
    known: Notify,
    failure: RefCell<Option<io::Error>>,
}

impl<IO> Tap<IO> {
    pub(super) fn new(io: IO) -> (Self, Rc<Tapped>) {
        let tapped = Rc::<Tapped>::default();
        (Self { io, tapped: Rc::clone(&tapped), first: Some(BytesMut::new()) }, tapped)
    }

    fn look(&mut self, bytes: &[u8]) {
        let Some(first) = &mut self.first else { return };
        first.extend_from_slice(bytes);
        let settings = match read_greeting(first) {
            // The end of the stream decides.
            Greeting::Undecided | Greeting::Begun if !bytes.is_empty() => return,
            Greeting::Settings(settings) => Some(settings),
            _ => None,
        };
        self.first = None;
        self.tapped.tell(settings);
    }
}

impl Tapped {
    /// Waits for the other end's settings; `None`: it said something else, or nothing before its end.
    pub(super) async fn settings(&self) -> Option<PeerSettings> {
        loop {
            if let Some(settings) = self.settings.get() {
                return settings;
            }
            self.known.notified().await;
        }
    }

    /// The other end is known to speak HTTP/2.
    pub(super) fn speaks_http2(&self) -> bool {
        matches!(self.settings.get(), Some(Some(_)))
    }

    /// The first error of the stream. (h2 keeps only its text.)
    pub(super) fn take_failure(&self) -> Option<io::Error> {
        self.failure.take()
    }

    fn tell(&self, settings: Option<PeerSettings>) {
        self.settings.set(Some(settings));
        self.known.notify_one();
    }

    /// Keeps the error, and gives h2 one of the same kind.
    fn note(&self, error: io::Error) -> io::Error {
        let same = io::Error::from(error.kind());
        self.failure.borrow_mut().get_or_insert(error);
        same
    }
}

impl<IO> Drop for Tap<IO> {
    fn drop(&mut self) {
        if self.first.is_some() {
            self.tapped.tell(None);
        }
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Tap<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let room = buf.remaining() > 0;
        let read = ready!(Pin::new(&mut self.io).poll_read(cx, buf));
        if room {
            self.look(&buf.filled()[before..]);
        }
        Poll::Ready(read.map_err(|error| self.tapped.note(error)))
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Tap<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.io).poll_write(cx, buf));
        Poll::Ready(written.map_err(|error| self.tapped.note(error)))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.io).poll_write_vectored(cx, bufs));
        Poll::Ready(written.map_err(|error| self.tapped.note(error)))
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
