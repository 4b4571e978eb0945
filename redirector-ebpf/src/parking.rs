//! Door B: connections that are held, moving or parked.
//!
//! Order per packet: `HOLDS` first, then `FLOWS`. Whoever deletes the entry in `HOLDS` has the connection.

use aya_ebpf::{
    EbpfContext as _,
    bindings::{BPF_F_INGRESS, TC_ACT_SHOT, TC_ACT_UNSPEC},
    helpers::{
        bpf_ktime_get_ns,
        generated::{
            bpf_l3_csum_replace, bpf_l4_csum_replace, bpf_redirect, bpf_skb_change_tail, bpf_skb_store_bytes,
        },
    },
    macros::{classifier, map},
    maps::HashMap,
    programs::TcContext,
};
use redirector_common::{Flow, Held, Tuple};

use crate::{
    ingress::{agent_alive, app_socket_state},
    packet::{self, Parsed, Segment, TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN},
};

#[map]
pub static HOLDS: HashMap<Tuple, Held> = HashMap::with_max_entries(65_536, 1);

#[map]
pub static FLOWS: HashMap<Tuple, Flow> = HashMap::with_max_entries(262_144, 1);

/// The agent's ports for parked connections → the ports of their services.
#[map]
static AGENT_PORTS: HashMap<u16, u16> = HashMap::with_max_entries(512, 0);

/// A hung agent must not hold live traffic for longer.
const HOLD_DEADLINE_NS: u64 = 50_000_000;

/// Marks packets that the egress program has turned around: they are for the app's socket.
const TURNED_AROUND: u32 = 0x7265_6469;

const TCP_TIME_WAIT: u32 = 6;
pub const ETHERNET: u32 = 14;

/// What becomes of a packet that comes in.
pub enum Verdict {
    /// It is not one of a parked connection.
    Next,
    Pass,
    Drop,
}

pub fn ingress(ctx: &TcContext, segment: &Segment, tuple: &Tuple) -> Verdict {
    // SAFETY: `skb` is the context the kernel called us with.
    if unsafe { (*ctx.skb.skb).mark } == TURNED_AROUND {
        ctx.set_mark(0);
        return Verdict::Pass;
    }
    // SAFETY: the value is read once.
    if let Some(held) = unsafe { HOLDS.get(tuple) } {
        // SAFETY: no preconditions.
        let now = unsafe { bpf_ktime_get_ns() };
        if now.saturating_sub(held.at_ns) < HOLD_DEADLINE_NS || HOLDS.remove(tuple).is_err() {
            return Verdict::Drop;
        }
        let _ = FLOWS.remove(tuple);
        return Verdict::Pass;
    }
    // SAFETY: as above.
    let Some(flow) = (unsafe { FLOWS.get(tuple) }) else { return Verdict::Next };
    let agent_port = flow.agent_port;
    if flow.state == Flow::MOVING {
        if agent_alive() {
            return Verdict::Drop;
        }
        let _ = FLOWS.remove(tuple);
        return Verdict::Pass;
    }
    if segment.flags & (TCP_SYN | TCP_ACK) == TCP_SYN {
        let mut to_agent = *segment;
        to_agent.destination_port = agent_port.to_be_bytes();
        if matches!(app_socket_state(ctx, &to_agent), None | Some(TCP_TIME_WAIT)) {
            let _ = FLOWS.remove(tuple);
            return Verdict::Next;
        }
    }
    rewrite_port(ctx, segment.tcp_offset, 2, segment.destination_port, agent_port.to_be_bytes());
    Verdict::Pass
}

#[classifier]
pub fn redirector_egress(ctx: TcContext) -> i32 {
    let Parsed::Segment(segment) = packet::parse(&ctx) else { return TC_ACT_UNSPEC };
    let source_port = u16::from_be_bytes(segment.source_port);
    let mut tuple = Tuple {
        client: segment.destination,
        app: segment.source,
        client_port: u16::from_be_bytes(segment.destination_port),
        app_port: source_port,
    };
    // SAFETY: the value is read once.
    if let Some(port) = unsafe { AGENT_PORTS.get(&source_port) } {
        tuple.app_port = *port;
        // SAFETY: as above.
        if unsafe { FLOWS.get(&tuple) }.is_some_and(|flow| flow.agent_port == source_port) {
            rewrite_port(&ctx, segment.tcp_offset, 0, segment.source_port, tuple.app_port.to_be_bytes());
        }
        return TC_ACT_UNSPEC;
    }
    // SAFETY: as above.
    let Some(flow) = (unsafe { FLOWS.get(&tuple) }) else { return TC_ACT_UNSPEC };
    if flow.state == Flow::MOVING {
        return if agent_alive() { TC_ACT_SHOT } else { TC_ACT_UNSPEC };
    }
    answer(&ctx, &segment).unwrap_or(TC_ACT_SHOT)
}

