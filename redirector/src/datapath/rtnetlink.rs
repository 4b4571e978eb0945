//! Synchronous rtnetlink requests in the namespace of the calling thread.

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use std::io;

/// Sends `request` as a dump and returns all that the kernel answers. Asks again when the kernel says that what it
/// listed changed meanwhile: an address that is missed for that would go unserved until the next look.
pub fn dump(request: RouteNetlinkMessage) -> io::Result<Vec<RouteNetlinkMessage>> {
    const ATTEMPTS: usize = 5;
    for _ in 0..ATTEMPTS {
        let (answers, whole) = exchange(request.clone(), NLM_F_REQUEST | NLM_F_DUMP)?;
        if whole {
            return Ok(answers);
        }
    }
    Err(io::ErrorKind::ResourceBusy.into())
}

/// Sends `request` and waits for the kernel's acknowledgement.
pub fn execute(request: RouteNetlinkMessage) -> io::Result<()> {
    exchange(request, NLM_F_REQUEST | NLM_F_ACK).map(drop)
}

/// The answers, and whether they are one consistent picture.
fn exchange(request: RouteNetlinkMessage, flags: u16) -> io::Result<(Vec<RouteNetlinkMessage>, bool)> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;

    let mut header = NetlinkHeader::default();
    header.flags = flags;
    header.sequence_number = 1;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(request));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send(&bytes, 0)?;

    let mut answers = Vec::new();
    let mut whole = true;
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        let mut rest = datagram.as_slice();
        while !rest.is_empty() {
            let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            // Messages are aligned to four bytes; the last one may lack its padding.
            let len = (message.header.length as usize).next_multiple_of(4).min(rest.len());
            if len == 0 {
                return Err(io::ErrorKind::InvalidData.into());
            }
            rest = &rest[len..];
            whole &= message.header.flags & NLM_F_DUMP_INTR == 0;
            match message.payload {
                NetlinkPayload::Done(_) => return Ok((answers, whole)),
                NetlinkPayload::Error(error) if error.code.is_none() => return Ok((answers, whole)),
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                NetlinkPayload::InnerMessage(inner) => answers.push(inner),
                _ => {}
            }
        }
    }
}
