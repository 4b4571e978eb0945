//! A connection to a client or to the app, used from both directions of one task: shared references in place of
//! split halves.

use super::tls::{Ending, Session};
use crate::byte_counts::ByteCounts;
use bytes::{Buf as _, BytesMut};
use socket2::SockRef;
use std::{
    future::pending,
    io,
    mem::MaybeUninit,
    net::Shutdown,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::TcpStream,
};

/// Grows with what the connection does: most heads, and answers of most APIs as a whole, fit the first size, bodies
/// move in the second.
const HEAD_READ: usize = 8 * 1024;
const BODY_READ: usize = 128 * 1024;
const RAW_READ: usize = 64 * 1024;

/// How much to read at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expect {
    Head,
    Body,
    /// Bytes of any protocol.
    Raw,
}

/// One end of a connection, which must not delay small writes (`TCP_NODELAY`): plain, or with TLS on it.
#[derive(Debug)]
pub struct Socket {
    tcp: TcpStream,
    tls: Option<Box<Session>>,
    /// Where its bytes are counted: the app's are.
    bytes: Option<Arc<ByteCounts>>,
}

impl From<TcpStream> for Socket {
    fn from(tcp: TcpStream) -> Self {
        Self { tcp, tls: None, bytes: None }
    }
}

impl Socket {
    /// The connection to an app, whose bytes are counted.
    pub(super) fn to_app(tcp: TcpStream, bytes: Arc<ByteCounts>) -> Self {
        Self { tcp, tls: None, bytes: Some(bytes) }
    }

    /// What is below TLS, for its handshake.
    pub(super) fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    /// From here on everything goes through `session`.
    pub(super) fn secure(&mut self, session: Session) {
        self.tls = Some(Box::new(session));
    }

