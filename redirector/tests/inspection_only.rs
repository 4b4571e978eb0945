//! Connections whose first request says that no other follows. Needs root.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "clippy takes the helpers of a test for code")]

#[allow(dead_code, reason = "other tests need the rest")]
mod inspected;

use aya::maps::{Map, MapData, SkStorage};
use inspected::{Client, WANTED, ask, get, read_answers, with_client};
use redirector_common::Connection;
use std::io::Write;
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

const CLOSE: &str = "Connection: close\r\n";
/// More than the silence that is asked for.
const SILENCE: Duration = Duration::from_millis(250);

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

#[test]
fn nothing_is_kept_of_a_connection_whose_only_request_is_not_wanted() {
    with_client(|client| {
        client.inspect();
        for (headers, kept) in [
            ("", true),
            (CLOSE, false),
            ("CONNECTION: Close\r\n", false),
            ("Connection: keep-alive\r\n", true),
            ("X: y\r\nConnection: close\r\nAccept: *\r\n", false),
        ] {
            let mut connection = client.connect();
            ask(&mut connection, &get(headers), 1);
            assert_eq!(is_kept(client, &connection), kept, "{headers:?}");
        }
        client.counted(&[("heads", 5), ("held", 0), ("raw_connections", 0)]);
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
