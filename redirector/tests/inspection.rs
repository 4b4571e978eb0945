//! What becomes of live connections on an inspected port when no agent takes what is held: everything reaches the app.
//! Needs root.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "clippy takes the helpers of a test for code")]

#[allow(dead_code, reason = "other tests need the rest")]
mod inspected;

use inspected::{LONG, PORT, WANTED, ask, get, read_answers, with_client, with_client_of};
use redirector_common::{PORT_HTTP2, PORT_TLS};
use std::io::Write;
use std::net::Shutdown;
use std::thread;
use std::time::Duration;

#[test]
fn a_held_request_that_nobody_claims_reaches_the_app_when_the_client_sends_it_again() {
    with_client(|client| {
        client.inspect();
        let mut connection = client.connect();
        ask(&mut connection, &get(WANTED), 1);
        client.counted(&[("held", 1), ("hold_expired", 1), ("interesting_heads", 1), ("raw_connections", 0)]);
        // It is followed on, and what is not interesting passes.
        ask(&mut connection, &get(""), 1);
        client.counted(&[("held", 1), ("heads", 2), ("lost_sight", 0)]);
    });
}

#[test]
fn a_connection_that_was_held_twice_in_vain_is_left_alone() {
    with_client(|client| {
        client.inspect();
        let mut connection = client.connect();
        for _ in 0..4 {
            ask(&mut connection, &get(WANTED), 1);
        }
        client.counted(&[("held", 2), ("hold_expired", 2), ("raw_connections", 1)]);
    });
}

#[test]
fn nothing_is_held_while_the_agent_is_frozen() {
    with_client(|client| {
        client.inspect();
        client.freeze();
        thread::sleep(LONG);
        let mut connection = client.connect();
        ask(&mut connection, &get(WANTED), 1);
        client.counted(&[("held", 0), ("agent_silent", 1), ("interesting_heads", 1)]);
    });
}

#[test]
fn a_request_behind_another_in_one_segment_is_the_apps() {
    with_client(|client| {
        client.inspect();
        let mut connection = client.connect();
        ask(&mut connection, &(get("") + &get(WANTED)), 2);
        client.counted(&[("held", 0), ("refused_at_boundary", 1), ("interesting_heads", 1)]);
    });
}

#[test]
fn a_body_that_looks_like_requests_is_not_taken_for_them() {
    with_client(|client| {
        let body = get(WANTED);
        let upload = format!("POST / HTTP/1.1\r\nContent-Length: {}\r\n\r\n", body.len() * 3);
        // An upload that has begun before we look.
        let mut before = client.connect();
        before.write_all(upload.as_bytes()).unwrap();
        before.write_all(body.as_bytes()).unwrap();
        thread::sleep(Duration::from_millis(50));
        client.inspect();
        for _ in 0..2 {
            before.write_all(body.as_bytes()).unwrap();
            thread::sleep(Duration::from_millis(50));
        }
        read_answers(&mut before, 1);
        let mut seen_from_the_start = client.connect();
        seen_from_the_start.write_all(upload.as_bytes()).unwrap();
        for _ in 0..3 {
            thread::sleep(Duration::from_millis(20));
            seen_from_the_start.write_all(body.as_bytes()).unwrap();
        }
        read_answers(&mut seen_from_the_start, 1);
        client.counted(&[("held", 0), ("raw_connections", 0)]);
        // After its body a request is one.
        ask(&mut seen_from_the_start, &get(WANTED), 1);
        client.counted(&[("held", 1)]);
    });
}

#[test]
fn connections_that_may_change_their_protocol_are_left_alone() {
    with_client(|client| {
        client.inspect();
        for first in ["GET /chat HTTP/1.1\r\nUpgrade: websocket\r\n\r\n", "HELO there\r\n\r\n"] {
            let mut connection = client.connect();
            connection.write_all(first.as_bytes()).unwrap();
            thread::sleep(Duration::from_millis(50));
            connection.write_all(get(WANTED).as_bytes()).unwrap();
            read_answers(&mut connection, 2);
        }
        client.counted(&[("held", 0), ("raw_connections", 2)]);
    });
}

#[test]
fn other_protocols_are_told_from_the_first_bytes_of_a_new_connection() {
    // What the app here takes for the ends of heads makes it answer.
    let hello = [&[22, 3, 1, 0, 200, 1, 0, 0][..], b"\r\n\r\n"].concat();
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    for (opening, answers, protocol) in [(preface, 2, PORT_HTTP2), (hello, 1, PORT_TLS)] {
        with_client(move |client| {
            client.inspect();
            let mut first = client.connect();
            ask(&mut first, &get(""), 1);
            assert_eq!(client.in_pod(|pod| pod.door().protocols(PORT)), 0);
            let mut connection = client.connect();
            connection.write_all(&opening).unwrap();
            read_answers(&mut connection, answers);
            assert_eq!(client.in_pod(|pod| pod.door().protocols(PORT)), protocol);
            // Parking what nothing is known of gains nothing.
            let held = u64::from(protocol != PORT_TLS);
            client.counted(&[("held", held), ("hold_expired", held), ("raw_connections", 1)]);
            // Nothing in it is taken for a request.
            ask(&mut connection, &get(WANTED), 1);
            client.counted(&[("held", held), ("heads", 1)]);
            // The same in the middle of a connection says nothing of the port's new ones.
            client.in_pod(|pod| {
                pod.door().watch(PORT, &[].into()).unwrap();
                pod.door().watch(PORT, &inspected::names()).unwrap();
            });
            first.write_all(&opening).unwrap();
            read_answers(&mut first, answers);
            assert_eq!(client.in_pod(|pod| pod.door().protocols(PORT)), 0);
        });
    }
}

