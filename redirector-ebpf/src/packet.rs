//! Reads as much of a packet as the decision needs: addresses, ports, TCP flags.
//!
//! Offsets count from the network header (`BPF_HDR_START_NET`, kernel 4.18), so devices without an Ethernet
//! header (netkit, tun, WireGuard) read like any other.

use aya_ebpf::{
    EbpfContext as _, bindings::bpf_hdr_start_off::BPF_HDR_START_NET,
    helpers::generated::bpf_skb_load_bytes_relative, programs::TcContext,
};
use core::mem::MaybeUninit;
use network_types::ip::{Ipv4Hdr, Ipv6Hdr};
use redirector_common::{AddressBytes, v4_mapped};

pub const ETH_P_IP: u32 = 0x0800;
pub const ETH_P_IPV6: u32 = 0x86dd;

const IPPROTO_HOP_BY_HOP: u8 = 0;
pub const IPPROTO_TCP: u8 = 6;
const IPPROTO_ROUTING: u8 = 43;
const IPPROTO_FRAGMENT: u8 = 44;
const IPPROTO_DESTINATION: u8 = 60;

/// More extension headers than this do not occur in real traffic; such a packet goes to the app.
const MAX_EXTENSIONS: usize = 6;

/// The TCP segment in the packet. Plain fields rather than an enum of address families: the verifier follows
/// each byte, and loses its way in what the compiler makes of such an enum.
#[derive(Clone, Copy, Default)]
pub struct Segment {
    pub is_v6: bool,
    /// Network order; IPv4 is v4-mapped, as in the maps.
    pub source: AddressBytes,
    pub destination: AddressBytes,
    /// Network order, as the socket lookup wants it.
    pub source_port: [u8; 2],
    /// Network order.
    pub destination_port: [u8; 2],
    pub seq: u32,
    pub ack: u32,
    pub flags: u8,
    /// Offset of the TCP header from the network header.
    pub tcp_offset: u32,
    /// Length of the TCP header in bytes.
    pub tcp_header_len: u32,
}

pub const TCP_FIN: u8 = 0x01;
pub const TCP_SYN: u8 = 0x02;
pub const TCP_RST: u8 = 0x04;
pub const TCP_ACK: u8 = 0x10;
pub const TCP_URG: u8 = 0x20;

impl Segment {
    /// Bytes behind the TCP header, by what the IP header says. That of packets beyond 64 KiB (BIG TCP) does not say it, but they have
    /// no padding.
    #[inline(always)]
    pub fn payload_len(&self, ctx: &TcContext) -> Option<u32> {
        let [length] = if self.is_v6 { load::<[[u8; 2]; 1]>(ctx, 4)? } else { load::<[[u8; 2]; 1]>(ctx, 2)? };
        let length = u32::from(u16::from_be_bytes(length));
        let total = if length == 0 {
            // Nothing else may leave its length out, and the kernel drops what does.
            // SAFETY: `skb` is the context the kernel called us with.
            if unsafe { (*ctx.skb.skb).gso_size } == 0 {
                return None;
            }
            let link = link_len(ctx);
            if link == UNKNOWN_LINK {
                return None;
            }
            ctx.len().checked_sub(link)?
        } else if self.is_v6 {
            length + core::mem::size_of::<Ipv6Hdr>() as u32
        } else {
            length
        };
        total.checked_sub(self.payload_offset())
    }

    /// From the network header.
    #[inline(always)]
    pub fn payload_offset(&self) -> u32 {
        self.tcp_offset + self.tcp_header_len
    }
}

/// Something else than an Ethernet header, or nothing, is before the network header.
pub const UNKNOWN_LINK: u32 = u32::MAX;

/// Bytes before the network header: those of an Ethernet header, or none (netkit, tun), or [`UNKNOWN_LINK`].
#[inline(never)]
pub fn link_len(ctx: &TcContext) -> u32 {
    const ETHERNET: u32 = 14;
    let Some(network) = load::<[u64; 2]>(ctx, 0) else { return UNKNOWN_LINK };
    let at = |offset: u32| ctx.load::<[u64; 2]>(offset as usize).is_ok_and(|found| found == network);
    if at(ETHERNET) {
        ETHERNET
    } else if at(0) {
        0
    } else {
        UNKNOWN_LINK
    }
}

/// What a packet is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Parsed {
    /// A TCP segment.
    Segment,
    /// Not TCP over IP: none of our business.
    Other,
    /// TCP, but its header is not in this packet or not where it can be found.
    Unreadable,
}

/// The first 14 bytes of the TCP header: all that is needed of it.
#[repr(C)]
#[derive(Clone, Copy)]
struct TcpStart {
    source: [u8; 2],
    destination: [u8; 2],
    seq: [u8; 4],
    ack: [u8; 4],
    data_offset: u8,
    flags: u8,
}

