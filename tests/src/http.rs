//! A client connection under control to the byte, and just enough HTTP/1.1 to know where an answer ends.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    os::fd::AsRawFd,
};

use serde_json::Value;
use socket2::{Domain, Socket, Type};

use crate::wait::DEADLINE;

/// A connection whose reads and writes give up after the [`DEADLINE`].
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    /// Read, not yet given out.
    buffer: Vec<u8>,
}

/// An answer: final or interim (1xx).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    /// Every byte of it, as it came.
    pub raw: Vec<u8>,
    head_length: usize,
    /// The content, without chunk framing.
    pub body: Vec<u8>,
}

impl Response {
    /// The value of the first header with this name (any case).
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.raw[..self.head_length], name)
    }

    /// The body as JSON.
    #[track_caller]
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("no JSON ({error}): {}", self.text()))
    }

    /// Everything as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.raw).into_owned()
    }
}

impl Connection {
    pub fn open(to: SocketAddr) -> io::Result<Self> {
        Self::over(TcpStream::connect_timeout(&to, DEADLINE)?)
    }

    /// From a local address of choice, also when it was used a moment ago (`SO_REUSEADDR`).
    pub fn open_from(from: SocketAddr, to: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(from), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&from.into())?;
        socket.connect_timeout(&to.into(), DEADLINE)?;
        Self::over(socket.into())
    }

    /// With what it says first in the segment that ends the handshake, if `TCP_DEFER_ACCEPT` at the client does what it does
    /// on Linux: the bare acknowledgement is left out.
    pub fn open_with_data(to: SocketAddr, data: &[u8]) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
        defer(&socket)?;
        socket.connect_timeout(&to.into(), DEADLINE)?;
        let mut connection = Self::over(socket.into())?;
        connection.try_send(data)?;
        Ok(connection)
    }

    fn over(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.set_write_timeout(Some(DEADLINE))?;
        Ok(Self { stream, buffer: Vec::new() })
    }

    #[must_use]
    pub fn local_address(&self) -> SocketAddr {
        self.stream.local_addr().expect("a local address")
    }

    #[must_use]
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).unwrap_or_else(|error| panic!("send: {error}"));
    }

    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref())
    }

    /// Half-closes: nothing more will be sent, answers may still come.
    #[track_caller]
    pub fn finish_sending(&self) {
        self.stream.shutdown(Shutdown::Write).unwrap_or_else(|error| panic!("half-close: {error}"));
    }

    /// Closes with a reset instead of an end of stream.
    pub fn reset(self) {
        let socket = socket2::SockRef::from(&self.stream);
        socket.set_linger(Some(std::time::Duration::ZERO)).expect("SO_LINGER");
    }

    /// Sends a request and reads its answer. The method decides whether the answer has a body.
    #[track_caller]
    pub fn ask(&mut self, request: impl AsRef<[u8]>) -> Response {
        let request = request.as_ref();
        let method =
            request.split(|byte| *byte == b' ').next().map(String::from_utf8_lossy).unwrap_or_default();
        self.send(request);
        self.response(&method)
    }

    /// Reads one answer to a request with this method.
    #[track_caller]
    pub fn response(&mut self, method: &str) -> Response {
        self.try_response(method).unwrap_or_else(|error| {
            panic!("no answer to {method}: {error}; got {:?}", String::from_utf8_lossy(&self.buffer))
        })
    }

    pub fn try_response(&mut self, method: &str) -> io::Result<Response> {
        let head_length = self.until(b"\r\n\r\n", 0)?;
        let head = self.buffer[..head_length].to_vec();
        let status = std::str::from_utf8(&head).ok().and_then(|head| head.get(9..12)?.parse::<u16>().ok());
        let status = status.ok_or_else(|| io::Error::new(ErrorKind::InvalidData, "not an HTTP answer"))?;
        let connected = method == "CONNECT" && (200..300).contains(&status);
        let bodiless = method == "HEAD" || status < 200 || status == 204 || status == 304 || connected;
        let (length, body) = if bodiless {
            (head_length, Vec::new())
        } else if header(&head, "transfer-encoding")
            .is_some_and(|value| value.eq_ignore_ascii_case("chunked"))
        {
            self.chunked(head_length)?
        } else if let Some(length) =
            header(&head, "content-length").and_then(|value| value.parse::<usize>().ok())
        {
            self.fill(head_length + length)?;
            (head_length + length, self.buffer[head_length..head_length + length].to_vec())
        } else {
            while self.more()? > 0 {}
            (self.buffer.len(), self.buffer[head_length..].to_vec())
        };
        Ok(Response { status, raw: self.buffer.drain(..length).collect(), head_length, body })
    }

    /// Reads up to and including the first line end.
    #[track_caller]
    pub fn line(&mut self) -> String {
        let length =
            self.until(b"\n", 0).unwrap_or_else(|error| panic!("no line: {error}; got {:?}", self.buffer));
        String::from_utf8_lossy(&self.buffer.drain(..length).collect::<Vec<_>>()).into_owned()
    }

    /// Reads exactly `length` bytes.
    #[track_caller]
    pub fn exactly(&mut self, length: usize) -> Vec<u8> {
        self.fill(length)
            .unwrap_or_else(|error| panic!("{length} bytes: {error}; got {}", self.buffer.len()));
        self.buffer.drain(..length).collect()
    }

    /// Reads to the end of the stream.
    #[track_caller]
    pub fn rest(&mut self) -> Vec<u8> {
        self.try_rest().unwrap_or_else(|error| panic!("no end of stream: {error}"))
    }

    /// The same as text.
    #[track_caller]
    pub fn rest_text(&mut self) -> String {
        String::from_utf8_lossy(&self.rest()).into_owned()
    }

    pub fn try_rest(&mut self) -> io::Result<Vec<u8>> {
        while self.more()? > 0 {}
        Ok(std::mem::take(&mut self.buffer))
    }

    /// The length of a chunked message from its start, and its content.
    fn chunked(&mut self, head_length: usize) -> io::Result<(usize, Vec<u8>)> {
        let mut at = head_length;
        let mut body = Vec::new();
        loop {
            let line_end = self.until(b"\r\n", at)?;
            let line = String::from_utf8_lossy(&self.buffer[at..line_end]).into_owned();
            let size = usize::from_str_radix(line.split(';').next().unwrap_or_default().trim(), 16).map_err(
                |error| io::Error::new(ErrorKind::InvalidData, format!("chunk size {line:?}: {error}")),
            )?;
            at = line_end;
            if size == 0 {
                // Trailers, up to the empty line.
                loop {
                    let next = self.until(b"\r\n", at)?;
                    let empty = next == at + 2;
                    at = next;
                    if empty {
                        return Ok((at, body));
                    }
                }
            }
            self.fill(at + size + 2)?;
            body.extend_from_slice(&self.buffer[at..at + size]);
            at += size + 2;
        }
    }

    /// The end of the first `mark` at or after `from`.
    fn until(&mut self, mark: &[u8], from: usize) -> io::Result<usize> {
        let mut searched = from;
        loop {
            if let Some(at) = self.buffer[searched..].windows(mark.len()).position(|window| window == mark) {
                return Ok(searched + at + mark.len());
            }
            searched = self.buffer.len().saturating_sub(mark.len()).max(from);
            self.fill(self.buffer.len() + 1)?;
        }
    }

    fn fill(&mut self, length: usize) -> io::Result<()> {
        while self.buffer.len() < length {
            if self.more()? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(())
    }

    fn more(&mut self) -> io::Result<usize> {
        let mut chunk = [0; 64 * 1024];
        let length = loop {
            match self.stream.read(&mut chunk) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                outcome => break outcome?,
            }
        };
        self.buffer.extend_from_slice(&chunk[..length]);
        Ok(length)
    }
}

/// tcp(7): sets `TCP_DEFER_ACCEPT` for a second.
fn defer(socket: &Socket) -> io::Result<()> {
    let seconds: libc::c_int = 1;
    let length = size_of_val(&seconds) as libc::socklen_t;
    // SAFETY: the descriptor is open, and the kernel reads one integer.
    let failed = unsafe {
        let value = (&raw const seconds).cast();
        libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, value, length)
    };
    if failed == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn header<'a>(head: &'a [u8], name: &str) -> Option<&'a str> {
    let lines = std::str::from_utf8(head).ok()?.split("\r\n").skip(1);
    lines
        .filter_map(|line| line.split_once(':'))
        .find_map(|(key, value)| key.eq_ignore_ascii_case(name).then(|| value.trim()))
}
