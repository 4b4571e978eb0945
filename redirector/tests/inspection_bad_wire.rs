//! What is lost, repeated or damaged does not end what is known, or not for long. Needs root.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "clippy takes the helpers of a test for code")]

#[allow(dead_code, reason = "other tests need the rest")]
mod inspected;

use inspected::tcp::{Position, position};
use inspected::{ANSWER, Client, LONG, WANTED, ask, forged, get, read_answers, with_client};
use std::io::Write;
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

/// Less than a client waits before it sends again, and more than a packet needs.
const SHORT: Duration = Duration::from_millis(50);

/// Of the pieces that a request comes in.
const PIECE: usize = 400;

/// Followed from its start, and idle. Its client may send all of [`upload`] at once.
fn connected(client: &Client) -> TcpStream {
    inspected::run("sysctl -qw net.ipv4.tcp_slow_start_after_idle=0");
    // The app's kernel is to have room for many small packets.
    client.in_pod(|_| std::fs::write("/proc/sys/net/ipv4/tcp_rmem", "4096 2000000 6000000").unwrap());
    client.inspect();
    let mut connection = client.connect();
    let body = "x".repeat(60_000);
    for _ in 0..8 {
        ask(&mut connection, &format!("POST / HTTP/1.1\r\nContent-Length: 60000\r\n\r\n{body}"), 1);
    }
    connection
}

/// With so many chunks, each shorter than a piece, and with what looks like requests in them.
fn upload(chunks: usize) -> String {
    let data = get(WANTED).repeat(5);
    let chunk = format!("{:x}\r\n{data}\r\n", data.len());
    assert!(chunk.len() < PIECE);
    format!("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{}0\r\n\r\n", chunk.repeat(chunks))
}

/// The pieces of the request come one after the other, but for the second piece, which comes last; then one for the developer, which
/// is not to get to the app.
fn send_with_a_gap(connection: &TcpStream, request: &str) {
    let start = position(connection);
    send_all_but_one(connection, request, start);
    send_the_one(connection, request, start);
    let Position { seq, ack } = start;
    let behind = Position { seq: seq + request.len() as u32, ack: ack + ANSWER.len() as u32 };
    forged::send(connection, behind, get(WANTED).as_bytes());
    thread::sleep(SHORT);
}

fn send_all_but_one(connection: &TcpStream, request: &str, Position { seq, ack }: Position) {
    for (number, piece) in request.as_bytes().chunks(PIECE).enumerate().filter(|(number, _)| *number != 1) {
        forged::send(connection, Position { seq: seq + (PIECE * number) as u32, ack }, piece);
    }
}

fn send_the_one(connection: &TcpStream, request: &str, Position { seq, ack }: Position) {
    let piece = &request.as_bytes()[PIECE..2 * PIECE];
    forged::send(connection, Position { seq: seq + PIECE as u32, ack }, piece);
    thread::sleep(SHORT);
}

/// A request for the developer is held. Gives how many times it had to come again before.
#[track_caller]
fn next_is_held(client: &Client, connection: &mut TcpStream) -> u64 {
    let before = client.counters();
    ask(connection, &get(WANTED), 1);
    let after = client.counters();
    let more = |name| after[name] - before[name];
    let names = ["held", "refused_at_boundary", "lost_sight", "raw_connections"];
    assert_eq!(names.map(more), [1, 0, 0, 0], "{names:?}: {after:?}");
    more("silence_awaited")
}

#[test]
fn many_segments_may_come_before_their_turn() {
    with_client(|client| {
        let mut connection = connected(client);
        let upload = upload(220);
        assert!(upload.len() > 40_000 && upload.len() < 60_000);
        send_with_a_gap(&connection, &upload);
        client.counted(&[("lost_sight", 0), ("held", 1)]);
        ask(&mut connection, &(upload + &get(WANTED)), 2);
    });
}

#[test]
fn after_a_body_that_could_not_be_read_the_next_request_is_found_by_its_end() {
    with_client(|client| {
        for times in 1..=2 {
            let mut connection = connected(client);
            for _ in 0..times {
                // Longer ago than one waits for the app to be silent.
                thread::sleep(LONG);
                let before = client.counters();
                let upload = upload(280);
                send_with_a_gap(&connection, &upload);
                let after = client.counters();
                let names = ["lost_sight", "silence_awaited", "refused_at_boundary", "held"];
                assert_eq!(names.map(|name| after[name] - before[name]), [1, 1, 0, 0], "{names:?}");
                ask(&mut connection, &upload, 1);
            }
            next_is_held(client, &mut connection);
        }
    });
}

