//! The app asks who its peer is, and gets the client instead of the agent.
//!
//! `getpeername` hooks (kernel 5.8) also run for the address that `accept` returns.

use aya_ebpf::{
    EbpfContext as _,
    helpers::generated::bpf_get_netns_cookie,
    macros::{cgroup_sock_addr, map},
    maps::{Array, HashMap},
    programs::SockAddrContext,
};
use redirector_common::{AddressBytes, ClientAddress, PORT_WORDS, UpstreamKey, port_bit, v4_mapped};

const BPF_F_NO_PREALLOC: u32 = 1;

/// The agent's connections to apps → the clients behind them.
#[map]
static CLIENTS: HashMap<UpstreamKey, ClientAddress> = HashMap::with_max_entries(1 << 20, BPF_F_NO_PREALLOC);

/// The ports that the agent has in `CLIENTS`. All the node's connections are looked up when they are accepted, and nearly none of them is
/// the agent's: this is small enough to stay in the processor's cache.
#[map]
static UPSTREAM_PORTS: Array<u64> = Array::with_max_entries(PORT_WORDS, 0);

/// The only verdict that the kernel's verifier accepts here.
const PROCEED: i32 = 1;

#[cgroup_sock_addr(getpeername4)]
pub fn redirector_peer4(ctx: SockAddrContext) -> i32 {
    // SAFETY: the context is valid for the run of the program; these fields may be accessed by this hook.
    unsafe {
        let sock_addr = ctx.sock_addr;
        let sk = (*sock_addr).__bindgen_anon_1.sk;
        if sk.is_null() {
            return PROCEED;
        }
        let agent_port = u16::from_be((*sock_addr).user_port as u16);
        if !may_be_upstream(agent_port) {
            return PROCEED;
        }
        let app_address = v4_mapped((*sk).src_ip4.to_ne_bytes());
        let agent_address = v4_mapped((*sock_addr).user_ip4.to_ne_bytes());
        if let Some(client) = client_of(&ctx, app_address, (*sk).src_port as u16, agent_address, agent_port)
            && let Some(v4) = client.address.last_chunk::<4>()
        {
            (*sock_addr).user_ip4 = u32::from_ne_bytes(*v4);
            (*sock_addr).user_port = u32::from(client.port.to_be());
        }
    }
    PROCEED
}

#[cgroup_sock_addr(getpeername6)]
pub fn redirector_peer6(ctx: SockAddrContext) -> i32 {
    // SAFETY: as above.
    unsafe {
        let sock_addr = ctx.sock_addr;
        let sk = (*sock_addr).__bindgen_anon_1.sk;
        if sk.is_null() {
            return PROCEED;
        }
        let agent_port = u16::from_be((*sock_addr).user_port as u16);
        if !may_be_upstream(agent_port) {
            return PROCEED;
        }
        let app = [(*sk).src_ip6[0], (*sk).src_ip6[1], (*sk).src_ip6[2], (*sk).src_ip6[3]];
        let agent = [
            (*sock_addr).user_ip6[0],
            (*sock_addr).user_ip6[1],
            (*sock_addr).user_ip6[2],
            (*sock_addr).user_ip6[3],
        ];
        if let Some(client) = client_of(&ctx, bytes(app), (*sk).src_port as u16, bytes(agent), agent_port) {
            // A dual-stack listener expects IPv4 clients v4-mapped, which is how the map has them.
            let words: [u32; 4] = core::mem::transmute(client.address);
            (*sock_addr).user_ip6[0] = words[0];
            (*sock_addr).user_ip6[1] = words[1];
            (*sock_addr).user_ip6[2] = words[2];
            (*sock_addr).user_ip6[3] = words[3];
            (*sock_addr).user_port = u32::from(client.port.to_be());
        }
    }
    PROCEED
}

/// Host order. False: the peer is not the agent.
#[inline(always)]
fn may_be_upstream(port: u16) -> bool {
    let (index, bit) = port_bit(port);
    let Some(word) = UPSTREAM_PORTS.get_ptr(index) else { return false };
    // SAFETY: the element lives as long as the program; aligned words are not torn.
    unsafe { word.read_volatile() & bit != 0 }
}

/// # Safety
/// `ctx` must be the context the kernel called the program with.
#[inline(always)]
unsafe fn client_of(
    ctx: &SockAddrContext,
    app_address: AddressBytes,
    app_port: u16,
    agent_address: AddressBytes,
    agent_port: u16,
) -> Option<ClientAddress> {
    // SAFETY: guaranteed by the caller; the map value is copied out at once.
    unsafe {
        let key = UpstreamKey {
            netns_cookie: bpf_get_netns_cookie(ctx.as_ptr()),
            app_address,
            agent_address,
            app_port,
            agent_port,
            padding: 0,
        };
        CLIENTS.get(&key).copied()
    }
}

fn bytes(words: [u32; 4]) -> AddressBytes {
    // SAFETY: same size, and every bit pattern is a valid array of bytes.
    unsafe { core::mem::transmute(words) }
}
