//! Clients that use a local port again, soon after its last connection has ended: the new connection is one like any other.

use std::net::SocketAddr;

use lab::{App, Connection, Family, Host, Lab, eventually};
use nix::sys::signal::Signal;

use crate::{
    parking::{Waiting, Wire, ask, request},
    scene::{PORT, in_lab, served_by},
};

/// How the last connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The client ended it; its end is in TIME_WAIT.
    Client,
    /// Whoever answered ended it; the pod's end is in TIME_WAIT.
    Server,
    /// The client reset it.
    Reset,
}

fn open(lab: &Lab, family: Family, port: u16) -> Connection {
    let from = SocketAddr::new(lab.client.ip(family), port);
    let to = SocketAddr::new(lab.pod.ip(family), PORT);
    let opened = lab.client.netns.run(|| Connection::open_from(from, to));
    opened.unwrap_or_else(|error| panic!("{from} again: {error}"))
}

/// A connection from `port` that carries requests as `matching` says, and ends.
#[track_caller]
fn one(lab: &Lab, family: Family, port: u16, matching: &[bool], end: End) {
    let mut connection = open(lab, family, port);
    for matching in matching {
        ask(&mut connection, *matching);
    }
    let last = *matching.last().unwrap_or(&false);
    match end {
        End::Client => drop(connection),
        End::Reset => connection.reset(),
        End::Server => {
            let answer = connection.ask(request("/close", last));
            assert_eq!(served_by(&answer), if last { "alice" } else { "app" });
            assert_eq!(connection.rest(), b"");
            drop(connection);
        }
    }
    // The client has heard that its end was heard, and the app has closed what it was told is over.
    let open = "ss -Htn state established state close-wait state last-ack state fin-wait-1 state closing";
    eventually("both ends have closed", || {
        let ended = |host: &Host| {
            let sockets = host.netns.sh(open);
            !sockets
                .lines()
                .any(|line| line.contains(&format!(":{port} ")) || line.ends_with(&format!(":{port}")))
        };
        ended(&lab.client) && ended(&lab.pod)
    });
}

fn reuse(timestamps: bool, ends: &[End]) {
    in_lab(|lab| {
        if !timestamps {
            lab.client.netns.sh("sysctl -qw net.ipv4.tcp_timestamps=0");
        }
        let waiting = Waiting::new(lab);
        let alice = waiting.intercept("inspect");
        let wire = Wire::of_pod(lab);
        for (family, ports) in [(Family::V4, 41_000), (Family::V6, 42_000)] {
            for (port, end) in (ports..).zip(ends) {
                // Parked after live, live after parked, parked after parked, live after live; at once and later.
                for matching in
                    [&[true][..], &[true], &[false], &[false], &[false, true], &[true, false], &[true]]
                {
                    one(lab, family, port, matching, *end);
                }
            }
        }
        let seen = wire.packets(lab);
        let from_client = |line: &&String| line.contains(&format!(".{PORT}: Flags [S],"));
        let syns = seen.iter().filter(from_client).count();
        // And the one of `wire` itself.
        assert_eq!(syns, 2 * ends.len() * 7 + 1, "a SYN was sent again: {seen:#?}");
        let resets: Vec<&String> = seen
            .iter()
            .filter(|line| line.contains("Flags [R"))
            .filter(|_| !ends.contains(&End::Reset))
            .collect();
        assert!(resets.is_empty(), "{resets:?}");
        drop((alice, wire, waiting));
    });
}

#[test]
fn a_port_is_used_again_after_the_server_has_ended_the_connection() {
    reuse(true, &[End::Server]);
}

#[test]
fn a_port_is_used_again_after_the_client_has_ended_the_connection() {
    reuse(true, &[End::Client]);
}

#[test]
fn a_port_is_used_again_after_the_client_has_reset_the_connection() {
    reuse(true, &[End::Reset]);
}

/// Without timestamps the kernel does not use a port in TIME_WAIT again for a connection that it opens itself.
#[test]
fn a_port_is_used_again_by_a_client_without_timestamps() {
    reuse(false, &[End::Server, End::Reset]);
}

/// The app has not even seen the end of the old connection. The client resets that, as with any server that has forgotten
/// to close (RFC 9293 §3.5.1), and has the new one.
#[test]
fn a_port_is_used_again_while_the_app_is_stopped() {
    in_lab(|lab| {
        let app = App::echo(lab, &lab.pod, "app", &[PORT]);
        let waiting = Waiting::without_app(lab);
        let alice = waiting.intercept("inspect");
        for (family, port) in [(Family::V4, 43_000), (Family::V6, 43_001)] {
            let mut connection = open(lab, family, port);
            ask(&mut connection, false);
            app.process().signal(Signal::SIGSTOP);
            ask(&mut connection, true);
            assert_eq!(served_by(&connection.ask(request("/close", true))), "alice");
            assert_eq!(connection.rest(), b"");
            drop(connection);
            eventually("the client has closed", || lab.client.netns.sh("ss -Htn state last-ack").is_empty());
            let mut again = open(lab, family, port);
            ask(&mut again, true);
            app.process().signal(Signal::SIGCONT);
            ask(&mut again, false);
        }
        drop((alice, waiting, app));
    });
}
