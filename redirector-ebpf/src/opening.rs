//! Data that comes before the app has a socket: the segment that ends the handshake has a request in it.
//!
//! So it is behind `TCP_DEFER_ACCEPT`, for which the kernel drops the client's bare acknowledgement and waits for data, and
//! where that was lost or never sent. Held back, it would meet the same again when the client sends it again; passed on, the
//! app has it. So a bare acknowledgement is made of it, which opens the socket, and a copy comes in once more right behind
//! it, on a connection that is like any other then.

use aya_ebpf::{
    EbpfContext as _, bindings::BPF_F_INGRESS, helpers::generated::bpf_clone_redirect, programs::TcContext,
};

use redirector_common::Counter;

use crate::{
    bare_ack::BareAck,
    checksum,
    counters::count,
    heartbeat::agent_alive,
    packet::{Segment, TCP_ACK},
};

/// The mark of copies, until they come in. Packets from outside have none.
const COPY: u32 = 0x7265_6f70;

/// The packet is the copy of one that opened a socket, or was to.
#[inline(always)]
pub fn is_copy(ctx: &TcContext) -> bool {
    // SAFETY: the context is the one the kernel called us with.
    let copy = unsafe { (*ctx.skb.skb).mark } == COPY;
    if copy {
        ctx.set_mark(0);
    }
    copy
}

/// Makes the packet one that opens the socket, and has a copy of it come in. True: that failed half way, drop it. Not
/// inlined: it would take room on the stack from what is called on the way of every packet.
#[inline(never)]
pub fn open(ctx: &TcContext, segment: &Segment, link: u32) -> bool {
    if segment.flags & TCP_ACK == 0 {
        return false;
    }
    if !agent_alive() {
        count(Counter::AgentSilent);
        return false;
    }
    let Some(ack) = acknowledgement(ctx, segment) else { return false };
    ctx.set_mark(COPY);
    // SAFETY: the context is valid.
    let failed = unsafe {
        bpf_clone_redirect(ctx.as_ptr().cast(), (*ctx.skb.skb).ifindex, u64::from(BPF_F_INGRESS)) != 0
    };
    ctx.set_mark(0);
    !failed && ack.replace(ctx, segment, link).is_none()
}

/// Behind the first byte, as if that had come already: a bare acknowledgement before it is what the kernel drops. The
/// socket expects the first byte all the same.
#[inline(always)]
fn acknowledgement(ctx: &TcContext, segment: &Segment) -> Option<BareAck> {
    let mut ack = BareAck::like(ctx, segment)?;
    ack.header.seq = segment.seq.wrapping_add(1).to_be_bytes();
    ack.header.checksum = checksum::of_bare_ack(segment, &ack)?;
    Some(ack)
}
