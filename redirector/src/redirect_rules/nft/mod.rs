//! The rules of nf_tables, which is also where `iptables-nft` keeps its own, by an NFNETLINK dump.
//! Message layouts are those of <linux/netfilter/nf_tables.h>; its numbers are big-endian.

mod expression;
mod ruleset;

use std::fs;
use std::io;
use std::path::Path;

use nix::sys::socket::SockProtocol;

use self::ruleset::{SetName, sets_used, tables};
use super::rule::Table;
use crate::netlink::{Message, Request, Socket};

/// `NFNL_SUBSYS_NFTABLES << 8`
const SUBSYSTEM: u16 = 10 << 8;
const GET_CHAIN: u16 = SUBSYSTEM | 4;
const GET_RULE: u16 = SUBSYSTEM | 7;
const GET_SET_ELEMENT: u16 = SUBSYSTEM | 13;
const NFTA_SET_ELEM_LIST_TABLE: u16 = 1;
const NFTA_SET_ELEM_LIST_SET: u16 = 2;

/// The tables of the calling thread's network namespace; none when the kernel has no nf_tables or has not loaded it.
///
/// # Errors
/// `EPERM` without `CAP_NET_ADMIN` in the namespace.
pub fn read_tables() -> io::Result<Vec<Table>> {
    if !is_loaded() {
        return Ok(Vec::new());
    }
    let socket = Socket::open(SockProtocol::NetlinkNetFilter)?;
    let chains = dump(&socket, request(GET_CHAIN, libc::NFPROTO_UNSPEC))?;
    let rules = dump(&socket, request(GET_RULE, libc::NFPROTO_UNSPEC))?;
    let mut elements = Vec::new();
    for set in sets_used(&rules).map_err(invalid)? {
        elements.extend(dump(&socket, elements_of(&set))?);
    }
    tables(&chains, &rules, &elements).map_err(invalid)
}

/// Asking a kernel that has nf_tables as a module would load it, a side effect that nobody asked for. A module that
/// is built in shows in the symbol table only. When that cannot be read either, asking is the lesser evil.
fn is_loaded() -> bool {
    const SYMBOL: &str = "nft_register_expr";
    Path::new("/sys/module/nf_tables").exists()
        || fs::read_to_string("/proc/kallsyms").map_or(true, |symbols| symbols.contains(SYMBOL))
}

fn dump(socket: &Socket, request: Request) -> io::Result<Vec<Message>> {
    match socket.dump(&request) {
        // The kernel has no such table, or no nf_tables at all.
        Err(error)
            if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EOPNOTSUPP | libc::EINVAL)) =>
        {
            Ok(Vec::new())
        }
        answer => answer,
    }
}

fn request(kind: u16, family: libc::c_int) -> Request {
    // `struct nfgenmsg`: family, version 0, resource 0.
    let family = u8::try_from(family).unwrap_or_default();
    Request::new(kind, libc::NLM_F_DUMP, &[family, 0, 0, 0])
}

fn elements_of(set: &SetName) -> Request {
    let text = |text: &str| [text.as_bytes(), b"\0"].concat();
    request(GET_SET_ELEMENT, set.family.into())
        .attribute(NFTA_SET_ELEM_LIST_TABLE, &text(&set.table))
        .attribute(NFTA_SET_ELEM_LIST_SET, &text(&set.set))
}

fn invalid(error: crate::netlink::Malformed) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
