//! One socket used from both directions of one task: shared references in place of split halves.

use bytes::{Buf as _, BytesMut};
use socket2::SockRef;
use std::{io, mem::MaybeUninit, net::Shutdown, time::Duration};
use tokio::{io::Interest, net::TcpStream};

/// Grows with what the connection does: most heads, and answers of most APIs as a whole, fit the first size, bodies
/// move in the second.
const HEAD_READ: usize = 8 * 1024;
const BODY_READ: usize = 128 * 1024;
const RAW_READ: usize = 64 * 1024;

/// How much to read at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    Head,
    Body,
    /// Bytes of any protocol.
    Raw,
}

/// Appends what can be read to `buf`; 0 is the end of the stream. Cancel-safe.
pub async fn read(socket: &TcpStream, buf: &mut BytesMut, expect: Expect) -> io::Result<usize> {
    if buf.is_empty() && expect != Expect::Body {
        // An idle connection holds no memory. In a body the next read needs it at once.
        *buf = BytesMut::new();
    }
    loop {
        socket.readable().await?;
        buf.reserve(match expect {
            Expect::Head => HEAD_READ,
            Expect::Raw => RAW_READ,
            Expect::Body => BODY_READ,
        });
        match try_read(socket, buf, expect) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            other => return other,
        }
    }
}

/// Reads what is there. A read that leaves room has emptied the socket: the runtime is told, which would else
/// find out by a read for nothing before it waits.
fn try_read(socket: &TcpStream, buf: &mut BytesMut, expect: Expect) -> io::Result<usize> {
    let room = buf.capacity() - buf.len();
    let mut read = None;
    let outcome = socket.try_io(Interest::READABLE, || {
        let len = socket.try_read_buf(buf)?;
        read = Some(len);
        // The end of the stream stays readable for ever. Urgent data makes reads stop early (tcp(7)).
        let emptied = 0 < len && len < room && expect != Expect::Raw;
        if emptied { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(len) }
    });
    read.map_or(outcome, Ok)
}

/// Writes all of `bytes`.
pub async fn write_all(socket: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match socket.try_write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => socket.writable().await?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Sends FIN; what is still to be read can be read.
pub fn finish(socket: &TcpStream) {
    // A socket that the peer has reset meanwhile has nothing left to end.
    let _ = SockRef::from(socket).shutdown(Shutdown::Write);
}

/// Makes the coming close a reset, as the other side of the connection was reset.
pub fn reset_on_close(socket: &TcpStream) {
    let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
}

/// Writes the first `len` bytes of `buf` and removes them from it as they go: what is left when this is
/// dropped has not been written.
pub async fn drain_to(socket: &TcpStream, buf: &mut BytesMut, mut len: usize) -> io::Result<()> {
    while len > 0 {
        match socket.try_write(&buf[..len]) {
            Ok(written) => {
                buf.advance(written);
                len -= written;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => socket.writable().await?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Is there anything to read: bytes, the end of the stream, or an error?
pub fn has_spoken(socket: &TcpStream) -> bool {
    let mut byte = [MaybeUninit::uninit()];
    let peeked = SockRef::from(socket).recv_with_flags(&mut byte, libc::MSG_PEEK | libc::MSG_DONTWAIT);
    !peeked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}