fn rewrite_port(ctx: &TcContext, tcp_offset: u32, at: u32, from: [u8; 2], to: [u8; 2]) {
    const CHECKSUM: u32 = 16;
    let offset = ETHERNET + tcp_offset;
    // SAFETY: the pointers are valid for the lengths given with them.
    unsafe {
        let (from, to_word) = (u16::from_ne_bytes(from), u16::from_ne_bytes(to));
        bpf_l4_csum_replace(ctx.as_ptr().cast(), offset + CHECKSUM, u64::from(from), u64::from(to_word), 2);
        bpf_skb_store_bytes(ctx.as_ptr().cast(), offset + at, (&raw const to).cast(), 2, 0);
    }
}

#[repr(C)]
#[derive(Clone, Copy)]
struct TcpHeader {
    source: [u8; 2],
    destination: [u8; 2],
    seq: [u8; 4],
    ack: [u8; 4],
    data_offset: u8,
    flags: u8,
}

/// What the client would say to a segment of the app's old socket: that it has it.
fn answer(ctx: &TcContext, segment: &Segment) -> Option<i32> {
    if segment.flags & TCP_RST != 0 {
        return None;
    }
    let payload = segment.payload_len(ctx)?;
    let fin = u32::from(segment.flags & TCP_FIN != 0);
    if payload + fin == 0 {
        return None;
    }
    let old: TcpHeader = packet::load(ctx, segment.tcp_offset)?;
    let new = TcpHeader {
        source: old.destination,
        destination: old.source,
        seq: old.ack,
        ack: u32::from_be_bytes(old.seq).wrapping_add(payload + fin).to_be_bytes(),
        data_offset: old.data_offset,
        flags: TCP_ACK,
    };
    let macs: [[u8; 6]; 2] = packet::load_link(ctx, 0)?;
    let skb = ctx.as_ptr().cast();
    let store = |offset: u32, bytes: *const u8, len: u32| -> Option<()> {
        // SAFETY: the callers give `len` valid bytes.
        (unsafe { bpf_skb_store_bytes(skb, offset, bytes.cast(), len, 0) } == 0).then_some(())
    };
    let segment_len = segment.tcp_offset + segment.tcp_header_len;
    // SAFETY: no preconditions.
    if unsafe { bpf_skb_change_tail(skb, ETHERNET + segment_len, 0) } != 0 {
        return None;
    }
    let turned = [macs[1], macs[0]];
    store(0, turned.as_ptr().cast(), 12)?;
    store(ETHERNET + segment.tcp_offset, (&raw const new).cast(), 14)?;
    if segment.is_v6 {
        let addresses = [segment.destination, segment.source];
        store(ETHERNET + 8, addresses.as_ptr().cast(), 32)?;
        let length = ((segment_len - 40) as u16).to_be_bytes();
        store(ETHERNET + 4, length.as_ptr(), 2)?;
    } else {
        let old: [u8; 2] = packet::load(ctx, 2)?;
        let length = (segment_len as u16).to_be_bytes();
        // SAFETY: no preconditions.
        unsafe {
            let (old, new) = (u16::from_ne_bytes(old), u16::from_ne_bytes(length));
            bpf_l3_csum_replace(skb, ETHERNET + 10, u64::from(old), u64::from(new), 2);
        }
        store(ETHERNET + 2, length.as_ptr(), 2)?;
        let addresses: [[u8; 4]; 2] = packet::load(ctx, 12)?;
        let swapped = [addresses[1], addresses[0]];
        store(ETHERNET + 12, swapped.as_ptr().cast(), 8)?;
    }
    if segment.tcp_header_len >= 32 {
        // As Linux lays them out: two NOPs, then timestamps.
        let option: [u8; 4] = packet::load(ctx, segment.tcp_offset + 20)?;
        if option == [1, 1, 8, 10] {
            let clocks: [[u8; 4]; 2] = packet::load(ctx, segment.tcp_offset + 24)?;
            let swapped = [clocks[1], clocks[0]];
            store(ETHERNET + segment.tcp_offset + 24, swapped.as_ptr().cast(), 8)?;
        }
    }
    ctx.set_mark(TURNED_AROUND);
    // SAFETY: the context is valid.
    Some(unsafe { bpf_redirect((*ctx.skb.skb).ifindex, u64::from(BPF_F_INGRESS)) } as i32)
}
