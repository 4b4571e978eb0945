//! Door B: connections that are held, moving, or parked on the agent.
//!
//! `HOLDS` is looked at before `FLOWS`: a connection is the agent's only when its hold is gone.

use aya_ebpf::{
    EbpfContext as _,
    bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC},
    helpers::generated::{bpf_l4_csum_replace, bpf_skb_store_bytes},
    macros::map,
    maps::HashMap,
    programs::TcContext,
};
use redirector_common::{Flow, Tuple};

use crate::{
    answer,
    heartbeat::agent_alive,
    hold::{self, Hold},
    packet::{self, Segment, TCP_ACK, TCP_SYN},
    sockets::{self, TCP_TIME_WAIT},
};

/// Connections that the agent has, or is about to have.
#[map]
static FLOWS: HashMap<Tuple, Flow> = HashMap::with_max_entries(262_144, BPF_F_NO_PREALLOC);

/// The agent's ports for parked connections → the ports of their services.
#[map]
static AGENT_PORTS: HashMap<u16, u16> = HashMap::with_max_entries(512, 0);

const BPF_F_NO_PREALLOC: u32 = 1;
/// Offsets in the TCP header.
const SOURCE_PORT: u32 = 0;
const DESTINATION_PORT: u32 = 2;
const CHECKSUM: u32 = 16;

/// What becomes of a packet that comes in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Its connection is the app's.
    Next,
    Pass,
    Drop,
}

#[inline(never)]
pub fn ingress(ctx: TcContext, segment: &Segment) -> Verdict {
    let ctx = &ctx;
    let tuple = &segment.incoming();
    if answer::is_ours(ctx) {
        return Verdict::Pass;
    }
    match hold::check(tuple) {
        Hold::Stands => return Verdict::Drop,
        Hold::Ended => {
            // The agent may have begun to move it, and then been stopped.
            let _ = FLOWS.remove(tuple);
            return Verdict::Next;
        }
        Hold::None => {}
    }
    // SAFETY: the value is copied at once.
    let Some(Flow { state, agent_port, .. }) = (unsafe { FLOWS.get(tuple) }).copied() else {
        return Verdict::Next;
    };
    if state == Flow::MOVING {
        if agent_alive() {
            return Verdict::Drop;
        }
        let _ = FLOWS.remove(tuple);
        return Verdict::Next;
    }
    if segment.flags & (TCP_SYN | TCP_ACK) == TCP_SYN {
        let mut to_agent = *segment;
        to_agent.destination_port = agent_port.to_be_bytes();
        if matches!(sockets::state(ctx, &to_agent), None | Some(TCP_TIME_WAIT)) {
            // The client has used its port again.
            let _ = FLOWS.remove(tuple);
            return Verdict::Next;
        }
    }
    let tcp = segment.tcp_offset;
    replace_port(ctx, tcp + CHECKSUM, tcp + DESTINATION_PORT, tuple.app_port, agent_port);
    Verdict::Pass
}

/// `None`: neither the agent's, nor of a connection that it has.
#[inline(always)]
pub fn egress(ctx: &TcContext, segment: &Segment, tuple: &Tuple) -> Option<i32> {
    // SAFETY: the value is copied at once.
    if let Some(service_port) = unsafe { AGENT_PORTS.get(&tuple.app_port) }.copied() {
        let parked = Tuple { app_port: service_port, ..*tuple };
        // SAFETY: as above.
        if unsafe { FLOWS.get(&parked) }.is_some_and(|flow| flow.agent_port == tuple.app_port) {
            let tcp = segment.tcp_offset;
            replace_port(ctx, tcp + CHECKSUM, tcp + SOURCE_PORT, tuple.app_port, service_port);
        }
        return Some(TC_ACT_UNSPEC);
    }
    // Before `FLOWS`, as above: the agent that gives a connection back removes its hold last.
    let is_held = hold::is_held(tuple, segment.destination_port);
    // SAFETY: as above.
    let state = unsafe { FLOWS.get(tuple) }?.state;
    if state == Flow::MOVING {
        return Some(if agent_alive() { TC_ACT_SHOT } else { TC_ACT_UNSPEC });
    }
    // It may be about to become the agent's, or not: the app sends it again.
    Some(if is_held { TC_ACT_SHOT } else { answer::turn_around(ctx, segment) })
}

/// Where the agent's socket is, if the connection is parked.
#[inline(always)]
pub fn agent_port(tuple: &Tuple) -> Option<u16> {
    let is_held = hold::is_held(tuple, tuple.client_port.to_be_bytes());
    // SAFETY: the value is copied at once.
    let flow = unsafe { FLOWS.get(tuple) }.copied()?;
    (flow.state == Flow::PARKED && !is_held).then_some(flow.agent_port)
}

/// Both offsets are from the network header: of a checksum that covers the port, and of the port.
#[inline(never)]
pub fn replace_port(ctx: &TcContext, checksum: u32, port: u32, from: u16, to: u16) {
    let link = packet::link_len(ctx);
    if link == packet::UNKNOWN_LINK {
        return;
    }
    let (from, to) = (from.to_be(), to.to_be());
    let skb = ctx.as_ptr().cast();
    // SAFETY: the pointers are valid for the lengths given with them.
    unsafe {
        bpf_l4_csum_replace(skb, link + checksum, u64::from(from), u64::from(to), 2);
        bpf_skb_store_bytes(skb, link + port, (&raw const to).cast(), 2, 0);
    }
}
