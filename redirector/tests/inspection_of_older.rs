//! Connections that are older than the inspection of their port: what is known of them, and from when on. Needs root.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "clippy takes the helpers of a test for code")]

#[allow(dead_code, reason = "other tests need the rest")]
mod inspected;

use inspected::{Client, PORT, SILENCE, WANTED, ask, get, read_answers, tcp, with_client};
use redirector::datapath::PortListeners;
use redirector_common::{Tuple, v4_mapped};
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

/// Inspects the port, and says of the connection what the agent finds of an idle one.
fn inspect_with(client: &Client, connection: &TcpStream, received: u64) {
    let (local, peer) = (connection.local_addr().unwrap(), connection.peer_addr().unwrap());
    client.in_pod(move |pod| {
        let mut facts = tcp::facts(&pod.app_end(local));
        facts.bytes_received += received;
        pod.door().remember([(tuple(local, peer), facts)]);
    });
    client.inspect();
}

/// Sends the request in two segments.
fn ask_in_parts(connection: &mut TcpStream, request: &str) {
    let (first, second) = request.split_at(20);
    connection.write_all(first.as_bytes()).unwrap();
    ask(connection, second, 1);
}

fn tuple(client: SocketAddr, app: SocketAddr) -> Tuple {
    let bytes = |address: SocketAddr| match address {
        SocketAddr::V4(v4) => v4_mapped(v4.ip().octets()),
        SocketAddr::V6(v6) => v6.ip().octets(),
    };
    Tuple { client: bytes(client), app: bytes(app), client_port: client.port(), app_port: app.port() }
}

#[test]
fn a_connection_that_existed_before_is_trusted_after_a_whole_exchange_and_a_silence() {
    with_client(|client| {
        let mut connection = client.connect();
        ask(&mut connection, &get(""), 1);
        client.inspect();
        // The first one seen may be a part of a body.
        ask(&mut connection, &get(WANTED), 1);
        client.counted(&[("held", 0), ("refused_at_boundary", 1)]);
        // Now an earlier answer may be outstanding: the client waits once, and the app says nothing.
        ask(&mut connection, &get("Baggage: a=b, user = alice\r\n"), 1);
        client.counted(&[("silence_awaited", 1), ("held", 1), ("raw_connections", 0)]);
        // Once.
        ask(&mut connection, &get(WANTED), 1);
        client.counted(&[("silence_awaited", 1), ("held", 2)]);
    });
}

#[test]
fn a_silence_of_the_app_before_a_request_is_as_good() {
    with_client(|client| {
        let mut connection = client.connect();
        client.inspect();
        // Not new any more.
        client.in_pod(|pod| pod.door().watch(PORT, &[].into()).unwrap());
        ask(&mut connection, &get(""), 1);
        client.inspect();
        ask(&mut connection, &get(""), 1);
        thread::sleep(SILENCE);
        ask(&mut connection, &get(""), 1);
        ask(&mut connection, &get(WANTED), 1);
        client.counted(&[("silence_awaited", 0), ("held", 1), ("refused_at_boundary", 0)]);
    });
}

#[test]
fn requests_that_do_not_match_never_wait_for_a_silence() {
    with_client(|client| {
        let mut connection = client.connect();
        ask(&mut connection, &get(""), 1);
        client.inspect();
        for _ in 0..50 {
            ask(&mut connection, &get(""), 1);
        }
        client.counted(&[("silence_awaited", 0), ("heads", 50), ("lost_sight", 0)]);
    });
}

#[test]
fn requests_in_parts_that_do_not_match_never_wait_for_a_silence() {
    with_client(|client| {
        let mut connection = client.connect();
        ask(&mut connection, &get(""), 1);
        client.inspect();
        for _ in 0..50 {
            ask_in_parts(&mut connection, &get(""));
        }
        client.counted(&[("silence_awaited", 0), ("joined", 49), ("heads", 50), ("lost_sight", 0)]);
        ask_in_parts(&mut connection, &get(WANTED));
        client.counted(&[("held", 1), ("raw_connections", 0)]);
    });
}

