//! `SO_NETNS_COOKIE`: the number by which eBPF programs know a network namespace.

use std::{io, mem::size_of, net::UdpSocket, os::fd::AsRawFd as _};

/// The cookie of the namespace that the calling thread is in (kernel 5.14, commit e8b9eab99232).
pub fn of_this_thread() -> io::Result<u64> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    let mut cookie = 0_u64;
    let mut len = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the descriptor is open, and the kernel writes at most `len` bytes into `cookie`.
    let failed = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut len,
        )
    };
    if failed == 0 { Ok(cookie) } else { Err(io::Error::last_os_error()) }
}
