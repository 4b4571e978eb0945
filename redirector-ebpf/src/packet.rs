//! Reads as much of a packet as the decision needs: addresses, ports, TCP flags.
//!
//! Offsets count from the network header (`BPF_HDR_START_NET`, kernel 4.18), so devices without an Ethernet
//! header (netkit, tun, WireGuard) read like any other.

use aya_ebpf::{
    EbpfContext as _,
    bindings::{__sk_buff, bpf_hdr_start_off::BPF_HDR_START_NET},
    helpers::generated::bpf_skb_load_bytes_relative,
    programs::TcContext,
};
use core::mem::MaybeUninit;
use redirector_common::{AddressBytes, Tuple, word_at};

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
#[repr(C, align(8))]
#[derive(Clone, Copy)]
pub struct Segment {
    /// Network order; IPv4 is v4-mapped, as in the maps.
    pub source: AddressBytes,
    pub destination: AddressBytes,
    /// Network order. (The four fields so far are in the order of the kernel's `bpf_sock_tuple`: see `sockets`.)
    pub source_port: [u8; 2],
    /// Network order.
    pub destination_port: [u8; 2],
    pub seq: u32,
    pub ack: u32,
    /// Offset of the TCP header from the network header.
    pub tcp_offset: u32,
    /// Length of the TCP header in bytes.
    pub tcp_header_len: u32,
    /// Bytes of the packet from the network header on, by what the IP header says; 0: it does not say it.
    pub total_len: u32,
    /// Bytes before the network header, see [`link_len`]; set by [`seen`] only.
    pub link: u32,
    pub flags: u8,
    pub is_v6: bool,
    /// Always zero.
    pub padding: u16,
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
        let total = if self.total_len == 0 {
            // Nothing else may leave its length out, and the kernel drops what does.
            // SAFETY: `skb` is the context the kernel called us with.
            if unsafe { (*ctx.skb.skb).gso_size } == 0 {
                return None;
            }
            if self.link == UNKNOWN_LINK {
                return None;
            }
            ctx.len().checked_sub(self.link)?
        } else {
            self.total_len
        };
        total.checked_sub(self.payload_offset())
    }

    /// The connection of a segment that comes in.
    #[inline(always)]
    pub fn incoming(&self) -> Tuple {
        Tuple {
            client: self.source,
            app: self.destination,
            client_port: u16::from_be_bytes(self.source_port),
            app_port: u16::from_be_bytes(self.destination_port),
        }
    }

    /// The connection of a segment that leaves.
    #[inline(always)]
    pub fn outgoing(&self) -> Tuple {
        Tuple {
            client: self.destination,
            app: self.source,
            client_port: u16::from_be_bytes(self.destination_port),
            app_port: u16::from_be_bytes(self.source_port),
        }
    }

    /// From the network header.
    #[inline(always)]
    pub fn payload_offset(&self) -> u32 {
        self.tcp_offset + self.tcp_header_len
    }
}

/// Something else than an Ethernet header, or nothing, is before the network header.
pub const UNKNOWN_LINK: u32 = u32::MAX;

const ETHERNET: u32 = 14;

/// Bytes before the network header: those of an Ethernet header, or none (netkit, tun), or [`UNKNOWN_LINK`].
#[inline(always)]
pub fn link_len(ctx: &TcContext) -> u32 {
    let Some(network) = load::<[u64; 2]>(ctx, 0) else { return UNKNOWN_LINK };
    if starts_at(ctx, ETHERNET, network) {
        ETHERNET
    } else if starts_at(ctx, 0, network) {
        0
    } else {
        UNKNOWN_LINK
    }
}

/// The packet has these bytes there.
#[inline(always)]
fn starts_at(ctx: &TcContext, offset: u32, bytes: [u64; 2]) -> bool {
    let at = ctx.data() + offset as usize;
    if at + 16 > ctx.data_end() {
        return false;
    }
    let at = at as *const u8;
    // SAFETY: so many bytes are there.
    unsafe { word_at(at) == bytes[0] && word_at(at.add(8)) == bytes[1] }
}

