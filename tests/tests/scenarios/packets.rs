//! Packets that are not quite ordinary are handled or passed on, never lost.

use std::fs;

use lab::{Agent, AgentOptions, App, eventually};

use crate::scene::{
    PORT, Route, assert_routing, for_alice, in_lab, intercepted_by_each_datapath, who_answers,
};

#[test]
fn connections_are_routed_while_the_pod_sends_syn_cookies() {
    intercepted_by_each_datapath(|scene| {
        // 2: always, as under a SYN flood; the last packet of the handshake then has no request socket.
        scene.lab.pod.netns.run(|| fs::write("/proc/sys/net/ipv4/tcp_syncookies", "2")).unwrap();
        for _ in 0..10 {
            assert_routing(scene.lab);
        }
    });
}

#[test]
fn connections_with_ipv6_extension_headers_are_answered() {
    /// Every packet of the connection carries destination options (RFC 8200, section 4.6): one `PadN`.
    const CLIENT: &str = "
import socket, sys
address, port, header = sys.argv[1:]
client = socket.socket(socket.AF_INET6)
client.settimeout(20)
client.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_DSTOPTS, bytes([0, 0, 1, 4, 0, 0, 0, 0]))
client.connect((address, int(port)))
client.sendall(f'GET /whoami HTTP/1.1\\r\\nHost: a\\r\\nConnection: close\\r\\n{header}\\r\\n\\r\\n'.encode())
print(client.recv(65536).decode())
";
    intercepted_by_each_datapath(|scene| {
        let lab = scene.lab;
        for route in Route::BOTH {
            let mut client = lab.client.netns.command("/usr/bin/python3");
            client.args(["-c", CLIENT, &lab.pod.v6.to_string(), &PORT.to_string(), route.header()]);
            let output = client.output().unwrap();
            let answer = String::from_utf8_lossy(&output.stdout).into_owned();
            let answered =
                ["app", route.server()].iter().any(|server| answer.contains(&format!("\"{server}\"")));
            assert!(answered, "{route:?}: {output:?}");
        }
        scene.assert_routing();
    });
}

#[test]
fn what_becomes_of_packets_is_logged_when_asked_for() {
    in_lab(|lab| {
        let _app = App::echo(lab, &lab.pod, "app", &[PORT]);
        let arguments = vec!["--log-packets".to_owned()];
        let agent = Agent::start_with(lab, &AgentOptions { arguments, ..AgentOptions::default() });
        let _alice = for_alice(lab, &agent).start(lab);
        assert_eq!(who_answers(lab, Route::Live.header()), "app");
        eventually("the SYN is in the log", || agent.log().contains("port 8080 flags 2"));
    });
}