#[test]
fn a_client_that_ends_its_half_while_its_request_is_held_gets_its_answer() {
    with_client(|client| {
        client.inspect();
        let mut connection = client.connect();
        connection.write_all(get(WANTED).as_bytes()).unwrap();
        connection.shutdown(Shutdown::Write).unwrap();
        read_answers(&mut connection, 1);
        client.counted(&[("held", 1), ("hold_expired", 1)]);
    });
}

#[test]
fn a_first_request_that_comes_before_the_apps_socket_is_held() {
    let defer =
        |listener: &std::net::TcpListener| inspected::tcp::set(listener, libc::TCP_DEFER_ACCEPT, 5_i32);
    with_client_of(defer, |client| {
        client.inspect();
        for _ in 0..10 {
            ask(&mut client.connect(), &get(WANTED), 1);
        }
        client.counted(&[("held", 10), ("hold_expired", 10)]);
        // What is not interesting passes, and its connection is known from its start.
        let mut connection = client.connect();
        ask(&mut connection, &get(""), 1);
        ask(&mut connection, &get(WANTED), 1);
        client.counted(&[("held", 11), ("silence_awaited", 0), ("lost_sight", 0)]);
    });
}

#[test]
fn first_requests_are_held_where_the_handshake_is_made_with_cookies() {
    let cookies = |_: &std::net::TcpListener| inspected::run("sysctl -q -w net.ipv4.tcp_syncookies=2");
    with_client_of(cookies, |client| {
        client.inspect();
        for _ in 0..5 {
            ask(&mut client.connect(), &get(WANTED), 1);
        }
        client.counted(&[("held", 5), ("hold_expired", 5)]);
    });
}

#[test]
fn the_app_gets_what_there_is_no_room_to_hold() {
    /// Records of this size fill the ring before there are so many.
    const CONNECTIONS: usize = 600;
    with_client(|client| {
        client.inspect();
        let long = get(&format!("{WANTED}X-Long: {}\r\n", "x".repeat(20_000)));
        let mut connections: Vec<_> = (0..CONNECTIONS).map(|_| client.connect()).collect();
        for connection in &mut connections {
            connection.write_all(long.as_bytes()).unwrap();
        }
        for connection in &mut connections {
            read_answers(connection, 1);
        }
        let counters = client.counters();
        assert!(counters["hold_failed"] > 0, "{counters:?}");
        assert_eq!(counters["held"] + counters["hold_failed"], CONNECTIONS as u64, "{counters:?}");
    });
}

#[test]
fn a_request_that_wants_another_protocol_is_held_like_others() {
    with_client(|client| {
        client.inspect();
        let mut connection = client.connect();
        ask(&mut connection, &get(""), 1);
        ask(&mut connection, &get(&format!("Connection: Upgrade\r\nUpgrade: websocket\r\n{WANTED}")), 1);
        client.counted(&[("held", 1), ("hold_expired", 1), ("raw_connections", 1), ("interesting_heads", 1)]);
        // The app has it: what follows may not be HTTP.
        ask(&mut connection, &get(WANTED), 1);
        client.counted(&[("held", 1)]);
    });
}

#[test]
fn a_request_that_comes_before_the_app_is_back_from_saying_its_answer_is_held() {
    with_client(|client| {
        client.inspect();
        let mut connection = client.connect();
        ask(&mut connection, &get(""), 1);
        // The client has both at once, and sends the second when the first is acknowledged (Nagle's algorithm), which only the answer
        // does: in the very moment in which the app sends it, and on its processor, so that its kernel is not done with that.
        client.in_pod(|_| {
            inspected::run("nft add table ip t");
            inspected::run("nft add chain ip t c { type filter hook output priority 0 ; }");
            inspected::run("nft add rule ip t c tcp sport 8080 tcp flags == ack meta length < 100 drop");
        });
        connection.set_nodelay(false).unwrap();
        connection.write_all(get("X-Wait: 20\r\n").as_bytes()).unwrap();
        connection.write_all(get(WANTED).as_bytes()).unwrap();
        read_answers(&mut connection, 2);
        client.counted(&[("held", 1), ("hold_expired", 1), ("refused_at_boundary", 0), ("lost_sight", 0)]);
    });
}