/// What a packet is. Numbers, because functions are to return numbers.
pub type Parsed = u32;
/// A TCP segment.
pub const SEGMENT: Parsed = 0;
/// Not TCP over IP: none of our business.
pub const OTHER: Parsed = 1;
/// TCP, but its header is not in this packet or not where it can be found.
pub const UNREADABLE: Parsed = 2;

/// The first byte of an IPv4 header without options.
const NO_OPTIONS: u8 = 0x45;

/// The IPv4 header without options.
#[repr(C)]
#[derive(Clone, Copy)]
struct Ipv4 {
    version_and_len: u8,
    service: u8,
    total_len: u16,
    id: u16,
    fragment: u16,
    ttl: u8,
    protocol: u8,
    checksum: u16,
    source: [u32; 1],
    destination: [u32; 1],
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Ipv6 {
    version: u32,
    payload_len: u16,
    next_header: u8,
    hops: u8,
    source: [u32; 4],
    destination: [u32; 4],
}

/// The TCP header without options.
#[repr(C)]
#[derive(Clone, Copy)]
struct Tcp {
    source: [u8; 2],
    destination: [u8; 2],
    seq: u32,
    ack: u32,
    data_offset: u8,
    flags: u8,
    window: u16,
    checksum: u16,
    urgent: u16,
}

/// The two headers, when nothing is between them: one load instead of two.
#[repr(C)]
#[derive(Clone, Copy)]
struct Both<Ip> {
    ip: Ip,
    tcp: Tcp,
}

/// Parses the packet; shows the segment to `then` if it is one.
#[inline(always)]
pub fn parsed(ctx: &TcContext, then: impl FnOnce(&Segment) -> i32) -> Result<i32, Parsed> {
    // Not filled with zeros, which a loop would do byte by byte.
    let mut segment = MaybeUninit::uninit();
    match parse(ctx, segment.as_mut_ptr()) {
        // SAFETY: then it is written.
        SEGMENT => Ok(then(unsafe { segment.assume_init_ref() })),
        other => Err(other),
    }
}

/// As [`parsed`], and faster, for programs that are on the way of all packets. (It needs kernel 6.3.)
#[inline(always)]
pub fn seen(ctx: &TcContext, then: impl FnOnce(&mut Segment) -> i32) -> Result<i32, Parsed> {
    let mut segment = MaybeUninit::uninit();
    match redirector_see(ctx.skb.skb, segment.as_mut_ptr()) {
        // SAFETY: then it is written.
        SEGMENT => Ok(then(unsafe { segment.assume_init_mut() })),
        other => Err(other),
    }
}

/// Exported, so that the verifier looks at it by itself, and at what follows once for all kinds of packets.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn redirector_see(packet: *mut __sk_buff, segment: *mut Segment) -> Parsed {
    if packet.is_null() || segment.is_null() {
        return OTHER;
    }
    let ctx = &TcContext::new(packet);
    // SAFETY: valid, and only written to before it is read.
    let seen = unsafe { &mut *segment };
    if see_ethernet(ctx, seen) {
        return SEGMENT;
    }
    seen.link = link_len(ctx);
    parse(ctx, segment)
}

