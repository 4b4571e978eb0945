//! The socket that the kernel would deliver a segment to.

use aya_ebpf::{
    EbpfContext as _,
    bindings::{
        BPF_F_CURRENT_NETNS, bpf_sock, bpf_sock_tuple, bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1 as TupleV4,
        bpf_sock_tuple__bindgen_ty_1__bindgen_ty_2 as TupleV6,
    },
    helpers::generated::{bpf_sk_release, bpf_skc_lookup_tcp},
    programs::TcContext,
};
use core::mem::offset_of;
use redirector_common::AddressBytes;

use crate::packet::Segment;

/// States of the kernel's `net/tcp_states.h`.
pub const TCP_ESTABLISHED: u32 = 1;
pub const TCP_TIME_WAIT: u32 = 6;
pub const TCP_LISTEN: u32 = 10;
/// A request: the handshake is not over.
pub const TCP_NEW_SYN_RECV: u32 = 12;

/// The kernel's tuple is the beginning of a segment.
const _: () = assert!(
    offset_of!(Segment, source) == offset_of!(TupleV6, saddr)
        && offset_of!(Segment, destination) == offset_of!(TupleV6, daddr)
        && offset_of!(Segment, source_port) == offset_of!(TupleV6, sport)
        && offset_of!(Segment, destination_port) == offset_of!(TupleV6, dport)
);

/// Its state; `None`: there is none.
#[inline(always)]
pub fn state(ctx: &TcContext, segment: &Segment) -> Option<u32> {
    // SAFETY: the socket is referenced while this runs.
    look_up(ctx, segment, |socket| unsafe { (*socket).state })
}

/// Shows the socket to `look`; `None`: there is none. Not only full sockets: also requests, and those in TIME_WAIT.
#[inline(always)]
pub fn look_up<T>(ctx: &TcContext, segment: &Segment, look: impl FnOnce(*mut bpf_sock) -> T) -> Option<T> {
    // SAFETY: each tuple is initialised for the size that is given with it; the socket is released below on
    // the only path out.
    unsafe {
        let socket = if segment.is_v6 {
            // Where it is: the stack has little room.
            look_up_tuple(ctx, (&raw const *segment).cast::<TupleV6>())
        } else {
            let tuple = TupleV4 {
                saddr: words(segment.source)[3],
                daddr: words(segment.destination)[3],
                sport: u16::from_ne_bytes(segment.source_port),
                dport: u16::from_ne_bytes(segment.destination_port),
            };
            look_up_tuple(ctx, &raw const tuple)
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
unsafe fn look_up_tuple<T>(ctx: &TcContext, tuple: *const T) -> *mut bpf_sock {
    // SAFETY: guaranteed by the caller; the kernel tells the family by the size.
    unsafe {
        bpf_skc_lookup_tcp(
            ctx.as_ptr(),
            tuple.cast_mut().cast::<bpf_sock_tuple>(),
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