#[test]
fn what_comes_behind_a_body_that_could_not_be_read_is_the_apps_until_that_is_answered() {
    with_client(|client| {
        let mut connection = connected(client);
        let upload = upload(280).replacen("\r\n", "\r\nX-Wait: 500\r\n", 1);
        let Position { seq, ack } = position(&connection);
        send_with_a_gap(&connection, &upload);
        let behind = Position { seq: seq + upload.len() as u32, ack };
        forged::send(&connection, behind, get(WANTED).as_bytes());
        thread::sleep(SHORT);
        client.counted(&[("lost_sight", 1), ("refused_at_boundary", 1), ("silence_awaited", 0), ("held", 0)]);
        ask(&mut connection, &(upload + &get(WANTED)), 2);
    });
}

#[test]
fn a_body_that_could_not_be_read_and_that_the_app_has_answered_before_its_end_is_the_apps() {
    with_client(|client| {
        let connection = connected(client);
        // Not the end, but it looks like it.
        let (first, second) = ("\r\n0\r\n\r\n", get(WANTED));
        let chunk = format!("{:x}\r\n{first}", first.len() + second.len());
        let upload = upload(280);
        let (head, chunks) = upload.strip_suffix("0\r\n\r\n").unwrap().split_once("\r\n\r\n").unwrap();
        let body = chunks.len() + chunk.len() + second.len() + first.len();
        let seen = format!("{head}\r\nX-Early: {body}\r\nX-Wait: 300\r\n\r\n{chunks}{chunk}");
        let before = client.counters();
        let start = position(&connection);
        send_all_but_one(&connection, &seen, start);
        // It answers when it has the first piece only.
        thread::sleep(LONG);
        send_the_one(&connection, &seen, start);
        let Position { seq, ack } = start;
        let behind = Position { seq: seq + seen.len() as u32, ack: ack + ANSWER.len() as u32 };
        forged::send(&connection, behind, second.as_bytes());
        thread::sleep(SHORT);
        let after = client.counters();
        let names = ["lost_sight", "silence_awaited", "held"];
        assert_eq!(names.map(|name| after[name] - before[name]), [1, 0, 0], "{names:?}: {after:?}");
    });
}

/// What comes in is seen, and does not get to the app's socket, while `work` is done.
fn unheard<T>(client: &Client, work: impl FnOnce() -> T) -> T {
    client.in_pod(|_| {
        inspected::run("nft add table ip t");
        inspected::run("nft add chain ip t c { type filter hook input priority 0 ; }");
        inspected::run("nft add rule ip t c tcp dport 8080 tcp flags psh drop");
    });
    let done = work();
    client.in_pod(|_| inspected::run("nft delete table ip t"));
    done
}

#[test]
fn a_part_of_a_body_that_comes_again_is_known() {
    with_client(|client| {
        let mut connection = connected(client);
        connection.write_all(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
        thread::sleep(SHORT);
        unheard(client, || {
            connection.write_all(b"5\r\nhello\r\n").unwrap();
            connection.write_all(b"0\r\n\r\n").unwrap();
            thread::sleep(SHORT);
        });
        read_answers(&mut connection, 1);
        client.counted(&[("lost_sight", 0)]);
        assert_eq!(next_is_held(client, &mut connection), 0);
    });
}

#[test]
fn what_follows_the_damaged_head_of_a_chunked_body_is_kept_until_the_head_comes_again() {
    with_client(|client| {
        let mut connection = connected(client);
        let upload = upload(5);
        let (head, body) = upload.as_bytes().split_at(200);
        let Position { seq, ack } = position(&connection);
        forged::send_damaged(&connection, Position { seq, ack }, head);
        forged::send(&connection, Position { seq: seq + 200, ack }, body);
        thread::sleep(SHORT);
        connection.write_all(upload.as_bytes()).unwrap();
        read_answers(&mut connection, 1);
        client.counted(&[("lost_sight", 0), ("bad_checksum", 1)]);
        assert_eq!(next_is_held(client, &mut connection), 0);
    });
}

#[test]
fn a_request_that_others_followed_may_come_again() {
    with_client(|client| {
        let mut connection = connected(client);
        let request = get("");
        let Position { seq, ack } = position(&connection);
        let at = |number: usize| Position { seq: seq + (number * request.len()) as u32, ack };
        forged::send_damaged(&connection, at(0), request.as_bytes());
        forged::send(&connection, at(1), request.as_bytes());
        forged::send(&connection, at(2), request.as_bytes());
        thread::sleep(SHORT);
        for _ in 0..2 {
            ask(&mut connection, &request.repeat(3), 3);
        }
        // The app has to be silent first.
        assert_eq!(next_is_held(client, &mut connection), 1);
        client.counted(&[("lost_sight", 0)]);
    });
}