/// Reads the headers of the most common kind of packet where they are, without a copy: an Ethernet header, IP without
/// options or extensions, TCP. False: it is none of these, or not surely.
#[inline(always)]
fn see_ethernet(ctx: &TcContext, segment: &mut Segment) -> bool {
    const HEADERS_V4: usize = size_of::<Both<Ipv4>>();
    const HEADERS_V6: usize = size_of::<Both<Ipv6>>();
    let (packet, end) = (ctx.data(), ctx.data_end());
    if packet + ETHERNET as usize + HEADERS_V4 > end || is_of_vlan(ctx) {
        return false;
    }
    let bytes = packet as *const u8;
    // SAFETY: so many bytes are there.
    let word = |at: usize| unsafe { word_at(bytes.add(at)) };
    // SAFETY: as above.
    let [is_group, ether_type_high, ether_type_low, version] =
        unsafe { [*bytes & 1, *bytes.add(12), *bytes.add(13), *bytes.add(14)] };
    let ether_type = u32::from(ether_type_high) << 8 | u32::from(ether_type_low);
    let ip = ETHERNET as usize;
    // What has no Ethernet header could pass for it in part. But the first byte of IPv4 without options would be a group
    // address here; and by its length the rest is found out.
    if is_group != 0 || ether_type != network_protocol(ctx) {
        return false;
    }
    let len = ctx.len().wrapping_sub(ETHERNET);
    if ether_type == ETH_P_IP && version == NO_OPTIONS {
        // SAFETY: the same size, and all bit patterns are valid.
        let Both { ip, tcp } = unsafe {
            core::mem::transmute::<[u64; 5], Both<Ipv4>>([
                word(ip),
                word(ip + 8),
                word(ip + 16),
                word(ip + 24),
                word(ip + 32),
            ])
        };
        if ip.protocol != IPPROTO_TCP || is_fragment(&ip) || u32::from(u16::from_be(ip.total_len)) != len {
            return false;
        }
        set_v4(segment, &ip);
        set_tcp(segment, &tcp, size_of::<Ipv4>() as u32);
    } else if ether_type == ETH_P_IPV6 && packet + ETHERNET as usize + HEADERS_V6 <= end {
        // SAFETY: the same size, and all bit patterns are valid. (The last word begins within the one before.)
        let (ip, tcp) = unsafe {
            (
                core::mem::transmute::<[u64; 5], Ipv6>([
                    word(ip),
                    word(ip + 8),
                    word(ip + 16),
                    word(ip + 24),
                    word(ip + 32),
                ]),
                core::mem::transmute::<[u32; 5], Tcp>([
                    word(ip + 40) as u32,
                    (word(ip + 40) >> 32) as u32,
                    word(ip + 48) as u32,
                    (word(ip + 48) >> 32) as u32,
                    (word(ip + 52) >> 32) as u32,
                ]),
            )
        };
        let total_len = u32::from(u16::from_be(ip.payload_len)) + size_of::<Ipv6>() as u32;
        if ip.next_header != IPPROTO_TCP || total_len != len {
            return false;
        }
        set_v6(segment, &ip);
        set_tcp(segment, &tcp, size_of::<Ipv6>() as u32);
    } else {
        return false;
    }
    segment.link = ETHERNET;
    true
}

/// Puts what it finds into `segment`: functions that return more than a number can't be called, only inlined.
#[inline(never)]
fn parse(ctx: &TcContext, segment: *mut Segment) -> Parsed {
    // SAFETY: valid, and only written to before it is read.
    let segment = unsafe { &mut *segment };
    if is_of_vlan(ctx) {
        return OTHER;
    }
    match network_protocol(ctx) {
        ETH_P_IP => parse_v4(ctx, segment),
        ETH_P_IPV6 => parse_v6(ctx, segment),
        _ => OTHER,
    }
}

#[inline(always)]
fn is_of_vlan(ctx: &TcContext) -> bool {
    // A VLAN tag means that the packet belongs to a VLAN device, which has a program of its own and sees it
    // untagged. (In-band tags were moved out of the packet before TC ingress runs.)
    // SAFETY: `skb` is the context the kernel called us with.
    // VLAN 0 is only a priority: such packets are the device's own (IEEE 802.1Q §6.9).
    let vlan = unsafe { if (*ctx.skb.skb).vlan_present != 0 { (*ctx.skb.skb).vlan_tci & 0x0fff } else { 0 } };
    vlan != 0
}

/// An EtherType (`ETH_P_…` of linux/if_ether.h).
#[inline(always)]
pub fn network_protocol(ctx: &TcContext) -> u32 {
    // SAFETY: `skb` is the context the kernel called us with.
    u32::from(u16::from_be(unsafe { (*ctx.skb.skb).protocol } as u16))
}