    /// Appends what can be read to `buf`; 0 is the end of the stream. Cancel-safe.
    pub(super) async fn read(&self, buf: &mut BytesMut, expect: Expect) -> io::Result<usize> {
        if buf.is_empty() && expect != Expect::Body {
            // An idle connection holds no memory. In a body the next read needs it at once.
            *buf = BytesMut::new();
        }
        if let Some(tls) = &self.tls {
            let read = tls.read(&self.tcp, |bytes| buf.extend_from_slice(bytes)).await;
            if let (Ok(len), Some(bytes)) = (&read, &self.bytes) {
                bytes.received(*len);
            }
            return read;
        }
        loop {
            self.tcp.readable().await?;
            buf.reserve(match expect {
                Expect::Head => HEAD_READ,
                Expect::Raw => RAW_READ,
                Expect::Body => BODY_READ,
            });
            match self.try_read(buf, expect) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => return other,
            }
        }
    }

    /// Reads what is there. A read that leaves room has emptied the socket: the runtime is told, which would else
    /// find out by a read for nothing before it waits.
    fn try_read(&self, buf: &mut BytesMut, expect: Expect) -> io::Result<usize> {
        let room = buf.capacity() - buf.len();
        let mut read = None;
        let outcome = self.tcp.try_io(Interest::READABLE, || {
            let len = self.tcp.try_read_buf(buf)?;
            read = Some(len);
            // The end of the stream stays readable for ever. Urgent data makes reads stop early (tcp(7)).
            let emptied = 0 < len && len < room && expect != Expect::Raw;
            if emptied { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(len) }
        });
        if let (Some(len), Some(bytes)) = (read, &self.bytes) {
            bytes.received(len);
        }
        read.map_or(outcome, Ok)
    }

    /// Writes all of `bytes`.
    pub(super) async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let written = self.write(bytes).await?;
            bytes = &bytes[written..];
        }
        self.flush().await
    }

    /// Writes the first `len` bytes of `buf` and removes them from it as they go: what is left when this is
    /// dropped has not been written.
    pub(super) async fn drain_to(&self, buf: &mut BytesMut, mut len: usize) -> io::Result<()> {
        while len > 0 {
            let written = self.write(&buf[..len]).await?;
            buf.advance(written);
            len -= written;
        }
        self.flush().await
    }

    /// Writes the beginning of `bytes` and says how much that is. Cancel-safe.
    async fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(tls) = &self.tls {
            return tls.write(&self.tcp, bytes).await.inspect(|written| self.count_sent(*written));
        }
        loop {
            match self.tcp.try_write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.tcp.writable().await?,
                other => return other.inspect(|written| self.count_sent(*written)),
            }
        }
    }

    fn count_sent(&self, amount: usize) {
        if let Some(bytes) = &self.bytes {
            bytes.sent(amount);
        }
    }

    /// Sends what TLS holds back; a plain socket holds nothing back.
    async fn flush(&self) -> io::Result<()> {
        match &self.tls {
            Some(tls) => tls.flush(&self.tcp).await,
            None => Ok(()),
        }
    }

    /// How the other side has ended its half, once the end has been read.
    pub(super) fn ending(&self) -> Ending {
        self.tls.as_ref().map_or(Ending::Clean, |tls| tls.ending())
    }

    /// Says that our half ends, as far as closing the socket does not say it.
    pub(super) async fn say_end(&self, ending: Ending) {
        if let Some(tls) = &self.tls
            && ending == Ending::Clean
        {
            // To a peer that has reset the connection there is nothing left to say.
            let _ = tls.say_end(&self.tcp).await;
        }
    }

    /// Ends our half; what is still to be read can be read.
    pub(super) async fn finish(&self, ending: Ending) {
        self.say_end(ending).await;
        // A socket that the peer has reset meanwhile has nothing left to end.
        let _ = SockRef::from(&self.tcp).shutdown(Shutdown::Write);
    }

    /// Makes the coming close a reset, as the other side of the connection was reset.
    pub(super) fn reset_on_close(&self) {
        let _ = SockRef::from(&self.tcp).set_linger(Some(Duration::ZERO));
    }

    /// Is there anything to read: bytes, the end of the stream, or an error?
    pub(super) fn has_spoken(&self) -> bool {
        if let Some(tls) = &self.tls {
            return tls.has_spoken(&self.tcp);
        }
        let mut byte = [MaybeUninit::uninit()];
        let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
        let peeked = SockRef::from(&self.tcp).recv_with_flags(&mut byte, flags);
        !peeked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Waits until the other side ends its half; forever once it has sent more.
    pub(super) async fn ended(&self) -> io::Result<()> {
        let ended = match &self.tls {
            Some(tls) => tls.ended(&self.tcp).await?,
            None => self.tcp.peek(&mut [0]).await? == 0,
        };
        if ended { Ok(()) } else { pending().await }
    }
}

/// For those who own the socket and want it as a stream, in one task: with TLS, reading may have to write.
impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let outcome = ready!(match &self.tls {
            Some(tls) => tls.poll_read(&self.tcp, cx, buf.remaining(), |bytes| buf.put_slice(bytes)),
            None => Pin::new(&mut self.tcp).poll_read(cx, buf),
        });
        if let Some(bytes) = &self.bytes {
            bytes.received(buf.filled().len() - before);
        }
        Poll::Ready(outcome)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = ready!(match &self.tls {
            Some(tls) => tls.poll_write(&self.tcp, cx, buf),
            None => Pin::new(&mut self.tcp).poll_write(cx, buf),
        });
        Poll::Ready(outcome.inspect(|written| self.count_sent(*written)))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = ready!(match &self.tls {
            Some(tls) => {
                let first = bufs.iter().find(|buf| !buf.is_empty()).map_or(&[][..], |buf| buf);
                tls.poll_write(&self.tcp, cx, first)
            }
            None => Pin::new(&mut self.tcp).poll_write_vectored(cx, bufs),
        });
        Poll::Ready(outcome.inspect(|written| self.count_sent(*written)))
    }

    fn is_write_vectored(&self) -> bool {
        self.tls.is_none() && self.tcp.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(tls) = &self.tls {
            return tls.poll_flush(&self.tcp, cx);
        }
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(tls) = &self.tls {
            return tls.poll_shutdown(&self.tcp, cx);
        }
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}
