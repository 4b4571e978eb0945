//! A router between the client and the pod that takes smaller packets than either of them: what it says about parked
//! connections (ICMP) reaches the socket that has them.

use std::net::SocketAddr;

use lab::{App, CABLE, Cable, Connection, Family, Lab};
use serde_json::json;

use crate::{
    parking::{ask, request},
    scene::{ALICE, LOCAL, PORT, for_alice, in_lab},
};

/// Enough that the first flight has full packets.
const BODY: usize = 300_000;
/// The least that IPv6 allows.
const NARROW: u32 = 1280;

/// The node routes between the pod and a network of its own with the client; its way to the client is narrow. The routes of
/// the pod are removed afterwards.
struct Narrow<'a> {
    lab: &'a Lab,
    _cable: Cable,
}

impl<'a> Narrow<'a> {
    fn new(lab: &'a Lab) -> Self {
        let cable = Cable::veth(&lab.node, &lab.client);
        lab.node.netns.ip(&format!("link set {CABLE} mtu {NARROW}"));
        lab.node.netns.sh("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
        for (family, network) in [(Family::V4, "10.78.0.0/24"), (Family::V6, "fd78::/64")] {
            lab.pod.netns.ip(&format!("route add {network} via {}", lab.node.ip(family)));
            let pod = lab.pod.ip(family);
            lab.client.netns.ip(&format!("route add {pod} via {}", Cable::near(family, 0).ip()));
        }
        Self { lab, _cable: cable }
    }

    fn connect(&self, family: Family) -> Connection {
        let connection = self.lab.client.connect(SocketAddr::new(self.lab.pod.ip(family), PORT));
        assert_eq!(connection.local_address().ip(), Cable::far(family, 0).ip(), "it is routed");
        connection
    }
}

impl Drop for Narrow<'_> {
    fn drop(&mut self) {
        for network in ["10.78.0.0/24", "fd78::/64"] {
            self.lab.pod.netns.ip(&format!("route delete {network}"));
        }
    }
}

/// `alice`: her server has the file, too.
fn with_file(lab: &Lab, body: impl FnOnce(&Narrow<'_>)) {
    let file = lab.directory().join("file");
    std::fs::write(&file, vec![b'x'; BODY]).unwrap();
    let file = file.to_string_lossy().into_owned();
    let app = App::echo_with(lab, &lab.pod, "app", &[PORT], &["--file", &file]);
    let alice = App::echo_with(lab, &lab.dev, "alice", &[LOCAL], &["--file", &file]);
    body(&Narrow::new(lab));
    drop((alice, app));
}

#[test]
fn a_parked_connection_hears_that_its_packets_are_too_large() {
    in_lab(|lab| {
        with_file(lab, |narrow| {
            let agent = lab::Agent::start(lab);
            let alice = for_alice(lab, &agent).argument("--datapath").argument("inspect").start(lab);
            for family in Family::BOTH {
                let mut connection = narrow.connect(family);
                let download =
                    connection.ask(format!("GET /file HTTP/1.1\r\nHost: pod.test\r\n{ALICE}\r\n\r\n"));
                assert_eq!(download.body.len(), BODY, "{family:?}");
                ask(&mut connection, true);
                ask(&mut connection, false);
            }
            let status = agent.json(&["status"]);
            assert_eq!(status["targets"][0]["ports"][PORT.to_string()]["parked"], json!(2), "{status}");
            drop((alice, agent));
        });
    });
}

#[test]
fn a_live_connection_hears_it_as_without_us() {
    in_lab(|lab| {
        with_file(lab, |narrow| {
            let agent = lab::Agent::start(lab);
            let alice = for_alice(lab, &agent).argument("--datapath").argument("inspect").start(lab);
            for family in Family::BOTH {
                let mut connection = narrow.connect(family);
                let download = connection.ask(request("/file", false));
                assert_eq!(download.body.len(), BODY, "{family:?}");
                ask(&mut connection, true);
            }
            drop((alice, agent));
        });
    });
}
