//! TCP ports that are listened on in a network namespace, from the text of `/proc/net/tcp` and `/proc/net/tcp6`.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// `TCP_LISTEN` of <net/tcp_states.h>, as the `st` column shows it.
const LISTEN: &str = "0A";

/// The local addresses of the listening TCP sockets of one network namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListeningSockets(Vec<SocketAddr>);

impl ListeningSockets {
    /// Of the namespace that the calling thread is in.
    ///
    /// # Errors
    /// When `/proc` cannot be read. A kernel without IPv6 has no `tcp6`, which is no error.
    pub fn of_current_netns() -> io::Result<Self> {
        Self::read("/proc/thread-self/net")
    }

    /// Of the namespace of another process.
    ///
    /// # Errors
    /// `NotFound` when there is no such process; `PermissionDenied` without rights to look into it.
    pub fn of_process(pid: i32) -> io::Result<Self> {
        Self::read(&format!("/proc/{pid}/net"))
    }

    fn read(net: &str) -> io::Result<Self> {
        let mut text = fs::read_to_string(format!("{net}/tcp"))?;
        match fs::read_to_string(format!("{net}/tcp6")) {
            Ok(tcp6) => text.push_str(&tcp6),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        Ok(Self::parse(&text))
    }

    /// Takes the text of either file or of both, one after the other; lines it cannot read are passed over.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        Self(text.lines().filter_map(listening_address).collect())
    }

    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.0
    }

    /// Whether a connection that comes from outside to this port can find a listener: one on loopback cannot be reached.
    #[must_use]
    pub fn listens_on(&self, port: u16) -> bool {
        self.reachable().any(|address| address.port() == port)
    }

    /// The ports that can be reached from outside, ascending, each once.
    #[must_use]
    pub fn ports(&self) -> Vec<u16> {
        let mut ports: Vec<u16> = self.reachable().map(SocketAddr::port).collect();
        ports.sort_unstable();
        ports.dedup();
        ports
    }

    fn reachable(&self) -> impl Iterator<Item = &SocketAddr> {
        self.0.iter().filter(|address| !address.ip().to_canonical().is_loopback())
    }
}

fn listening_address(line: &str) -> Option<SocketAddr> {
    let mut columns = line.split_ascii_whitespace().skip(1);
    let local = columns.next()?;
    let state = columns.nth(1)?;
    if state != LISTEN {
        return None;
    }
    let (ip, port) = local.split_once(':')?;
    Some(SocketAddr::new(ip_address(ip)?, u16::from_str_radix(port, 16).ok()?))
}

/// The kernel prints each 32-bit word of the address, which is in network order in memory, as a number of the host.
fn ip_address(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| {
        let number = u32::from_str_radix(hex.get(at * 8..at * 8 + 8)?, 16).ok()?;
        Some(number.to_ne_bytes())
    };
    match hex.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let words = [word(0)?, word(1)?, word(2)?, word(3)?];
            Some(Ipv6Addr::from(<[u8; 16]>::try_from(words.concat()).ok()?).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use proptest::prelude::*;

    use super::*;

    // Lines as an x86-64 kernel prints them; the words of the addresses are little-endian.
    #[cfg(target_endian = "little")]
    const REAL: &str = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:0CEA 00000000:0000 0A 00000000:00000000 00:00000000 00000000   101        0 21431 1 0000000000000000 100 0 0 10 0
   1: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 18310 1 0000000000000000 100 0 0 10 0
   2: 0502000A:0016 0202000A:D2F0 01 00000000:00000000 02:000A5C9E 00000000     0        0 24019 2 0000000000000000 20 4 30 10 -1
   3: 0502000A:1F91 0202000A:D2F2 06 00000000:00000000 03:00000A9E 00000000     0        0 0 3 0000000000000000
  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000000000000000000000000000:1F90 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 31337 1 0000000000000000 100 0 0 10 0
   1: 00000000000000000000000001000000:1F92 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 31338 1 0000000000000000 100 0 0 10 0
   2: 0000000000000000FFFF00000100007F:1F93 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 31339 1 0000000000000000 100 0 0 10 0
";

    #[test]
    #[cfg(target_endian = "little")]
    fn listening_sockets_of_both_families_are_read() {
        let sockets = ListeningSockets::parse(REAL);
        let expected = ["127.0.0.1:3306", "0.0.0.0:22", "[::]:8080", "[::1]:8082", "[::ffff:127.0.0.1]:8083"];
        assert_eq!(sockets.addresses(), expected.map(|address| address.parse().unwrap()));
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn only_listeners_that_are_reached_from_outside_count() {
        let sockets = ListeningSockets::parse(REAL);
        assert_eq!(sockets.ports(), [22, 8080]);
        assert!(sockets.listens_on(8080), "dual-stack listener");
        for port in [3306, 8082, 8083] {
            assert!(!sockets.listens_on(port), "{port} is on loopback");
        }
        assert!(!sockets.listens_on(8081), "TIME_WAIT is no listener");
    }

    #[test]
    fn a_real_listener_is_seen() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let sockets = ListeningSockets::of_current_netns().unwrap();
        assert!(sockets.addresses().contains(&address), "{address} in {sockets:?}");
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_fail(text in "\\PC*|( *[0-9]+: [0-9A-F€]*:[0-9A-F]* 0:0 0A\n)*") {
            let _ = ListeningSockets::parse(&text);
        }
    }
}
