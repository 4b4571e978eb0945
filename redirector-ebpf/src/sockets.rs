//! The socket that the kernel would deliver a segment to.

use aya_ebpf::{
    EbpfContext as _,
    bindings::{
        BPF_F_CURRENT_NETNS, bpf_sock, bpf_sock_tuple, bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1,
        bpf_sock_tuple__bindgen_ty_1__bindgen_ty_2,
    },
    helpers::generated::{bpf_sk_release, bpf_skc_lookup_tcp},
    programs::TcContext,
};
use redirector_common::AddressBytes;

use crate::packet::Segment;

/// States of the kernel's `net/tcp_states.h`.
pub const TCP_ESTABLISHED: u32 = 1;
pub const TCP_TIME_WAIT: u32 = 6;
pub const TCP_LISTEN: u32 = 10;
/// A request: the handshake is not over.
pub const TCP_NEW_SYN_RECV: u32 = 12;

/// Its state; `None`: there is none.
#[inline(always)]
pub fn state(ctx: &TcContext, segment: &Segment) -> Option<u32> {
    // SAFETY: the socket is referenced while this runs.
    look_up(ctx, segment, |socket| unsafe { (*socket).state })
}

/// Shows the socket to `look`; `None`: there is none. Not only full sockets: also requests, and those in TIME_WAIT.
#[inline(always)]
pub fn look_up<T>(ctx: &TcContext, segment: &Segment, look: impl FnOnce(*mut bpf_sock) -> T) -> Option<T> {
    let source_port = u16::from_ne_bytes(segment.source_port);
    let destination_port = u16::from_ne_bytes(segment.destination_port);
    // SAFETY: each tuple is initialised for the size that is given with it; the socket is released below on
    // the only path out.
    unsafe {
        let socket = if segment.is_v6 {
            let mut tuple = bpf_sock_tuple__bindgen_ty_1__bindgen_ty_2 {
                saddr: words(segment.source),
                daddr: words(segment.destination),
                sport: source_port,
                dport: destination_port,
            };
            look_up_tuple(ctx, &raw mut tuple)
        } else {
            let mut tuple = bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1 {
                saddr: words(segment.source)[3],
                daddr: words(segment.destination)[3],
                sport: source_port,
                dport: destination_port,
            };
            look_up_tuple(ctx, &raw mut tuple)
        };
        if socket.is_null() {
            return None;
        }
        let seen = look(socket);
        bpf_sk_release(socket.cast());
        Some(seen)
    }
}

/// # Safety
/// `tuple` must be one of the members of `bpf_sock_tuple`, initialised. The socket must be released.
#[inline(always)]
unsafe fn look_up_tuple<T>(ctx: &TcContext, tuple: *mut T) -> *mut bpf_sock {
    // SAFETY: guaranteed by the caller; the kernel tells the family by the size.
    unsafe {
        bpf_skc_lookup_tcp(
            ctx.as_ptr(),
            tuple.cast::<bpf_sock_tuple>(),
            core::mem::size_of::<T>() as u32,
            BPF_F_CURRENT_NETNS as i64 as u64,
            0,
        )
    }
}

/// Network order.
#[inline(always)]
pub fn words(address: AddressBytes) -> [u32; 4] {
    // SAFETY: same size, and every bit pattern is a valid array of integers.
    unsafe { core::mem::transmute(address) }
}
