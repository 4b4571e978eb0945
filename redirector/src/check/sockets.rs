//! Whether sockets tell their network namespace, and those of others can be listed and ended: sock_diag(7).

use super::report::Item;
use crate::netns_cookie;
use crate::sock_diag::SockDiag;
use std::io;

pub fn items() -> Vec<Item> {
    let mut items = vec![cookie(netns_cookie::of_this_thread())];
    items.extend(diag_items());
    items
}

fn cookie(told: io::Result<u64>) -> Item {
    const NAME: &str = "SO_NETNS_COOKIE";
    const NEEDED_FOR: &str = "showing the app the client's address in place of the agent's";
    match told {
        Ok(_) => Item::ok(NAME, NEEDED_FOR, "there"),
        Err(error) => Item::no(NAME, NEEDED_FOR, error.to_string(), "use Linux 5.14 or newer"),
    }
}

fn diag_items() -> Vec<Item> {
    match SockDiag::open() {
        Ok(diag) => vec![listing(diag.established(0, None).map(drop)), closing(diag.can_close())],
        Err(error) => {
            let kind = error.kind();
            vec![listing(Err(error)), closing(Err(kind.into()))]
        }
    }
}

fn listing(listed: io::Result<()>) -> Item {
    const NAME: &str = "sock_diag: connections";
    const NEEDED_FOR: &str = "parking connections, and listing those that are not covered";
    match listed {
        Ok(()) => Item::ok(NAME, NEEDED_FOR, "listed"),
        Err(error) => {
            let remedy = "use a kernel with CONFIG_INET_DIAG (module tcp_diag)";
            Item::no(NAME, NEEDED_FOR, error.to_string(), remedy)
        }
    }
}

fn closing(closed: io::Result<()>) -> Item {
    const NAME: &str = "sock_diag: destroy";
    const NEEDED_FOR: &str = "ending connections that can't be covered (--close-existing)";
    match closed {
        Ok(()) => Item::ok(NAME, NEEDED_FOR, "there"),
        Err(error) => {
            let remedy = "use a kernel with CONFIG_INET_DIAG_DESTROY, and CAP_NET_ADMIN";
            Item::no(NAME, NEEDED_FOR, error.to_string(), remedy)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::Status;
    use super::*;

    #[test]
    fn a_kernel_that_can_not_end_connections_is_named_and_is_usable() {
        let unsupported = io::Error::from_raw_os_error(libc::EOPNOTSUPP);
        let item = closing(Err(unsupported));
        assert_eq!(item.status, Status::No);
        let text = format!("{item:?}");
        assert!(text.contains("CONFIG_INET_DIAG_DESTROY") && text.contains("--close-existing"), "{text}");
    }
}
