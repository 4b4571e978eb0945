//! Makes a TCP packet that is at hand one that acknowledges and says nothing.

use aya_ebpf::{
    EbpfContext as _,
    helpers::generated::{bpf_l3_csum_replace, bpf_skb_change_tail, bpf_skb_store_bytes},
    programs::TcContext,
};
use core::mem::size_of;

use crate::packet::{self, Segment, TCP_ACK};

/// Offsets and lengths in the IPv4 header and the IPv6 header.
const V4_LENGTH: u32 = 2;
const V4_CHECKSUM: u32 = 10;
const V6_LENGTH: u32 = 4;
const V6_HEADER: u32 = 40;

/// The length of the TCP header without options, and with timestamps.
const FIXED: u32 = size_of::<TcpHeader>() as u32;
const WITH_TIMESTAMPS: u32 = FIXED + size_of::<Timestamps>() as u32;

/// NOP, NOP, timestamps, 10 bytes: as Linux lays the option out (RFC 7323 appendix A).
const TIMESTAMPS: [u8; 4] = [1, 1, 8, 10];

/// The TCP header without its options.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct TcpHeader {
    pub source: [u8; 2],
    pub destination: [u8; 2],
    pub seq: [u8; 4],
    pub ack: [u8; 4],
    pub data_offset: u8,
    pub flags: u8,
    pub window: [u8; 2],
    pub checksum: [u8; 2],
    pub urgent: [u8; 2],
}

/// The timestamps option (RFC 7323 §3.2).
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Timestamps {
    option: [u8; 4],
    pub value: [u8; 4],
    pub echo: [u8; 4],
}

/// All of it that makes a difference.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct BareAck {
    pub header: TcpHeader,
    /// Only if `header.data_offset` says so.
    pub timestamps: Timestamps,
}

impl BareAck {
    /// As an acknowledgement of the sender of `segment` would be that has the same sequence numbers, and no checksum yet.
    #[inline(always)]
    pub fn like(ctx: &TcContext, segment: &Segment) -> Option<Self> {
        let mut header: TcpHeader = packet::load(ctx, segment.tcp_offset)?;
        let mut timestamps = Timestamps { option: [0; 4], value: [0; 4], echo: [0; 4] };
        let mut len = FIXED;
        if segment.tcp_header_len >= WITH_TIMESTAMPS {
            let found: Timestamps = packet::load(ctx, segment.tcp_offset + FIXED)?;
            if found.option == TIMESTAMPS {
                timestamps = found;
                len = WITH_TIMESTAMPS;
            }
        }
        header.data_offset = ((len / 4) << 4) as u8;
        header.flags = TCP_ACK;
        header.checksum = [0, 0];
        header.urgent = [0, 0];
        Some(Self { header, timestamps })
    }

    /// Bytes of the TCP header.
    #[inline(always)]
    pub fn len(&self) -> u32 {
        if self.has_timestamps() { WITH_TIMESTAMPS } else { FIXED }
    }

    /// Makes the packet, which has `segment`, this one. `link`: see [`packet::link_len`].
    #[inline(always)]
    pub fn replace(&self, ctx: &TcContext, segment: &Segment, link: u32) -> Option<()> {
        let end = segment.tcp_offset + self.len();
        // SAFETY: the context is valid.
        if unsafe { bpf_skb_change_tail(ctx.as_ptr().cast(), link + end, 0) } != 0 {
            return None;
        }
        store(ctx, link + segment.tcp_offset, &self.header)?;
        if self.has_timestamps() {
            store(ctx, link + segment.tcp_offset + FIXED, &self.timestamps)?;
        }
        set_length(ctx, segment, link, end)
    }

    #[inline(always)]
    pub fn has_timestamps(&self) -> bool {
        u32::from(self.header.data_offset >> 4) * 4 == WITH_TIMESTAMPS
    }
}

/// Writes into the IP header that the packet ends so many bytes behind its beginning.
#[inline(always)]
pub fn set_length(ctx: &TcContext, segment: &Segment, link: u32, end: u32) -> Option<()> {
    if segment.is_v6 {
        return store(ctx, link + V6_LENGTH, &((end - V6_HEADER) as u16).to_be_bytes());
    }
    let old: [u8; 2] = packet::load(ctx, V4_LENGTH)?;
    let new = (end as u16).to_be_bytes();
    let (from, to) = (u64::from(u16::from_ne_bytes(old)), u64::from(u16::from_ne_bytes(new)));
    // SAFETY: the context is valid.
    if unsafe { bpf_l3_csum_replace(ctx.as_ptr().cast(), link + V4_CHECKSUM, from, to, 2) } != 0 {
        return None;
    }
    store(ctx, link + V4_LENGTH, &new)
}

/// `offset`: from the start of the packet.
#[inline(always)]
pub fn store<T>(ctx: &TcContext, offset: u32, value: &T) -> Option<()> {
    let from = (&raw const *value).cast();
    // SAFETY: the pointer is valid for the length given with it.
    let failed = unsafe { bpf_skb_store_bytes(ctx.as_ptr().cast(), offset, from, size_of::<T>() as u32, 0) };
    (failed == 0).then_some(())
}
