//! Connections whose first request says that no other follows. Needs root.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "clippy takes the helpers of a test for code")]

#[allow(dead_code, reason = "other tests need the rest")]
mod inspected;

use aya::maps::{Map, MapData, SkStorage};
use inspected::tcp::position;
use inspected::{Client, PORT, SILENCE, WANTED, ask, forged, get, read_answers, with_client};
use redirector::context::Needle;
use redirector_common::Connection;
use redirector_common::scan::LineStarts;
use std::io::Write;
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

const CLOSE: &str = "Connection: close\r\n";
/// Longer than a segment takes.
const SHORT: Duration = Duration::from_millis(50);

/// Does the kernel keep something of the connection?
fn is_kept(client: &Client, connection: &TcpStream) -> bool {
    let local = connection.local_addr().unwrap();
    client.in_pod(move |pod| {
        let app_end = pod.app_end(local);
        let map = MapData::from_fd(pod.door().connections().unwrap()).unwrap();
        let map = SkStorage::<_, Connection>::try_from(Map::SkStorage(map)).unwrap();
        map.get(&app_end, 0).is_ok()
    })
}

/// A name that does not have lines with `Connection` looked at by itself.
fn inspect(client: &Client) {
    const NAME: &str = "x-user";
    assert!(!LineStarts::NONE.with(NAME.as_bytes()).has(u64::from_le_bytes(*b"connecti")));
    client.in_pod(|pod| pod.door().watch(PORT, &[Needle::Header(NAME.to_owned())].into()).unwrap());
}

#[test]
fn nothing_is_kept_of_a_connection_whose_only_request_is_not_wanted() {
    with_client(|client| {
        inspect(client);
        for (headers, kept) in [
            ("", true),
            (CLOSE, false),
            ("CONNECTION: Close\r\n", false),
            ("Connection: keep-alive\r\n", true),
            ("X: y\r\nConnection: close\r\nAccept: *\r\n", false),
            ("Connection: close\r\nX-User: alice\r\n", true),
        ] {
            let mut connection = client.connect();
            ask(&mut connection, &get(headers), 1);
            assert_eq!(is_kept(client, &connection), kept, "{headers:?}");
        }
        client.counted(&[("heads", 6), ("held", 1), ("raw_connections", 0)]);
    });
}

#[test]
fn nothing_is_kept_when_the_body_is_there_or_the_request_comes_again() {
    with_client(|client| {
        inspect(client);
        let framed = |framing: &str, body: &str| get(&format!("{CLOSE}{framing}\r\n")) + body;
        for request in [
            get(CLOSE),
            framed("Content-Length: 5", "hello"),
            framed("Transfer-Encoding: chunked", "3\r\nabc\r\n0\r\n\r\n"),
        ] {
            let mut connection = client.connect();
            let position = position(&connection);
            ask(&mut connection, &request, 1);
            assert!(!is_kept(client, &connection), "{request:?}");
            forged::send(&connection, position, request.as_bytes());
            thread::sleep(SHORT);
            assert!(!is_kept(client, &connection), "{request:?}");
        }
        client.counted(&[("heads", 3), ("raw_connections", 0)]);
    });
}

#[test]
fn what_is_odd_in_a_connection_line_changes_nothing() {
    with_client(|client| {
        inspect(client);
        for odd in ["Connection : close\r\n", "Connection: a\u{7f}b\r\n", "Connection\r\n"] {
            ask(&mut client.connect(), &get(&format!("{odd}X-User: alice\r\n")), 1);
        }
        client.counted(&[("held", 3), ("raw_connections", 0)]);
    });
}

#[test]
fn a_request_whose_damaged_copy_said_it_was_the_last_is_held() {
    with_client(|client| {
        inspect(client);
        let mut connection = client.connect();
        forged::send_damaged(&connection, position(&connection), get(CLOSE).as_bytes());
        thread::sleep(SHORT);
        ask(&mut connection, &get("X-User: alice\r\n"), 1);
        client.counted(&[("held", 1), ("refused_at_boundary", 0)]);
    });
}

#[test]
fn a_wanted_request_that_says_it_is_the_last_is_held() {
    with_client(|client| {
        client.inspect();
        for headers in [CLOSE.to_owned() + WANTED, WANTED.to_owned() + CLOSE] {
            ask(&mut client.connect(), &get(&headers), 1);
        }
        client.counted(&[("held", 2), ("refused_at_boundary", 0)]);
    });
}

#[test]
fn a_request_after_one_that_said_it_was_the_last_is_as_on_an_older_connection() {
    with_client(|client| {
        client.inspect();
        let mut connection = client.connect();
        ask(&mut connection, &get(CLOSE), 1);
        // It may be a part of a body.
        ask(&mut connection, &get(WANTED), 1);
        client.counted(&[("held", 0), ("refused_at_boundary", 1)]);
        thread::sleep(SILENCE);
        ask(&mut connection, &get(WANTED), 1);
        client.counted(&[("held", 1), ("refused_at_boundary", 1)]);
    });
}

#[test]
fn a_request_behind_one_that_said_it_was_the_last_is_seen() {
    with_client(|client| {
        client.inspect();
        let mut connection = client.connect();
        ask(&mut connection, &(get(CLOSE) + &get(WANTED)), 2);
        client.counted(&[("held", 0), ("refused_at_boundary", 1), ("interesting_heads", 1)]);
    });
}

#[test]
fn the_body_of_a_request_that_says_it_is_the_last_is_not_taken_for_requests() {
    with_client(|client| {
        client.inspect();
        let mut connection = client.connect();
        let body = get(WANTED);
        let head = get(&format!("{CLOSE}Content-Length: {}\r\n", body.len()));
        connection.write_all(head.as_bytes()).unwrap();
        thread::sleep(SILENCE);
        connection.write_all(body.as_bytes()).unwrap();
        read_answers(&mut connection, 1);
        client.counted(&[("held", 0), ("heads", 1), ("interesting_heads", 0)]);
    });
}
