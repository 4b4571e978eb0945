//! ICMP errors about parked connections: how large a packet may be on the way to the client, above all.
//!
//! A router quotes the packet as it was on the wire, with the service's port. The kernel would look for the app's socket,
//! and the agent's, whose packet it was, would send the same again and again.

use aya_ebpf::programs::TcContext;
use core::mem::size_of;
use network_types::ip::{Ipv4Hdr, Ipv6Hdr};
use redirector_common::{Tuple, v4_mapped};

use crate::{
    packet::{self, ETH_P_IP, ETH_P_IPV6, IPPROTO_TCP},
    parked,
};

const IPPROTO_ICMP: u8 = 1;
const IPPROTO_ICMPV6: u8 = 58;

/// Errors of RFC 792: destination unreachable (also: fragmentation needed), time exceeded, parameter problem.
const V4_ERRORS: [u8; 3] = [3, 11, 12];
/// Lower types of RFC 4443 §2.1 are errors.
const V6_INFORMATIONAL: u8 = 128;

/// Offset of the checksum in the ICMP header, and the length of that.
const CHECKSUM: u32 = 2;
const ICMP_HEADER: u32 = 8;

/// A packet that is no TCP segment comes in.
#[inline(never)]
pub fn ingress(ctx: TcContext) {
    let ctx = &ctx;
    let _ = match packet::network_protocol(ctx) {
        ETH_P_IP => v4(ctx),
        ETH_P_IPV6 => v6(ctx),
        _ => None,
    };
}

#[inline(always)]
fn v4(ctx: &TcContext) -> Option<()> {
    let ip: Ipv4Hdr = packet::load(ctx, 0)?;
    if ip.proto != IPPROTO_ICMP || is_fragment(&ip) {
        return None;
    }
    let icmp = header_len(&ip);
    let [kind] = packet::load::<[u8; 1]>(ctx, icmp)?;
    if kind != V4_ERRORS[0] && kind != V4_ERRORS[1] && kind != V4_ERRORS[2] {
        return None;
    }
    let quoted: Ipv4Hdr = packet::load(ctx, icmp + ICMP_HEADER)?;
    if quoted.proto != IPPROTO_TCP || is_fragment(&quoted) {
        return None;
    }
    let tcp = icmp + ICMP_HEADER + header_len(&quoted);
    let [source, destination]: [[u8; 2]; 2] = packet::load(ctx, tcp)?;
    let tuple = Tuple {
        client: v4_mapped(quoted.dst_addr),
        app: v4_mapped(quoted.src_addr),
        client_port: u16::from_be_bytes(destination),
        app_port: u16::from_be_bytes(source),
    };
    redirect(ctx, &tuple, icmp, tcp)
}

#[inline(always)]
fn v6(ctx: &TcContext) -> Option<()> {
    const FIXED: u32 = size_of::<Ipv6Hdr>() as u32;
    let ip: Ipv6Hdr = packet::load(ctx, 0)?;
    if ip.next_hdr != IPPROTO_ICMPV6 {
        return None;
    }
    let [kind] = packet::load::<[u8; 1]>(ctx, FIXED)?;
    if kind >= V6_INFORMATIONAL {
        return None;
    }
    // TCP sends no extension headers, unless an application asks for them.
    let quoted: Ipv6Hdr = packet::load(ctx, FIXED + ICMP_HEADER)?;
    if quoted.next_hdr != IPPROTO_TCP {
        return None;
    }
    let tcp = FIXED + ICMP_HEADER + FIXED;
    let [source, destination]: [[u8; 2]; 2] = packet::load(ctx, tcp)?;
    let tuple = Tuple {
        client: quoted.dst_addr,
        app: quoted.src_addr,
        client_port: u16::from_be_bytes(destination),
        app_port: u16::from_be_bytes(source),
    };
    redirect(ctx, &tuple, FIXED, tcp)
}

/// Puts the agent's port into the quoted segment. `icmp`, `tcp`: offsets from the network header.
#[inline(always)]
fn redirect(ctx: &TcContext, tuple: &Tuple, icmp: u32, tcp: u32) -> Option<()> {
    let agent_port = parked::agent_port(tuple)?;
    parked::replace_port(ctx, icmp + CHECKSUM, tcp, tuple.app_port, agent_port);
    Some(())
}

/// The first fragment of a packet has its TCP header, but no checksum that covers it.
#[inline(always)]
fn is_fragment(ip: &Ipv4Hdr) -> bool {
    u16::from_be_bytes(ip.frags) & 0x3fff != 0
}

#[inline(always)]
fn header_len(ip: &Ipv4Hdr) -> u32 {
    u32::from(ip.vihl & 0x0f) * 4
}
