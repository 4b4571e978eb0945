//! The lab itself: a lab that shows what is not there, or misses what is, makes every other test worthless.

use std::net::{Ipv4Addr, SocketAddr};

use lab::{
    App, Curl, Direction, Family, Lab, Nginx, PassAll, Server, WebSockets, cgroup_peername_programs,
    cgroup_root, eventually, tcx_programs, websocket_dialog,
};

use crate::scene::in_lab;

#[test]
fn machines_of_a_lab_reach_each_other_and_no_other_lab() {
    in_lab(|lab| {
        let other = Lab::new("other");
        let _app = Nginx::start(lab, &lab.pod, &[8080]);
        for family in Family::BOTH {
            let pod = SocketAddr::new(lab.pod.ip(family), 8080);
            assert_eq!(Curl::on(&lab.client).get(pod, "/who", &[]).answer().status, 200, "{family:?}");
            let refused = Curl::on(&other.client).get(pod, "/who", &[]).output();
            assert_eq!(refused.code, Some(7), "{family:?}: {refused:?}");
        }
    });
}

#[test]
fn a_dropped_lab_is_gone() {
    let lab = Lab::new("dropped");
    let names = [&lab.node, &lab.pod, &lab.client, &lab.dev].map(|host| host.netns.path());
    let directory = lab.directory().to_owned();
    let app = Nginx::start(&lab, &lab.pod, &[8080]);
    assert!(names.iter().all(|name| name.exists()) && directory.exists());
    drop(app);
    drop(lab);
    assert!(!names.iter().any(|name| name.exists()) && !directory.exists());
}

#[test]
fn leftovers_are_found() {
    in_lab(|lab| {
        assert_eq!(lab.leftovers(), Vec::<String>::new());
        let is_left = |what: &str| {
            let left = lab.leftovers();
            assert!(left.iter().any(|line| line.contains(what)), "{what:?} not found in {left:?}");
        };

        let app = Nginx::start(lab, &lab.pod, &[8080]);
        is_left("process");
        is_left(":8080");
        drop(app);

        lab.pod.netns.sh("tc qdisc add dev eth0 clsact");
        is_left("clsact");
        lab.pod.netns.sh("tc qdisc del dev eth0 clsact");

        for direction in [Direction::Ingress, Direction::Egress] {
            let program =
                PassAll::attach(&lab.pod.netns, "eth0", direction).expect("attach (needs Linux 6.6)");
            assert_eq!(tcx_programs(&lab.pod.netns, direction), [("eth0".to_owned(), 1)]);
            is_left("TCX");
            drop(program);
        }

        lab.pod.netns.ip("rule add fwmark 1 lookup 100");
        is_left("network of the pod");
        lab.pod.netns.ip("rule del fwmark 1 lookup 100");
        eventually("nothing is left", || lab.leftovers().is_empty());
    });
}

#[test]
fn getpeername_programs_can_be_counted() {
    assert!(cgroup_root().join("cgroup.procs").exists());
    // The count depends on the machine; that the kernel answers is what the tests with an agent build on.
    let _ = cgroup_peername_programs(Ipv4Addr::LOCALHOST.into());
}

#[test]
fn a_server_of_the_test_records_what_came_and_knows_who_called() {
    in_lab(|lab| {
        let server = Server::silent(&lab.pod.netns, "[::]:8080".parse().unwrap());
        let mut connection = lab.client.connect(lab.pod.at(8080));
        connection.send(b"\0\xff anything");
        connection.finish_sending();
        let peer = server.peer(0);
        peer.wait_for_end();
        assert_eq!(peer.received(), b"\0\xff anything");
        assert_eq!(peer.address.ip(), lab.client.v4.to_ipv6_mapped());
        assert_eq!(peer.name.port(), connection.local_address().port());
    });
}

#[test]
fn every_app_of_the_lab_answers() {
    in_lab(|lab| {
        let _nginx = Nginx::start(lab, &lab.pod, &[8080]);
        let tls = Nginx::tls(lab, &lab.pod, &[8443]);
        let _http2 = Nginx::http2(lab, &lab.pod, &[8082]);
        let _websocket = App::websocket(lab, &lab.pod, WebSockets::Python, "app", &[8083]);
        let _smtp = App::smtp(lab, &lab.pod, 2525);
        let _redis = App::redis(lab, &lab.pod, 6379);

        let name = lab.pod.netns.name();
        let https = "https://pod.test:8443/who";
        let certificate = tls.certificate().to_string_lossy();
        let resolve = format!("pod.test:8443:{}", lab.pod.v4);
        let arguments = ["--cacert", &certificate, "--resolve", &resolve];
        assert!(Curl::on(&lab.client).request(https, &arguments, &[]).answer().body.contains(name));
        let http2 = format!("http://{}/who", lab.pod.at(8082));
        let answer = Curl::on(&lab.client).request(&http2, &["--http2-prior-knowledge"], &[]).answer();
        assert!(answer.body.contains(name));

        let url = format!("ws://{}/", lab.pod.at(8083));
        let dialog = websocket_dialog(lab, &lab.client, WebSockets::Node, &url, &[]).json();
        assert_eq!(dialog["texts"][19], "app: message 19");
        assert_eq!(dialog["large_same"], true);

        assert!(lab.client.connect(lab.pod.at(2525)).line().starts_with("220 "));
        let mut redis = lab.client.connect(lab.pod.at(6379));
        redis.send("*1\r\n$4\r\nPING\r\n");
        assert_eq!(redis.line(), "+PONG\r\n");
    });
}
