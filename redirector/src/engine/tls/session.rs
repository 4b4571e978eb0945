//! Bytes through TLS, over a connection that both directions of one task use by shared reference.
//!
//! Nothing is borrowed across an await. What a write has taken is on its way: it waits in the session if the
//! kernel does not take it now, and whoever uses the session next sends it on.

use rustls::Connection;
use socket2::SockRef;
use std::{
    cell::{Cell, RefCell},
    io::{self, BufRead as _, Read, Write},
    net::Shutdown,
    task::{Context, Poll, ready},
};
use tokio::net::TcpStream;

/// How the other side has ended its half.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) enum Ending {
    /// It has said so, or needs not say it.
    Clean,
    /// Without the word that TLS has for it (close_notify, RFC 8446 §6.1). Something may be missing, or it is one of
    /// the many that never say it.
    Truncated,
}

/// One end of TLS on a TCP connection.
#[derive(Debug)]
pub(in crate::engine) struct Session {
    rustls: RefCell<Connection>,
    ending: Cell<Ending>,
}

/// What the kernel has, or takes, right now. Keeps the runtime's idea of readiness.
struct Now<'a>(&'a TcpStream);

impl Read for Now<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buf)
    }
}

impl Write for Now<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, pieces: &[io::IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(pieces)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Session {
    pub(super) fn new(connection: impl Into<Connection>) -> Self {
        Self { rustls: RefCell::new(connection.into()), ending: Cell::new(Ending::Clean) }
    }

    /// Runs the handshake to its end. `first`: read already.
    pub(super) async fn handshake(&self, tcp: &TcpStream, mut first: &[u8]) -> io::Result<()> {
        while !first.is_empty() {
            self.receive(tcp, &mut first)?;
        }
        loop {
            self.flush(tcp).await?;
            if !self.rustls.borrow().is_handshaking() {
                return Ok(());
            }
            match self.receive(tcp, &mut Now(tcp))? {
                Some(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Some(_) => {}
                None => self.wait(tcp).await?,
            }
        }
    }

    /// What the handshake has brought.
    pub(super) fn with<T>(&self, look: impl FnOnce(&Connection) -> T) -> T {
        look(&self.rustls.borrow())
    }

    pub(in crate::engine) fn ending(&self) -> Ending {
        self.ending.get()
    }

    /// Waits for bytes, hands them to `put`, and says how many; 0 is the end. Cancel-safe.
    pub(in crate::engine) async fn read(&self, tcp: &TcpStream, put: impl FnMut(&[u8])) -> io::Result<usize> {
        let mut put = put;
        loop {
            if let Some(taken) = self.take(usize::MAX, &mut put)? {
                return Ok(taken);
            }
            if self.receive(tcp, &mut Now(tcp))?.is_none() {
                self.wait(tcp).await?;
            }
        }
    }

    /// Takes the beginning of `bytes` and says how much that is. Cancel-safe.
    pub(in crate::engine) async fn write(&self, tcp: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
        self.flush(tcp).await?;
        let taken = self.rustls.borrow_mut().writer().write(bytes)?;
        self.send(tcp)?;
        Ok(taken)
    }

    /// Waits until the kernel has everything.
    pub(in crate::engine) async fn flush(&self, tcp: &TcpStream) -> io::Result<()> {
        while !self.send(tcp)? {
            tcp.writable().await?;
        }
        Ok(())
    }

    /// Tells the other side that our half has ended.
    pub(in crate::engine) async fn say_end(&self, tcp: &TcpStream) -> io::Result<()> {
        self.rustls.borrow_mut().send_close_notify();
        self.flush(tcp).await
    }

    /// Is there anything to read: bytes, the end, or an error? What TLS sends for itself does not count.
    pub(in crate::engine) fn has_spoken(&self, tcp: &TcpStream) -> bool {
        loop {
            if self.has_bytes() {
                return true;
            }
            // Not by the runtime's idea of readiness, which may be behind.
            match self.receive(tcp, &mut &*SockRef::from(tcp)) {
                Ok(Some(0)) | Err(_) => return true,
                Ok(Some(_)) => {}
                Ok(None) => return false,
            }
        }
    }

    /// Waits until the other side ends its half; `false` once it has sent more.
    pub(in crate::engine) async fn ended(&self, tcp: &TcpStream) -> io::Result<bool> {
        loop {
            if self.has_bytes() {
                // The end counts as something to read.
                return Ok(self.is_at_end());
            }
            if self.receive(tcp, &mut Now(tcp))?.is_none() {
                self.wait(tcp).await?;
            }
        }
    }

    pub(in crate::engine) fn poll_read(
        &self,
        tcp: &TcpStream,
        cx: &mut Context<'_>,
        room: usize,
        put: impl FnMut(&[u8]),
    ) -> Poll<io::Result<()>> {
        let mut put = put;
        loop {
            if self.take(room, &mut put)?.is_some() {
                return Poll::Ready(Ok(()));
            }
            if self.receive(tcp, &mut Now(tcp))?.is_some() {
                continue;
            }
            if !self.send(tcp)? && tcp.poll_write_ready(cx)?.is_ready() {
                continue;
            }
            ready!(tcp.poll_read_ready(cx))?;
        }
    }

    pub(in crate::engine) fn poll_write(
        &self,
        tcp: &TcpStream,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_flush(tcp, cx))?;
        let taken = self.rustls.borrow_mut().writer().write(bytes)?;
        self.send(tcp)?;
        Poll::Ready(Ok(taken))
    }

    pub(in crate::engine) fn poll_flush(
        &self,
        tcp: &TcpStream,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while !self.send(tcp)? {
            ready!(tcp.poll_write_ready(cx))?;
        }
        Poll::Ready(Ok(()))
    }

    pub(in crate::engine) fn poll_shutdown(
        &self,
        tcp: &TcpStream,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        self.rustls.borrow_mut().send_close_notify();
        ready!(self.poll_flush(tcp, cx))?;
        let _ = SockRef::from(tcp).shutdown(Shutdown::Write);
        Poll::Ready(Ok(()))
    }

    /// Waits for something to do: bytes to receive, or room for bytes to send.
    async fn wait(&self, tcp: &TcpStream) -> io::Result<()> {
        if !self.rustls.borrow().wants_write() {
            return tcp.readable().await;
        }
        tokio::select! {
            readable = tcp.readable() => readable,
            writable = tcp.writable() => {
                writable?;
                self.send(tcp).map(drop)
            }
        }
    }

    /// Reads once. `None`: there is nothing now. Only while there are no bytes to take.
    fn receive(&self, tcp: &TcpStream, from: &mut dyn Read) -> io::Result<Option<usize>> {
        let mut rustls = self.rustls.borrow_mut();
        let read = match rustls.read_tls(from) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            other => other?,
        };
        let processed = rustls.process_new_packets();
        drop(rustls);
        // What TLS answers by itself, an alert for one. If that fails, the next write will tell.
        let _ = self.send(tcp);
        processed.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        Ok(Some(read))
    }

    /// Hands out bytes that have come, `room` at most. `None`: there are none yet; 0: there won't be any more.
    fn take(&self, room: usize, put: &mut impl FnMut(&[u8])) -> io::Result<Option<usize>> {
        let mut rustls = self.rustls.borrow_mut();
        let mut taken = 0;
        while taken < room {
            let mut reader = rustls.reader();
            match reader.fill_buf() {
                Ok([]) => return Ok(Some(taken)),
                Ok(chunk) => {
                    let len = chunk.len().min(room - taken);
                    put(&chunk[..len]);
                    reader.consume(len);
                    taken += len;
                }
                Err(_) if taken > 0 => break,
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => return Ok(None),
                    io::ErrorKind::UnexpectedEof => {
                        self.ending.set(Ending::Truncated);
                        return Ok(Some(0));
                    }
                    _ => return Err(error),
                },
            }
        }
        Ok(Some(taken))
    }

    /// Bytes to take, or the end.
    fn has_bytes(&self) -> bool {
        let mut rustls = self.rustls.borrow_mut();
        let bytes = rustls.reader().fill_buf().map(drop);
        !bytes.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    fn is_at_end(&self) -> bool {
        let mut rustls = self.rustls.borrow_mut();
        // An error is an end without close_notify.
        rustls.reader().fill_buf().map_or(true, <[u8]>::is_empty)
    }

    /// Sends what the kernel takes now; is that everything?
    fn send(&self, tcp: &TcpStream) -> io::Result<bool> {
        let mut rustls = self.rustls.borrow_mut();
        while rustls.wants_write() {
            match rustls.write_tls(&mut Now(tcp)) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}
