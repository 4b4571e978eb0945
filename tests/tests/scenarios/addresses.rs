//! Who the app believes to talk to, over IPv4 and IPv6.

use std::net::{IpAddr, SocketAddr};

use lab::{Agent, App, Family, Lab, Nginx, Server, eventually};

use crate::scene::{
    ALICE, LOCAL, PORT, Route, ask_whoami, assert_all_carried, assert_routing, for_alice, in_lab,
    intercepted_by_each_datapath, served_by, text,
};

#[test]
fn requests_are_routed_over_ipv4_and_ipv6() {
    // The assertion of most scenes: both families, both routes.
    intercepted_by_each_datapath(|scene| assert_routing(scene.lab));
}

#[test]
fn nginx_logs_the_clients_address_on_the_live_route() {
    in_lab(|lab| {
        let nginx = Nginx::start(lab, &lab.pod, &[PORT]);
        let (_alice_app, agent) = (App::echo(lab, &lab.dev, "alice", &[LOCAL]), Agent::start(lab));
        let _alice = for_alice(lab, &agent).start(lab);
        for family in Family::BOTH {
            let mut connection = lab.client.connect(SocketAddr::new(lab.pod.ip(family), PORT));
            let path = format!("/who?{family:?}");
            assert_eq!(connection.ask(Route::Live.get(&path)).status, 200);
            assert_eq!(served_by(&connection.ask(Route::Alice.get("/"))), "alice", "the agent carries it");
            let line = format!("client {} 200 GET {path}", lab.client.ip(family));
            eventually(&format!("nginx logs {line:?}"), || nginx.log().contains(&line));
        }
    });
}

#[test]
fn a_dual_stack_app_sees_ipv4_clients_as_mapped_addresses() {
    in_lab(|lab| {
        let _app = App::echo_with(lab, &lab.pod, "app", &[PORT], &["--dual-stack"]);
        let (_alice_app, agent) = (App::echo(lab, &lab.dev, "alice", &[LOCAL]), Agent::start(lab));
        let _alice = for_alice(lab, &agent).start(lab);
        assert_seen_as(lab, Family::V4, lab.client.v4.to_ipv6_mapped().into());
        assert_seen_as(lab, Family::V6, lab.client.v6.into());
    });
}

#[test]
fn an_app_with_a_listener_per_family_sees_plain_addresses() {
    intercepted_by_each_datapath(|scene| {
        assert_seen_as(scene.lab, Family::V4, scene.lab.client.v4.into());
        assert_seen_as(scene.lab, Family::V6, scene.lab.client.v6.into());
    });
}

#[test]
fn accept_and_getpeername_agree_on_the_client() {
    in_lab(|lab| {
        let app = Server::silent(&lab.pod.netns, SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 0], PORT)));
        let agent = Agent::start(lab);
        let _alice = for_alice(lab, &agent).start(lab);
        let connections =
            Family::BOTH.map(|family| lab.client.connect(SocketAddr::new(lab.pod.ip(family), PORT)));
        assert_all_carried(lab, connections.len());
        for (connection, family) in connections.iter().zip(Family::BOTH) {
            let client = connection.local_address();
            let peers = [app.peer(0), app.peer(1)];
            let peer = peers
                .into_iter()
                .find(|peer| peer.address.port() == client.port())
                .expect("the client's port");
            for seen in [peer.address, peer.name] {
                assert_eq!(
                    (seen.ip().to_canonical(), seen.port()),
                    (client.ip(), client.port()),
                    "{family:?}"
                );
                assert!(seen.is_ipv6(), "a dual-stack socket has IPv6 names: {seen}");
            }
        }
    });
}

#[test]
fn connections_from_within_the_pod_are_not_touched() {
    intercepted_by_each_datapath(|scene| {
        let pod = &scene.lab.pod;
        for family in Family::BOTH {
            let own = pod.ip(family);
            let report = ask_whoami(pod, SocketAddr::new(own, PORT), ALICE).json();
            assert_eq!(
                (text(&report, "served_by"), text(&report, "peer")),
                ("app".to_owned(), own.to_string())
            );
        }
        let report = ask_whoami(pod, SocketAddr::from(([127, 0, 0, 1], PORT)), ALICE).json();
        assert_eq!(
            (text(&report, "served_by"), text(&report, "peer")),
            ("app".to_owned(), "127.0.0.1".to_owned())
        );
        scene.assert_routing();
    });
}

#[test]
fn other_ports_of_the_pod_are_not_touched() {
    intercepted_by_each_datapath(|scene| {
        let report = ask_whoami(&scene.lab.client, scene.lab.pod.at(crate::scene::DIRECT), ALICE).json();
        assert_eq!(text(&report, "served_by"), "app");
        assert_eq!(text(&report, "peer"), scene.lab.client.v4.to_string());
        scene.assert_routing();
    });
}

/// Asserts what the app takes for the client's address and port, on a connection that the agent carries.
#[track_caller]
fn assert_seen_as(lab: &Lab, family: Family, address: IpAddr) {
    let mut connection = lab.client.connect(SocketAddr::new(lab.pod.ip(family), PORT));
    let report = connection.ask(Route::Live.get("/whoami")).json();
    assert_eq!(text(&report, "served_by"), "app");
    assert_eq!(text(&report, "peer"), address.to_string(), "{family:?}");
    assert_eq!(report["port"], connection.local_address().port());
    assert_eq!(served_by(&connection.ask(Route::Alice.get("/"))), "alice", "the agent carries it");
}
