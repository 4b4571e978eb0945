//! Segments that are not what they look like, or that come as they should not. Needs root.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "clippy takes the helpers of a test for code")]

#[allow(dead_code, reason = "other tests need the rest")]
mod inspected;

use inspected::tcp::{OFF, Position, QUIETLY_OFF, end_of_connection, position};
use inspected::{
    ANSWER, CLIENT, Client, LONG, POD, PORT, WANTED, ask, forged, get, read_answers, ready, serve,
    with_client,
};
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

/// Less than a client waits before it sends again, and more than a packet needs.
const SHORT: Duration = Duration::from_millis(50);

/// Followed from its start, and idle.
fn connected(client: &Client) -> TcpStream {
    client.inspect();
    let mut connection = client.connect();
    ask(&mut connection, &get(""), 1);
    connection
}

/// Nothing that came meanwhile was acted on, or has ended what is known.
#[track_caller]
fn still_followed(client: &Client, connection: &mut TcpStream) {
    client.counted(&[("held", 0), ("lost_sight", 0), ("raw_connections", 0)]);
    ask(connection, &get(WANTED), 1);
    client.counted(&[("held", 1), ("hold_expired", 1), ("lost_sight", 0)]);
}

#[test]
fn look_alikes_out_of_the_window_are_never_acted_on() {
    with_client(|client| {
        let mut connection = connected(client);
        let Position { seq, ack } = position(&connection);
        for distance in [10_000_000, 1 << 31, u32::MAX - 20_000_000, u32::MAX - 1000] {
            let seq = seq.wrapping_add(distance);
            forged::send(&connection, Position { seq, ack }, get(WANTED).as_bytes());
        }
        // Where the next request is due, and for something that the app has not said.
        for distance in [1, 1 << 30] {
            let ack = ack.wrapping_add(distance);
            forged::send(&connection, Position { seq, ack }, get(WANTED).as_bytes());
        }
        thread::sleep(SHORT);
        still_followed(client, &mut connection);
    });
}

#[test]
fn a_segment_with_a_bad_checksum_is_never_acted_on() {
    with_client(|client| {
        let mut connection = connected(client);
        let position = position(&connection);
        forged::send_damaged(&connection, position, get(WANTED).as_bytes());
        thread::sleep(SHORT);
        client.counted(&[("bad_checksum", 1)]);
        still_followed(client, &mut connection);
        client.counted(&[("bad_checksum", 1)]);
        // The same with a good one, to see that it could have been.
        let mut connection = client.connect();
        ask(&mut connection, &get(""), 1);
        forged::send(&connection, inspected::tcp::position(&connection), get(WANTED).as_bytes());
        thread::sleep(SHORT);
        client.counted(&[("held", 2)]);
    });
}

#[test]
fn a_head_that_the_app_has_is_not_acted_on_again() {
    with_client(|client| {
        client.inspect();
        let mut connection = client.connect();
        let start = position(&connection);
        ask(&mut connection, &get(WANTED), 1);
        client.counted(&[("held", 1), ("hold_expired", 1), ("heads", 1)]);
        let end = position(&connection);
        // As it was, and as the client would send it now.
        for ack in [start.ack, end.ack] {
            forged::send(&connection, Position { seq: start.seq, ack }, get(WANTED).as_bytes());
        }
        // A part of it, with something new behind it.
        let longer = get(WANTED)[5..].to_owned() + &get(WANTED);
        forged::send(&connection, Position { seq: start.seq + 5, ack: end.ack }, longer.as_bytes());
        thread::sleep(SHORT);
        client.counted(&[("held", 1), ("heads", 2), ("refused_at_boundary", 1), ("lost_sight", 0)]);
    });
}

#[test]
fn a_head_that_was_passed_on_is_not_held_when_it_comes_again() {
    with_client(|client| {
        client.inspect();
        // The agent can't take the request, so it is passed on. But it does not get to the app's socket, for now.
        client.freeze();
        client.in_pod(|_| {
            inspected::run("nft add table ip t");
            inspected::run("nft add chain ip t c { type filter hook input priority 0 ; }");
            inspected::run("nft add rule ip t c tcp dport 8080 tcp flags psh drop");
        });
        thread::sleep(LONG);
        let mut connection = client.connect();
        connection.write_all(get(WANTED).as_bytes()).unwrap();
        thread::sleep(SHORT);
        client.counted(&[("agent_silent", 1)]);
        client.thaw();
        client.in_pod(|_| inspected::run("nft delete table ip t"));
        read_answers(&mut connection, 1);
        client.counted(&[("held", 0), ("lost_sight", 0)]);
    });
}

