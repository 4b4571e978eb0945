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

const ETH_P_IP: u32 = 0x0800;
const ETH_P_IPV6: u32 = 0x86dd;

const IPPROTO_HOP_BY_HOP: u8 = 0;
const IPPROTO_TCP: u8 = 6;
const IPPROTO_ROUTING: u8 = 43;
const IPPROTO_FRAGMENT: u8 = 44;
const IPPROTO_DESTINATION: u8 = 60;

/// More extension headers than this do not occur in real traffic; such a packet goes to the app.
const MAX_EXTENSIONS: usize = 6;

/// The TCP segment in the packet. Plain fields rather than an enum of address families: the verifier follows
/// each byte, and loses its way in what the compiler makes of such an enum.
#[derive(Clone, Copy)]
pub struct Segment {
    pub is_v6: bool,
    /// Network order; IPv4 is v4-mapped, as in the maps.
    pub source: AddressBytes,
    pub destination: AddressBytes,
    /// Network order, as the socket lookup wants it.
    pub source_port: [u8; 2],
    /// Network order.
    pub destination_port: [u8; 2],
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

impl Segment {
    /// Bytes behind the TCP header, by the length that the IP header gives.
    pub fn payload_len(&self, ctx: &TcContext) -> Option<u32> {
        let total = if self.is_v6 {
            let length: [u8; 2] = load(ctx, 4)?;
            u32::from(u16::from_be_bytes(length)) + 40
        } else {
            let length: [u8; 2] = load(ctx, 2)?;
            u32::from(u16::from_be_bytes(length))
        };
        total.checked_sub(self.tcp_offset + self.tcp_header_len)
    }
}

pub enum Parsed {
    Segment(Segment),
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

#[inline(always)]
pub fn parse(ctx: &TcContext) -> Parsed {
    // A VLAN tag means that the packet belongs to a VLAN device, which has a program of its own and sees it
    // untagged. (In-band tags were moved out of the packet before TC ingress runs.)
    // SAFETY: `skb` is the context the kernel called us with.
    // VLAN 0 is only a priority: such packets are the device's own (IEEE 802.1Q §6.9).
    let vlan = unsafe { if (*ctx.skb.skb).vlan_present != 0 { (*ctx.skb.skb).vlan_tci & 0x0fff } else { 0 } };
    if vlan != 0 {
        return Parsed::Other;
    }
    // SAFETY: as above.
    match u32::from(u16::from_be(unsafe { (*ctx.skb.skb).protocol } as u16)) {
        ETH_P_IP => parse_v4(ctx),
        ETH_P_IPV6 => parse_v6(ctx),
        _ => Parsed::Other,
    }
}

#[inline(always)]
fn parse_v4(ctx: &TcContext) -> Parsed {
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
    parse_tcp(ctx, false, v4_mapped(ip.src_addr), v4_mapped(ip.dst_addr), header_len)
}

#[inline(always)]
fn parse_v6(ctx: &TcContext) -> Parsed {
    let Some(ip) = load::<Ipv6Hdr>(ctx, 0) else { return Parsed::Other };
    let mut next = ip.next_hdr;
    let mut offset = core::mem::size_of::<Ipv6Hdr>() as u32;
    for _ in 0..MAX_EXTENSIONS {
        match next {
            IPPROTO_TCP => return parse_tcp(ctx, true, ip.src_addr, ip.dst_addr, offset),
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
fn parse_tcp(
    ctx: &TcContext,
    is_v6: bool,
    source: AddressBytes,
    destination: AddressBytes,
    offset: u32,
) -> Parsed {
    let Some(tcp) = load::<TcpStart>(ctx, offset) else { return Parsed::Unreadable };
    Parsed::Segment(Segment {
        is_v6,
        source,
        destination,
        source_port: tcp.source,
        destination_port: tcp.destination,
        flags: tcp.flags,
        tcp_offset: offset,
        tcp_header_len: u32::from(tcp.data_offset >> 4) * 4,
    })
}

/// Copies a `T` at `offset` from the link-layer header out of the packet.
#[inline(always)]
pub fn load_link<T: Copy>(ctx: &TcContext, offset: u32) -> Option<T> {
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: as in `load`.
    unsafe {
        let failed = aya_ebpf::helpers::generated::bpf_skb_load_bytes(
            ctx.as_ptr(),
            offset,
            value.as_mut_ptr().cast(),
            core::mem::size_of::<T>() as u32,
        );
        if failed == 0 { Some(value.assume_init()) } else { None }
    }
}

/// Copies a `T` at `offset` from the network header out of the packet, also out of its paged part.
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