#[test]
fn uploads_in_parts_that_do_not_match_never_wait_for_a_silence() {
    with_client(|client| {
        let mut connection = client.connect();
        let body = "x".repeat(40_000);
        let upload = format!("POST / HTTP/1.1\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        // So that the client may send all of it at once.
        for _ in 0..8 {
            ask(&mut connection, &upload, 1);
        }
        client.inspect();
        for _ in 0..20 {
            ask_in_parts(&mut connection, &upload);
        }
        client.counted(&[("silence_awaited", 0), ("held", 0), ("heads", 20), ("raw_connections", 0)]);
    });
}

#[test]
fn parts_of_a_client_that_was_late_wait_for_a_silence_a_few_times_only() {
    with_client(|client| {
        let mut connection = client.connect();
        ask(&mut connection, &get(""), 1);
        client.inspect();
        let mut late = client.connect();
        late.write_all(&get("").as_bytes()[..20]).unwrap();
        thread::sleep(SILENCE);
        late.write_all(&get("").as_bytes()[20..]).unwrap();
        read_answers(&mut late, 1);
        for _ in 0..50 {
            ask_in_parts(&mut connection, &get(""));
        }
        let counters = client.counters();
        assert!(counters["silence_awaited"] < 10, "{counters:?}");
        assert_eq!((counters["heads"], counters["held"]), (51, 1), "{counters:?}");
    });
}

#[test]
fn a_client_is_not_late_with_what_waits_for_a_silence() {
    with_client(|client| {
        // So that the first part comes again by itself, and not before its time.
        for name in ["tcp_early_retrans", "tcp_retrans_collapse"] {
            inspected::run(&format!("sysctl -qw net.ipv4.{name}=0"));
        }
        let mut connection = client.connect();
        ask(&mut connection, &get(""), 1);
        client.inspect();
        ask_in_parts(&mut connection, &get(""));
        ask_in_parts(&mut connection, &get(WANTED));
        client.counted(&[("joined", 1), ("silence_awaited", 1), ("held", 1)]);
        ask_in_parts(&mut client.connect(), &get(""));
        client.counted(&[("joined", 2), ("held", 1)]);
    });
}

#[test]
fn a_client_that_never_waits_for_its_answers_is_found_out() {
    with_client(|client| {
        let slow = |headers: &str| get(&format!("X-Wait: 60\r\n{headers}"));
        let mut connection = client.connect();
        // From here on two answers are always outstanding.
        connection.write_all((slow("") + &slow("")).as_bytes()).unwrap();
        read_answers(&mut connection, 1);
        client.inspect();
        for number in 0..40 {
            // As soon as an answer is there, the next request is sent.
            let headers = if number < 2 { "" } else { WANTED };
            ask(&mut connection, &slow(headers), 1);
        }
        read_answers(&mut connection, 1);
        let counters = client.counters();
        assert_eq!((counters["held"], counters["raw_connections"]), (0, 1), "{counters:?}");
        assert!(counters["app_not_silent"] > 0, "{counters:?}");
    });
}

#[test]
fn the_first_request_of_a_connection_that_was_idle_before_is_held() {
    with_client(|client| {
        let mut connection = client.connect();
        ask(&mut connection, &get(""), 1);
        inspect_with(client, &connection, 0);
        ask(&mut connection, &get(WANTED), 1);
        client.counted(&[("held", 1), ("silence_awaited", 0)]);
    });
}

#[test]
fn what_was_known_of_an_idle_connection_is_void_when_it_was_not_idle_since() {
    with_client(|client| {
        let mut connection = client.connect();
        ask(&mut connection, &get(""), 1);
        inspect_with(client, &connection, 1);
        ask(&mut connection, &get(WANTED), 1);
        client.counted(&[("held", 0), ("refused_at_boundary", 1)]);
    });
}

#[test]
fn a_connection_that_never_carried_a_byte_is_as_good_as_new() {
    with_client(|client| {
        let mut connection = client.connect();
        client.inspect();
        ask(&mut connection, &get(WANTED), 1);
        client.counted(&[("held", 1), ("silence_awaited", 0)]);
    });
}

#[test]
fn connections_of_the_agents_own_are_left_alone_from_their_start() {
    with_client(|client| {
        let mut before = client.connect();
        client.inspect();
        client.in_pod(|pod| {
            let v4 = TcpListener::bind("0.0.0.0:0").unwrap();
            let served = v4.try_clone().unwrap();
            thread::spawn(move || {
                for stream in served.incoming() {
                    thread::spawn(|| inspected::serve(stream.unwrap()));
                }
            });
            pod.door().open_port(PORT, &PortListeners { v4, v6: None }).unwrap();
            pod.door().assign(PORT, true).unwrap();
        });
        let mut agents = client.connect();
        ask(&mut agents, &get(WANTED), 1);
        client.counted(&[("assigned", 1), ("heads", 0), ("held", 0)]);
        // One that is not, though nothing was said on it.
        ask(&mut before, &get(WANTED), 1);
        client.counted(&[("assigned", 1), ("held", 1)]);
    });
}