#[test]
fn segments_that_overtake_others_do_not_end_what_is_known() {
    with_client(|client| {
        let mut connection = connected(client);
        let body = "x".repeat(3000);
        connection.write_all(b"POST / HTTP/1.1\r\nContent-Length: 3000\r\n\r\n").unwrap();
        connection.write_all(&body.as_bytes()[..1000]).unwrap();
        thread::sleep(SHORT);
        let Position { seq, ack } = position(&connection);
        for from in [1000, 0] {
            let position = Position { seq: seq + from as u32, ack };
            forged::send(&connection, position, &body.as_bytes()[1000 + from..2000 + from]);
            thread::sleep(SHORT);
        }
        // To the client's TCP it is all the same.
        connection.write_all(&body.as_bytes()[1000..]).unwrap();
        read_answers(&mut connection, 1);
        still_followed(client, &mut connection);
    });
}

/// The parts of `request` come in this order, cut into pieces of 1000 bytes; then the client sends what it takes for lost.
fn send_in_order(connection: &mut TcpStream, request: &str, order: &[usize]) {
    let Position { seq, ack } = position(connection);
    let pieces: Vec<_> = request.as_bytes().chunks(1000).collect();
    for &piece in order {
        let position = Position { seq: seq + 1000 * piece as u32, ack };
        forged::send(connection, position, pieces[piece]);
        thread::sleep(SHORT);
    }
    connection.write_all(request.as_bytes()).unwrap();
}

#[test]
fn chunked_bodies_and_heads_are_read_in_their_order_whatever_order_they_come_in() {
    with_client(|client| {
        // As it is before Linux 6.8.
        client.in_pod(|_| inspected::run("sysctl -qw net.core.optmem_max=20480"));
        let mut connection = connected(client);
        // Chunks begin and end in all pieces, and there is what looks like requests in them.
        let chunk = format!("{:x}\r\n{}\r\n", get(WANTED).len() * 5, get(WANTED).repeat(5));
        let upload = format!(
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{}0\r\n\r\n",
            chunk.repeat(4_000 / chunk.len() + 1)
        );
        for order in [&[0, 1, 3, 2, 4][..], &[0, 4, 3, 2, 1], &[4, 2, 2, 1, 3, 0], &[3, 0, 1, 4, 2]] {
            send_in_order(&mut connection, &upload, order);
            read_answers(&mut connection, 1);
        }
        // All of it is there when its turn comes, so that it can be judged.
        let long = get(&format!("X-Long: {}\r\n", "x".repeat(1_500)));
        send_in_order(&mut connection, &long, &[1, 0]);
        read_answers(&mut connection, 1);
        let two = long + &get("");
        send_in_order(&mut connection, &two, &[1, 0]);
        read_answers(&mut connection, 2);
        still_followed(client, &mut connection);
        client.counted(&[("refused_at_boundary", 0)]);
        // And the first request of a connection.
        let mut connection = client.connect();
        send_in_order(&mut connection, &upload, &[2, 1, 0]);
        read_answers(&mut connection, 1);
        client.counted(&[("lost_sight", 0)]);
    });
}

#[test]
fn chunks_may_be_longer_than_what_is_kept_of_them() {
    with_client(|client| {
        inspected::run("sysctl -qw net.ipv4.tcp_slow_start_after_idle=0");
        // Less than the app's kernel takes at once, and more than copies are kept of.
        let chunk = |len: usize| format!("{len:x}\r\n{}\r\n", "x".repeat(len));
        let chunks = chunk(50_000) + &chunk(3000) + &chunk(0);
        let upload = format!("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}");
        let pieces: Vec<_> = upload.as_bytes().chunks(1000).collect();
        for (before, late) in [&[5][..], &[5, 6], &[5, 30], &[5, 30, pieces.len() - 1]].iter().enumerate() {
            let mut connection = connected(client);
            // So that the client can send all of it at once: that it has not sent what is there already it does not believe.
            let body = "x".repeat(60_000);
            for _ in 0..8 {
                ask(&mut connection, &format!("POST / HTTP/1.1\r\nContent-Length: 60000\r\n\r\n{body}"), 1);
            }
            let Position { seq, ack } = position(&connection);
            let early = (0..pieces.len()).filter(|piece| !late.contains(piece));
            for piece in early.chain(late.iter().copied()) {
                forged::send(&connection, Position { seq: seq + 1000 * piece as u32, ack }, pieces[piece]);
            }
            thread::sleep(SHORT);
            let next = Position { seq: seq + upload.len() as u32, ack: ack + ANSWER.len() as u32 };
            forged::send(&connection, next, get(WANTED).as_bytes());
            thread::sleep(SHORT);
            client.counted(&[("held", before as u64 + 1), ("lost_sight", 0)]);
            ask(&mut connection, &(upload.clone() + &get(WANTED)), 2);
        }
    });
}

