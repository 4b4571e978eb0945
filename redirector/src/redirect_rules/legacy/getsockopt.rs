//! `IPT_SO_GET_INFO` and `IPT_SO_GET_ENTRIES` of <linux/netfilter_ipv4/ip_tables.h>, and their IPv6 twins.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};

use super::table::RawTable;
use crate::redirect_rules::rule::Family;

const SO_GET_INFO: libc::c_int = 64;
const SO_GET_ENTRIES: libc::c_int = 65;
const NAME: usize = 32;
/// `struct ipt_getinfo`: name, valid hooks, five entry points, five underflows, number of entries, size.
const INFO: usize = NAME + 4 + 20 + 20 + 4 + 4;
/// `struct ipt_get_entries` before its entries: name and size, padded to 8.
const ENTRIES_HEADER: usize = NAME + 8;
/// A kernel ruleset is held to some tens of MB by vmalloc limits; this only guards our own allocation.
const MAX_SIZE: usize = 256 << 20;

/// Reads a table that is in use in the calling thread's network namespace.
///
/// # Errors
/// Those of `socket(2)` and of the request, `EAGAIN` when the table keeps changing.
pub fn read_table(family: Family, name: &str) -> io::Result<RawTable> {
    const ATTEMPTS: usize = 5;
    let (domain, level) = match family {
        Family::Ipv4 => (AddressFamily::Inet, libc::SOL_IP),
        Family::Ipv6 => (AddressFamily::Inet6, libc::SOL_IPV6),
    };
    let socket = socket(domain, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Raw)?;
    for _ in 0..ATTEMPTS {
        match read_once(&socket, level, name) {
            // The table was replaced between the two requests.
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => {}
            read => return read,
        }
    }
    Err(io::Error::from_raw_os_error(libc::EAGAIN))
}

fn read_once(socket: &OwnedFd, level: libc::c_int, name: &str) -> io::Result<RawTable> {
    let mut info = vec![0; INFO];
    info[..name.len()].copy_from_slice(name.as_bytes());
    get(socket, level, SO_GET_INFO, &mut info)?;
    let number = |at: usize| {
        let field = info[at..at + 4].try_into().unwrap_or_default();
        u32::from_ne_bytes(field)
    };
    let size = number(INFO - 4) as usize;
    if size > MAX_SIZE {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let mut entries = vec![0; ENTRIES_HEADER + size];
    entries[..name.len()].copy_from_slice(name.as_bytes());
    entries[NAME..NAME + 4].copy_from_slice(&number(INFO - 4).to_ne_bytes());
    get(socket, level, SO_GET_ENTRIES, &mut entries)?;
    Ok(RawTable {
        valid_hooks: number(NAME),
        hook_entries: [0, 1, 2, 3, 4].map(|hook| number(NAME + 4 + 4 * hook)),
        entries: entries.split_off(ENTRIES_HEADER),
    })
}

/// `getsockopt(2)` into a buffer whose start the kernel reads, too.
fn get(socket: &impl AsFd, level: libc::c_int, option: libc::c_int, buffer: &mut [u8]) -> io::Result<()> {
    let mut length = libc::socklen_t::try_from(buffer.len()).map_err(io::Error::other)?;
    // SAFETY: the kernel reads and writes at most `length` bytes at the pointer, which is the buffer's own length, and
    // both outlive the call. Any byte is a valid u8.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            option,
            buffer.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    Errno::result(result)?;
    Ok(())
}
