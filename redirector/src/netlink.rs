//! Just enough of netlink(7) to dump nf_tables and to configure traffic control: framing without sockets, and a
//! blocking socket for it.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};
use thiserror::Error;

const HEADER: usize = 16;
const ATTRIBUTE_HEADER: usize = 4;
const NLA_TYPE_MASK: u16 = 0x3fff;
const NLA_F_NESTED: u16 = 0x8000;

/// One message without its header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub kind: u16,
    pub flags: u16,
    pub payload: Vec<u8>,
}

/// Bytes that do not have the shape that the protocol gives them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the kernel's answer is cut off or has an unknown shape")]
pub struct Malformed;

/// Splits what one `recv` returned.
///
/// # Errors
/// [`Malformed`] when a length does not fit.
pub fn messages(mut datagram: &[u8]) -> Result<Vec<Message>, Malformed> {
    let mut messages = Vec::new();
    while !datagram.is_empty() {
        let length = u32_at(datagram, 0)? as usize;
        let payload = datagram.get(HEADER..length).ok_or(Malformed)?.to_vec();
        messages.push(Message { kind: u16_at(datagram, 4)?, flags: u16_at(datagram, 6)?, payload });
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(messages)
}

/// The attributes in `bytes`, as kind (without the flag bits) and value.
///
/// # Errors
/// [`Malformed`] when a length does not fit.
pub fn attributes(mut bytes: &[u8]) -> Result<Vec<(u16, &[u8])>, Malformed> {
    let mut attributes = Vec::new();
    while !bytes.is_empty() {
        let length = usize::from(u16_at(bytes, 0)?);
        let value = bytes.get(ATTRIBUTE_HEADER..length).ok_or(Malformed)?;
        attributes.push((u16_at(bytes, 2)? & NLA_TYPE_MASK, value));
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(attributes)
}

/// A request under construction: what it asks for first, then attributes.
#[derive(Debug, Clone)]
pub struct Request {
    bytes: Vec<u8>,
}

impl Request {
    /// `fixed` is the family's own header, such as `nfgenmsg` or `tcmsg`. `flags` are added to `NLM_F_REQUEST`.
    #[must_use]
    pub fn new(kind: u16, flags: libc::c_int, fixed: &[u8]) -> Self {
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        let flags = flags | libc::NLM_F_REQUEST;
        bytes[6..8]
            .copy_from_slice(&flags.to_ne_bytes()[if cfg!(target_endian = "big") { 2..4 } else { 0..2 }]);
        bytes.extend_from_slice(fixed);
        Self { bytes }
    }

    #[must_use]
    pub fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        self.push(kind, value);
        self
    }

    /// An attribute whose value is attributes.
    #[must_use]
    pub fn nested(mut self, kind: u16, values: &[(u16, &[u8])]) -> Self {
        let mut inner = Self { bytes: Vec::new() };
        for (kind, value) in values {
            inner.push(*kind, value);
        }
        self.push(kind | NLA_F_NESTED, &inner.bytes);
        self
    }

    fn push(&mut self, kind: u16, value: &[u8]) {
        // Callers put names and numbers here; the kernel itself refuses what does not fit into 16 bits.
        let length = u16::try_from(ATTRIBUTE_HEADER + value.len()).unwrap_or(u16::MAX);
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        let length = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        self.bytes[0..4].copy_from_slice(&length.to_ne_bytes());
        self.bytes
    }
}

/// A netlink socket of the network namespace that the opening thread was in.
#[derive(Debug)]
pub struct Socket(OwnedFd);

impl Socket {
    /// # Errors
    /// Those of `socket(2)`; `EPROTONOSUPPORT` when the kernel lacks the family.
    pub fn open(protocol: SockProtocol) -> io::Result<Self> {
        Ok(Self(socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?))
    }

    /// Sends a dump request and collects all parts of the answer, asking again when the kernel says that what it
    /// listed changed meanwhile.
    ///
    /// # Errors
    /// The error that the kernel answers with; `InvalidData` for an answer that is [`Malformed`].
    pub fn dump(&self, request: &Request) -> io::Result<Vec<Message>> {
        const ATTEMPTS: usize = 5;
        for _ in 0..ATTEMPTS {
            if let Some(messages) = self.dump_once(request)? {
                return Ok(messages);
            }
        }
        Err(io::Error::from(io::ErrorKind::ResourceBusy))
    }

    /// Sends a request that has `NLM_F_ACK` and waits for the kernel's word.
    ///
    /// # Errors
    /// The error that the kernel answers with.
    pub fn acknowledged(&self, request: Request) -> io::Result<()> {
        self.send(request)?;
        loop {
            for message in self.receive()? {
                if i32::from(message.kind) == libc::NLMSG_ERROR {
                    return acknowledgement(&message);
                }
            }
        }
    }

    /// Sends a request that has one answer.
    ///
    /// # Errors
    /// The error that the kernel answers with; `InvalidData` for an answer that is [`Malformed`].
    pub fn ask(&self, request: &Request) -> io::Result<Message> {
        self.send(request.clone())?;
        let message = self.receive()?.into_iter().next();
        let message = message.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, Malformed))?;
        if i32::from(message.kind) == libc::NLMSG_ERROR {
            acknowledgement(&message)?;
        }
        Ok(message)
    }

    /// `None` when the dump was interrupted by a change.
    fn dump_once(&self, request: &Request) -> io::Result<Option<Vec<Message>>> {
        self.send(request.clone())?;
        let mut all = Vec::new();
        let mut interrupted = false;
        loop {
            for message in self.receive()? {
                interrupted |= i32::from(message.flags) & libc::NLM_F_DUMP_INTR != 0;
                match i32::from(message.kind) {
                    libc::NLMSG_ERROR => {
                        return acknowledgement(&message).map(|()| Some(all));
                    }
                    libc::NLMSG_DONE => return Ok((!interrupted).then_some(all)),
                    _ => all.push(message),
                }
            }
        }
    }

    fn send(&self, request: Request) -> io::Result<()> {
        send(self.0.as_raw_fd(), &request.finish(), MsgFlags::empty())?;
        Ok(())
    }

    fn receive(&self) -> io::Result<Vec<Message>> {
        // With MSG_PEEK and MSG_TRUNC the kernel tells the true length and keeps the datagram.
        let length = recv(self.0.as_raw_fd(), &mut [], MsgFlags::MSG_PEEK | MsgFlags::MSG_TRUNC)?;
        let mut datagram = vec![0; length];
        let length = recv(self.0.as_raw_fd(), &mut datagram, MsgFlags::empty())?;
        datagram.truncate(length);
        messages(&datagram).map_err(|malformed| io::Error::new(io::ErrorKind::InvalidData, malformed))
    }
}