#[test]
fn connections_beyond_those_that_copies_are_kept_of_get_all_and_are_lost_sight_of() {
    with_client(|client| {
        /// In `early`.
        const MOST: usize = 256;
        const MORE: usize = 12;
        let chunk = "x".repeat(0x500);
        let upload =
            format!("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n500\r\n{chunk}\r\n0\r\n\r\n");
        let both = upload.clone() + &get("");
        let send = |connections: &[(TcpStream, Position)], from: usize, to: usize| {
            for (connection, start) in connections {
                let position = Position { seq: start.seq + from as u32, ack: start.ack };
                forged::send(connection, position, &both.as_bytes()[from..to]);
            }
            thread::sleep(SHORT);
        };
        let lost_sight_of = |count: usize| {
            let mut connections: Vec<_> = (0..count)
                .map(|_| {
                    let connection = connected(client);
                    let start = position(&connection);
                    (connection, start)
                })
                .collect();
            let before = client.counters()["lost_sight"];
            send(&connections, 1000, upload.len());
            send(&connections, 0, 1000);
            send(&connections, upload.len(), both.len());
            for (connection, _) in &mut connections {
                connection.write_all(both.as_bytes()).unwrap();
            }
            for (connection, _) in &mut connections {
                read_answers(connection, 2);
            }
            client.counters()["lost_sight"] - before
        };
        let lost = lost_sight_of(MOST + MORE);
        assert!((1..=MORE as u64).contains(&lost), "{lost}");
        // There is room again.
        assert_eq!(lost_sight_of(MOST), 0);
    });
}

#[test]
fn a_connection_is_left_alone_when_what_is_urgent_comes_before_its_turn() {
    with_client(|client| {
        let followed = connected(client);
        let Position { seq, ack } = position(&followed);
        // None of these is the client's, as far as one can tell.
        forged::send_urgent(&followed, Position { seq: seq.wrapping_add(10_000_000), ack }, b"hello");
        forged::send_damaged_urgent(&followed, Position { seq: seq + 5, ack }, b"hello");
        thread::sleep(SHORT);
        client.counted(&[("raw_connections", 0), ("bad_checksum", 1)]);
        forged::send_urgent(&followed, Position { seq: seq + 5, ack }, b"hello");
        thread::sleep(SHORT);
        client.counted(&[("raw_connections", 1)]);
        let fresh = client.connect();
        let Position { seq, ack } = position(&fresh);
        forged::send_urgent(&fresh, Position { seq: seq + 5, ack }, b"hello");
        thread::sleep(SHORT);
        client.counted(&[("raw_connections", 2), ("lost_sight", 0)]);
    });
}