/// Puts what it finds into `segment`: functions that return more than a number can't be called, only inlined.
#[inline(never)]
pub fn parse(ctx: &TcContext, segment: &mut Segment) -> Parsed {
    // A VLAN tag means that the packet belongs to a VLAN device, which has a program of its own and sees it
    // untagged. (In-band tags were moved out of the packet before TC ingress runs.)
    // SAFETY: `skb` is the context the kernel called us with.
    // VLAN 0 is only a priority: such packets are the device's own (IEEE 802.1Q §6.9).
    let vlan = unsafe { if (*ctx.skb.skb).vlan_present != 0 { (*ctx.skb.skb).vlan_tci & 0x0fff } else { 0 } };
    if vlan != 0 {
        return Parsed::Other;
    }
    match network_protocol(ctx) {
        ETH_P_IP => parse_v4(ctx, segment),
        ETH_P_IPV6 => parse_v6(ctx, segment),
        _ => Parsed::Other,
    }
}

/// An EtherType (`ETH_P_…` of linux/if_ether.h).
#[inline(always)]
pub fn network_protocol(ctx: &TcContext) -> u32 {
    // SAFETY: `skb` is the context the kernel called us with.
    u32::from(u16::from_be(unsafe { (*ctx.skb.skb).protocol } as u16))
}

#[inline(always)]
fn parse_v4(ctx: &TcContext, segment: &mut Segment) -> Parsed {
    let Some(ip) = load::<Ipv4Hdr>(ctx, 0) else { return Parsed::Other };
    if ip.proto != IPPROTO_TCP {
        return Parsed::Other;
    }
    // More-fragments flag or a fragment offset: the kernel reassembles later than this hook.
    let fragment = u16::from_be_bytes(ip.frags);
    if fragment & 0x3fff != 0 {
        return Parsed::Unreadable;
    }
    let header_len = u32::from(ip.vihl & 0x0f) * 4;
    segment.is_v6 = false;
    segment.source = v4_mapped(ip.src_addr);
    segment.destination = v4_mapped(ip.dst_addr);
    parse_tcp(ctx, segment, header_len)
}

#[inline(always)]
fn parse_v6(ctx: &TcContext, segment: &mut Segment) -> Parsed {
    let Some(ip) = load::<Ipv6Hdr>(ctx, 0) else { return Parsed::Other };
    let mut next = ip.next_hdr;
    let mut offset = core::mem::size_of::<Ipv6Hdr>() as u32;
    for _ in 0..MAX_EXTENSIONS {
        match next {
            IPPROTO_TCP => {
                segment.is_v6 = true;
                segment.source = ip.src_addr;
                segment.destination = ip.dst_addr;
                return parse_tcp(ctx, segment, offset);
            }
            IPPROTO_HOP_BY_HOP | IPPROTO_ROUTING | IPPROTO_DESTINATION => {
                let Some([following, len]) = load::<[u8; 2]>(ctx, offset) else { return Parsed::Unreadable };
                next = following;
                offset += (u32::from(len) + 1) * 8;
            }
            IPPROTO_FRAGMENT => return Parsed::Unreadable,
            _ => return Parsed::Other,
        }
    }
    Parsed::Unreadable
}

#[inline(always)]
fn parse_tcp(ctx: &TcContext, segment: &mut Segment, offset: u32) -> Parsed {
    let Some(tcp) = load::<TcpStart>(ctx, offset) else { return Parsed::Unreadable };
    segment.source_port = tcp.source;
    segment.destination_port = tcp.destination;
    segment.seq = u32::from_be_bytes(tcp.seq);
    segment.ack = u32::from_be_bytes(tcp.ack);
    segment.flags = tcp.flags;
    segment.tcp_offset = offset;
    segment.tcp_header_len = u32::from(tcp.data_offset >> 4) * 4;
    Parsed::Segment
}

/// Copies a `T` at `offset` from the network header out of the headers of the packet. (Payloads may be in pages, where only
/// offsets from the start of the packet reach: see [`link_len`].)
#[inline(always)]
pub fn load<T: Copy>(ctx: &TcContext, offset: u32) -> Option<T> {
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: the helper writes exactly `size_of::<T>()` bytes or fails; every `T` used here is plain bytes.
    unsafe {
        let failed = bpf_skb_load_bytes_relative(
            ctx.as_ptr(),
            offset,
            value.as_mut_ptr().cast(),
            core::mem::size_of::<T>() as u32,
            BPF_HDR_START_NET,
        );
        if failed == 0 { Some(value.assume_init()) } else { None }
    }
}