/// The kernel's `nlmsgerr`: 0 or a negative error number.
fn acknowledgement(message: &Message) -> io::Result<()> {
    let code = u32_at(&message.payload, 0)
        .map_err(|malformed| io::Error::new(io::ErrorKind::InvalidData, malformed))?
        .cast_signed();
    if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(-code)) }
}

fn u16_at(bytes: &[u8], at: usize) -> Result<u16, Malformed> {
    let field = bytes.get(at..at + 2).and_then(|field| field.try_into().ok());
    field.map(u16::from_ne_bytes).ok_or(Malformed)
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32, Malformed> {
    let field = bytes.get(at..at + 4).and_then(|field| field.try_into().ok());
    field.map(u32::from_ne_bytes).ok_or(Malformed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_request_reads_back_as_built() {
        let request = Request::new(7, libc::NLM_F_DUMP, &[1, 0, 0, 0])
            .attribute(3, b"abcde")
            .nested(2, &[(1, b"x"), (9, b"yz")]);
        let [message] = messages(&request.finish()).unwrap().try_into().unwrap();
        assert_eq!((message.kind, i32::from(message.flags)), (7, libc::NLM_F_REQUEST | libc::NLM_F_DUMP));
        let [(3, b"abcde"), (2, nested)] = attributes(&message.payload[4..]).unwrap()[..] else {
            panic!("{message:?}");
        };
        assert_eq!(attributes(nested).unwrap(), [(1, b"x".as_slice()), (9, b"yz")]);
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_framing_fail(bytes in prop::collection::vec(0u8..40, 0..200)) {
            for message in messages(&bytes).unwrap_or_default() {
                let _ = attributes(&message.payload);
            }
        }
    }
}
