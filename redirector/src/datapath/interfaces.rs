//! Network interfaces and addresses of the namespace the calling thread is in.

use super::rtnetlink;
use netlink_packet_route::{
    RouteNetlinkMessage,
    address::{AddressAttribute, AddressMessage},
    link::{LinkAttribute, LinkFlags, LinkMessage},
};
use std::{collections::BTreeSet, io, net::IpAddr};

/// An interface that traffic from outside can arrive on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Interface {
    pub index: u32,
    pub name: String,
}

/// All interfaces but loopback: traffic on `lo` is never taken, so that the agent reaches the app over it.
pub fn outside_interfaces() -> io::Result<BTreeSet<Interface>> {
    let mut found = BTreeSet::new();
    for answer in rtnetlink::dump(RouteNetlinkMessage::GetLink(LinkMessage::default()))? {
        let RouteNetlinkMessage::NewLink(link) = answer else { continue };
        if link.header.flags.contains(LinkFlags::Loopback) {
            continue;
        }
        let name = link.attributes.into_iter().find_map(|attribute| match attribute {
            LinkAttribute::IfName(name) => Some(name),
            _ => None,
        });
        if let Some(name) = name {
            found.insert(Interface { index: link.header.index, name });
        }
    }
    Ok(found)
}

/// All addresses of this namespace, those of `lo` included.
pub fn local_addresses() -> io::Result<BTreeSet<IpAddr>> {
    let mut found = BTreeSet::new();
    for answer in rtnetlink::dump(RouteNetlinkMessage::GetAddress(AddressMessage::default()))? {
        let RouteNetlinkMessage::NewAddress(address) = answer else { continue };
        // On point-to-point links `Address` is the peer and `Local` is ours; elsewhere they are equal, and
        // IPv6 has `Address` only.
        let local = address.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Local(ip) => Some(*ip),
            _ => None,
        });
        let address = address.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(ip) => Some(*ip),
            _ => None,
        });
        found.extend(local.or(address));
    }
    Ok(found)
}
