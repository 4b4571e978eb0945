//! Apps that get a socket only when there is data for it: behind `TCP_DEFER_ACCEPT`, where the handshake ends with data, and
//! while the kernel answers with SYN cookies.

use std::net::SocketAddr;

use lab::{App, Connection, Family, Lab, Nginx, Stream};

use crate::{
    parking::{Waiting, ask, request},
    scene::{PORT, in_lab, served_by},
};

/// First requests, and later ones, that are for alice.
const ORDERS: [[bool; 3]; 3] = [[true, false, true], [false, true, false], [false, false, true]];

/// Asserts that nginx or alice answered, whoever the request was for.
#[track_caller]
fn ask_nginx(connection: &mut Connection, matching: bool) {
    let answer = connection.ask(request("/who", matching));
    let by_alice = answer.text().contains("\"served_by\": \"alice\"");
    assert_eq!((answer.status, by_alice), (200, matching), "{}", answer.text());
}

/// On a connection for each order and family.
fn ask_in_all_orders(waiting: &Waiting<'_>, ask: impl Fn(&mut Connection, bool)) {
    for family in Family::BOTH {
        for order in ORDERS {
            let mut connection = waiting.connect(family);
            for matching in order {
                ask(&mut connection, matching);
            }
        }
    }
}

fn count_by_nginx(nginx: &Nginx) -> usize {
    nginx.log().lines(Stream::Stdout).iter().filter(|line| line.starts_with("client ")).count()
}

fn to(lab: &Lab, family: Family) -> SocketAddr {
    SocketAddr::new(lab.pod.ip(family), PORT)
}

#[test]
fn behind_tcp_defer_accept_every_request_finds_its_way() {
    in_lab(|lab| {
        let nginx = Nginx::listening(lab, &lab.pod, &[PORT], "deferred");
        let waiting = Waiting::without_app(lab);
        let alice = waiting.intercept("inspect");
        ask_in_all_orders(&waiting, ask_nginx);
        assert_eq!(waiting.counted("parked"), 6);
        assert_eq!(count_by_nginx(&nginx), 10, "{}", nginx.log());
        assert_eq!(nginx.log().lines(Stream::Stderr), Vec::<String>::new());
        drop((alice, waiting, nginx));
    });
}

#[test]
fn behind_tcp_defer_accept_a_large_first_request_is_whole() {
    const SIZE: usize = 300_000;
    in_lab(|lab| {
        let nginx = Nginx::listening(lab, &lab.pod, &[PORT], "deferred");
        let waiting = Waiting::without_app(lab);
        let alice = waiting.intercept("inspect");
        for family in Family::BOTH {
            for (header, status) in [("x-dev: alice", 200), ("x-other: nobody", 405)] {
                let mut connection = waiting.connect(family);
                let head = format!(
                    "POST /who HTTP/1.1\r\nHost: pod.test\r\n{header}\r\nContent-Length: {SIZE}\r\n\r\n"
                );
                let answer = connection.ask(head + &"x".repeat(SIZE));
                assert_eq!(answer.status, status, "nginx takes no POST for a file: {}", answer.text());
                // The app has answered before it had all, so the next request may come in one segment with the rest.
                ask_nginx(&mut connection, false);
            }
        }
        assert_eq!(waiting.counted("parked"), 2);
        drop((alice, waiting, nginx));
    });
}

#[test]
fn data_that_ends_the_handshake_can_be_a_developers() {
    in_lab(|lab| {
        let waiting = Waiting::new(lab);
        let alice = waiting.intercept("inspect");
        for family in Family::BOTH {
            for order in ORDERS {
                let first = request("/whoami", order[0]);
                let opened =
                    lab.client.netns.run(|| Connection::open_with_data(to(lab, family), first.as_bytes()));
                let mut connection = opened.unwrap();
                let answer = connection.response("GET");
                assert_eq!(served_by(&answer), if order[0] { "alice" } else { "app" });
                for matching in &order[1..] {
                    ask(&mut connection, *matching);
                }
            }
        }
        assert_eq!(waiting.counted("parked"), 6);
        drop((alice, waiting));
    });
}

#[test]
fn a_connection_made_with_a_syn_cookie_is_inspected_like_any_other() {
    in_lab(|lab| {
        // 2: always.
        lab.pod.netns.sh("sysctl -qw net.ipv4.tcp_syncookies=2");
        let waiting = Waiting::new(lab);
        let alice = waiting.intercept("inspect");
        ask_in_all_orders(&waiting, |connection, matching| drop(ask(connection, matching)));
        assert_eq!(waiting.counted("parked"), 6);
        drop((alice, waiting));
    });
}

#[test]
fn behind_tcp_defer_accept_a_syn_cookie_changes_nothing() {
    in_lab(|lab| {
        lab.pod.netns.sh("sysctl -qw net.ipv4.tcp_syncookies=2");
        let nginx = Nginx::listening(lab, &lab.pod, &[PORT], "deferred");
        let waiting = Waiting::without_app(lab);
        let alice = waiting.intercept("inspect");
        ask_in_all_orders(&waiting, ask_nginx);
        drop((alice, waiting, nginx));
    });
}

/// No socket knows of the connection then, so the app gets the first request, and at once.
#[test]
fn data_that_ends_a_handshake_with_a_syn_cookie_is_answered() {
    in_lab(|lab| {
        lab.pod.netns.sh("sysctl -qw net.ipv4.tcp_syncookies=2");
        let waiting = Waiting::new(lab);
        let alice = waiting.intercept("inspect");
        for family in Family::BOTH {
            let first = request("/whoami", true);
            let opened =
                lab.client.netns.run(|| Connection::open_with_data(to(lab, family), first.as_bytes()));
            let mut connection = opened.unwrap();
            let answer = connection.response("GET");
            assert!(["app", "alice"].contains(&served_by(&answer).as_str()));
            for matching in [false, false, true] {
                ask(&mut connection, matching);
            }
        }
        drop((alice, waiting));
    });
}

/// The kernel drops what would open a socket for which there is no room, with us as without.
#[test]
fn an_app_that_is_late_to_accept_gets_every_live_request() {
    in_lab(|lab| {
        let app = App::echo(lab, &lab.pod, "app", &[PORT]);
        let waiting = Waiting::without_app(lab);
        let alice = waiting.intercept("inspect");
        app.process().signal(nix::sys::signal::Signal::SIGSTOP);
        let mut waiting_for_it: Vec<Connection> =
            (0..20).map(|number| waiting.connect(Family::BOTH[number % 2])).collect();
        for connection in &mut waiting_for_it {
            connection.send(request("/whoami", false));
        }
        for number in 0..20 {
            let mut connection = waiting.connect(Family::BOTH[number % 2]);
            ask(&mut connection, true);
            ask(&mut connection, true);
        }
        app.process().signal(nix::sys::signal::Signal::SIGCONT);
        for connection in &mut waiting_for_it {
            assert_eq!(served_by(&connection.response("GET")), "app");
            ask(connection, true);
        }
        assert_eq!(waiting.counted("parked"), 40);
        drop((alice, waiting, app));
    });
}
