//! Which process of a network namespace listens on a port.

use std::fs;
use std::path::Path;

use super::netns::NetnsId;
use super::process;

/// `TCP_LISTEN` of <net/tcp_states.h>, as the `st` column of `/proc/net/tcp` shows it.
const LISTEN: &str = "0A";

/// The first process of the namespace that has a listening socket of the port open; without one, the first process at
/// all. The lowest pid is that of a server's main process.
#[must_use]
pub fn listener_or_any(netns: NetnsId, port: u16) -> Option<i32> {
    let pids = process::pids().ok()?;
    let inside: Vec<i32> =
        pids.into_iter().filter(|&pid| process::netns_id(pid).is_ok_and(|found| found == netns)).collect();
    let first = *inside.first()?;
    let tables = ["tcp", "tcp6"].map(|table| fs::read_to_string(format!("/proc/{first}/net/{table}")));
    let tables: String = tables.into_iter().filter_map(Result::ok).collect();
    let sockets: Vec<String> = tables
        .lines()
        .filter_map(|line| listening_inode(line, port))
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    inside.iter().copied().find(|&pid| holds_one_of(pid, &sockets)).or(Some(first))
}

/// Reads a line of `/proc/net/tcp` (proc(5)): the second column is the local address, the fourth the state, the tenth
/// the inode.
fn listening_inode(line: &str, port: u16) -> Option<u64> {
    let columns: Vec<&str> = line.split_ascii_whitespace().collect();
    let (_, hex) = columns.get(1)?.rsplit_once(':')?;
    let listens = *columns.get(3)? == LISTEN && u16::from_str_radix(hex, 16).ok()? == port;
    if listens { columns.get(9)?.parse().ok() } else { None }
}

fn holds_one_of(pid: i32, sockets: &[String]) -> bool {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    descriptors.filter_map(Result::ok).any(|descriptor| {
        let link = fs::read_link(descriptor.path());
        link.is_ok_and(|link| sockets.iter().any(|socket| link == Path::new(socket)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::TcpListener;

    #[test]
    fn our_own_listener_is_found() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let netns = NetnsId::of_path(Path::new("/proc/self/ns/net")).unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        assert_eq!(listener_or_any(netns, port), Some(own));
    }

    #[test]
    fn an_empty_namespace_has_nobody() {
        assert_eq!(listener_or_any(NetnsId { dev: 0, ino: 0 }, 80), None);
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_fail(line in "\\PC*|( *[0-9]+: [0-9A-F€]*:[0-9A-F]* 0:0 0A 0 0 0 0 0 [0-9]*)") {
            let _ = listening_inode(&line, 80);
        }
    }
}
