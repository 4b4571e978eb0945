//! The eBPF half of redirector.
//!
//! | program | hook | purpose |
//! | --- | --- | --- |
//! | `redirector_ingress` | TC ingress of a target's interfaces | hands new connections to the agent's listener |
//! | `redirector_peer4`, `redirector_peer6` | cgroup `getpeername` | show the app the real client |
#![no_std]
#![no_main]

mod ingress;
mod inspect;
mod packet;
mod parking;
mod peername;

/// `bpf_sk_assign` and the socket lookups are for GPL-compatible programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