#[test]
fn what_is_damaged_is_read_again_when_it_comes_again() {
    with_client(|client| {
        let mut connection = connected(client);
        let damaged = |connection: &TcpStream, payload: &str| {
            forged::send_damaged(connection, position(connection), payload.as_bytes());
            thread::sleep(SHORT);
        };
        // A request like others, one that is none any more, and one whose end is another.
        let longer = "POST / HTTP/1.1\r\nContent-Length: 5000\r\n\r\n";
        for seen in [&get("")[..], "G\x01T / HTTP/1.1\r\n\r\n", longer, &get("").repeat(2)] {
            damaged(&connection, seen);
            ask(&mut connection, &get(""), 1);
        }
        // A part of a chunked body.
        connection.write_all(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
        thread::sleep(SHORT);
        damaged(&connection, "5\r\nhello\r\n");
        ask(&mut connection, "6\r\nhello!\r\n0\r\n\r\n", 1);
        still_followed(client, &mut connection);
        client.counted(&[("refused_at_boundary", 0)]);
    });
}

#[test]
fn the_second_half_of_a_head_may_come_first() {
    with_client(|client| {
        let mut connection = connected(client);
        let Position { seq, ack } = position(&connection);
        let request = get(WANTED);
        let (first, second) = request.as_bytes().split_at(20);
        forged::send(&connection, Position { seq: seq + 20, ack }, second);
        thread::sleep(SHORT);
        connection.write_all(first).unwrap();
        thread::sleep(SHORT);
        client.counted(&[("held", 1), ("lost_sight", 0)]);
        connection.write_all(second).unwrap();
        read_answers(&mut connection, 1);
    });
}

#[test]
fn sequence_numbers_may_start_again_from_zero() {
    with_client(|client| {
        client.inspect();
        // Either side's pass zero within the requests or the answers below, or between two of them.
        for before in [0_u32, 1, 10, 100, 117, 200] {
            let position = Position { seq: before.wrapping_neg(), ack: (before / 2).wrapping_neg() };
            let app = SocketAddr::new(POD.parse().unwrap(), PORT);
            let local = SocketAddr::new(CLIENT.parse().unwrap(), 20_000 + before as u16);
            client.in_pod(move |_| {
                let opposite = Position { seq: position.ack, ack: position.seq };
                let stream = end_of_connection(app, local, opposite, QUIETLY_OFF);
                thread::spawn(|| serve(ready(stream)));
            });
            let mut connection = ready(end_of_connection(local, app, position, OFF));
            for _ in 0..5 {
                ask(&mut connection, &get(""), 1);
            }
            ask(&mut connection, &get(WANTED), 1);
        }
        client.counted(&[("held", 6), ("hold_expired", 6), ("lost_sight", 0), ("raw_connections", 0)]);
    });
}

#[test]
fn bodies_in_packets_of_any_size_are_followed() {
    // Largest packet that is handed to the device, and largest number of segments in it.
    for (size, segments) in [(65_536, 65_535), (200_000, 65_535), (65_536, 1)] {
        with_client(move |client| {
            let device = move |name: &str, address: &str| {
                inspected::run(&format!(
                    "ip link set dev {name} gso_max_size {size} gso_max_segs {segments}"
                ));
                inspected::run(&format!("ip address add {address}/64 dev {name} nodad"));
            };
            device("eth1", "fd79::1");
            client.in_pod(move |_| {
                device("eth0", "fd79::2");
                let listener = TcpListener::bind(("fd79::2", PORT)).unwrap();
                thread::spawn(move || serve(listener.accept().unwrap().0));
            });
            client.inspect();
            let mut connection = ready(TcpStream::connect(("fd79::2", PORT)).unwrap());
            let body = "x".repeat(2_000_000);
            let upload = format!("POST / HTTP/1.1\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            for _ in 0..5 {
                ask(&mut connection, &upload, 1);
            }
            if size > 65_536 {
                let average = average_packet();
                assert!(average > 65_536, "the packets were not larger than {average}");
            }
            still_followed(client, &mut connection);
        });
    }
}

/// Of what the client has sent, in bytes.
fn average_packet() -> u64 {
    let devices = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    let line = devices.lines().find(|line| line.trim_start().starts_with("eth1:")).unwrap();
    let sent: Vec<u64> =
        line.split_whitespace().skip(9).take(2).map(|number| number.parse().unwrap()).collect();
    sent[0] / sent[1]
}

#[test]
fn a_request_whose_damaged_copy_hid_what_it_is_may_come_again() {
    with_client(|client| {
        for hidden in ["Y-Dev: alice\r\n", "X-\u{7f}ev: alice\r\n", "X\u{1}Dev: alice\r\n"] {
            let mut connection = connected(client);
            ask(&mut connection, &get(""), 1);
            let before = client.counters();
            forged::send_damaged(&connection, position(&connection), get(hidden).as_bytes());
            thread::sleep(SHORT);
            ask(&mut connection, &get(WANTED), 1);
            let after = client.counters();
            let more = |name| after[name] - before[name];
            assert_eq!((more("held"), more("refused_at_boundary")), (1, 0), "{hidden:?}: {after:?}");
        }
    });
}