#[inline(always)]
fn parse_v4(ctx: &TcContext, segment: &mut Segment) -> Parsed {
    if let Some(Both { ip, tcp }) = load::<Both<Ipv4>>(ctx, 0)
        && ip.version_and_len == NO_OPTIONS
        && ip.protocol == IPPROTO_TCP
        && !is_fragment(&ip)
    {
        set_v4(segment, &ip);
        set_tcp(segment, &tcp, core::mem::size_of::<Ipv4>() as u32);
        return SEGMENT;
    }
    let Some(ip) = load::<Ipv4>(ctx, 0) else { return OTHER };
    if ip.protocol != IPPROTO_TCP {
        return OTHER;
    }
    if is_fragment(&ip) {
        return UNREADABLE;
    }
    set_v4(segment, &ip);
    parse_tcp(ctx, segment, u32::from(ip.version_and_len & 0x0f) * 4)
}

/// More-fragments flag or a fragment offset: the kernel reassembles later than this hook.
#[inline(always)]
fn is_fragment(ip: &Ipv4) -> bool {
    u16::from_be(ip.fragment) & 0x3fff != 0
}

#[inline(always)]
fn set_v4(segment: &mut Segment, ip: &Ipv4) {
    // As two words: of zeros side by side the compiler makes a call.
    let mapped = |address: [u32; 1]| {
        let low = u64::from(0xffff_u32.to_be()) | u64::from(address[0]) << 32;
        // SAFETY: same size, and every bit pattern is a valid array of bytes.
        unsafe { core::mem::transmute::<[u64; 2], AddressBytes>([0, low]) }
    };
    segment.is_v6 = false;
    segment.source = mapped(ip.source);
    segment.destination = mapped(ip.destination);
    segment.total_len = u32::from(u16::from_be(ip.total_len));
}

#[inline(always)]
fn parse_v6(ctx: &TcContext, segment: &mut Segment) -> Parsed {
    const HEADER: u32 = core::mem::size_of::<Ipv6>() as u32;
    if let Some(Both { ip, tcp }) = load::<Both<Ipv6>>(ctx, 0)
        && ip.next_header == IPPROTO_TCP
    {
        set_v6(segment, &ip);
        set_tcp(segment, &tcp, HEADER);
        return SEGMENT;
    }
    let Some(ip) = load::<Ipv6>(ctx, 0) else { return OTHER };
    let mut next = ip.next_header;
    let mut offset = HEADER;
    for _ in 0..MAX_EXTENSIONS {
        match next {
            IPPROTO_TCP => {
                set_v6(segment, &ip);
                return parse_tcp(ctx, segment, offset);
            }
            IPPROTO_HOP_BY_HOP | IPPROTO_ROUTING | IPPROTO_DESTINATION => {
                let Some([following, len]) = load::<[u8; 2]>(ctx, offset) else { return UNREADABLE };
                next = following;
                offset += (u32::from(len) + 1) * 8;
            }
            IPPROTO_FRAGMENT => return UNREADABLE,
            _ => return OTHER,
        }
    }
    UNREADABLE
}

#[inline(always)]
fn set_v6(segment: &mut Segment, ip: &Ipv6) {
    let payload_len = u32::from(u16::from_be(ip.payload_len));
    segment.is_v6 = true;
    segment.source = bytes(ip.source);
    segment.destination = bytes(ip.destination);
    segment.total_len = if payload_len == 0 { 0 } else { payload_len + core::mem::size_of::<Ipv6>() as u32 };
}

#[inline(always)]
fn parse_tcp(ctx: &TcContext, segment: &mut Segment, offset: u32) -> Parsed {
    let Some(tcp) = load::<Tcp>(ctx, offset) else { return UNREADABLE };
    set_tcp(segment, &tcp, offset);
    SEGMENT
}

#[inline(always)]
fn set_tcp(segment: &mut Segment, tcp: &Tcp, offset: u32) {
    segment.source_port = tcp.source;
    segment.destination_port = tcp.destination;
    segment.seq = u32::from_be(tcp.seq);
    segment.ack = u32::from_be(tcp.ack);
    segment.flags = tcp.flags;
    segment.tcp_offset = offset;
    segment.tcp_header_len = u32::from(tcp.data_offset >> 4) * 4;
    segment.padding = 0;
}

#[inline(always)]
fn bytes(address: [u32; 4]) -> AddressBytes {
    // SAFETY: same size, and every bit pattern is a valid array of bytes.
    unsafe { core::mem::transmute(address) }
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
