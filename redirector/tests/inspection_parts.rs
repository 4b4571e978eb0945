//! Heads of requests that come in several segments, on connections that the app has. Needs root.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "clippy takes the helpers of a test for code")]

#[allow(dead_code, reason = "other tests need the rest")]
mod inspected;

use inspected::tcp::{Position, position};
use inspected::{
    ANSWER, CLIENT, Client, LONG, POD, PORT, WANTED, ask, forged, get, read_answers, ready, with_client,
};
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// Less than after what a part is late, and more than a packet needs.
const SHORT: Duration = Duration::from_millis(10);
/// More than a client waits before it sends again.
const LATE: Duration = Duration::from_millis(300);
const PATIENCE: Duration = Duration::from_secs(20);
/// Of the app that keeps what it gets.
const RECORDED: u16 = 8081;
const POD_V6: Ipv6Addr = Ipv6Addr::new(0xfd79, 0, 0, 0, 0, 0, 0, 2);

/// What an app got, by connection.
#[derive(Clone, Default)]
struct Recorded(Arc<Mutex<Vec<Vec<u8>>>>);

impl Recorded {
    /// The app, whose port is inspected, on all addresses.
    fn start(client: &Client) -> Self {
        inspected::run("ip address add fd79::1/64 dev eth1 nodad");
        let recorded = Self::default();
        let app = recorded.clone();
        client.in_pod(move |pod| {
            inspected::run(&format!("ip address add {POD_V6}/64 dev eth0 nodad"));
            let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, RECORDED)).unwrap();
            pod.door().watch(RECORDED, &inspected::names()).unwrap();
            thread::spawn(move || {
                for (number, stream) in listener.incoming().enumerate() {
                    app.0.lock().unwrap().push(Vec::new());
                    let app = app.clone();
                    thread::spawn(move || app.serve(stream.unwrap(), number));
                }
            });
        });
        recorded
    }

    /// Answers the end of each head.
    fn serve(&self, mut stream: TcpStream, number: usize) {
        let mut chunk = vec![0; 65_536];
        let mut answered = 0;
        while let Ok(len @ 1..) = stream.read(&mut chunk) {
            let mut recorded = self.0.lock().unwrap();
            recorded[number].extend(&chunk[..len]);
            let text = String::from_utf8_lossy(&recorded[number]).into_owned();
            let heads =
                text.rsplit_once("\r\n\r\n").map_or(0, |(heads, _)| heads.matches("HTTP/1.1").count());
            drop(recorded);
            if stream.write_all(ANSWER.repeat(heads - answered).as_bytes()).is_err() {
                return;
            }
            answered = heads;
        }
    }

    /// Waits for as much as that.
    #[track_caller]
    fn has(&self, number: usize, all: &[u8]) {
        let deadline = Instant::now() + PATIENCE;
        let recorded = loop {
            let recorded = self.0.lock().unwrap()[number].clone();
            if recorded.len() >= all.len() || Instant::now() > deadline {
                break recorded;
            }
            thread::sleep(SHORT);
        };
        assert!(recorded == all, "{:?}", String::from_utf8_lossy(&recorded));
    }

    fn connect(address: IpAddr) -> TcpStream {
        ready(TcpStream::connect((address, RECORDED)).unwrap())
    }
}

fn addresses() -> [IpAddr; 2] {
    [POD.parse().unwrap(), POD_V6.into()]
}

/// Each in a segment of its own.
fn send(stream: &mut TcpStream, parts: &[&[u8]]) {
    for part in parts {
        stream.write_all(part).unwrap();
    }
}

/// From here on the sender computes checksums, packets are as a wire takes them, and the receiver verifies them.
fn as_on_a_wire() {
    inspected::run("ethtool -K eth1 tx off tso off gso off");
}

/// `request` cut where it is said.
fn cut<'a>(request: &'a str, at: &[usize]) -> Vec<&'a [u8]> {
    let mut from = 0;
    let ends = at.iter().copied().chain([request.len()]);
    ends.map(|end| &request.as_bytes()[std::mem::replace(&mut from, end)..end]).collect()
}

#[test]
fn a_head_in_several_segments_gets_to_the_app_in_one() {
    for on_a_wire in [false, true] {
        with_client(move |client| {
            if on_a_wire {
                as_on_a_wire();
            }
            let recorded = Recorded::start(client);
            let request = get("X-Other: bob\r\n");
            let mut joined = 0;
            for (number, address) in addresses().into_iter().enumerate() {
                let mut connection = Recorded::connect(address);
                let mut sent = String::new();
                let all = request.len();
                for at in [&[1][..], &[all - 1], &[17], &[3, 20], &[16, 18, all - 2], &[]] {
                    send(&mut connection, &cut(&request, at));
                    read_answers(&mut connection, 1);
                    sent += &request;
                    joined += at.len() as u64;
                }
                recorded.has(number, sent.as_bytes());
            }
            client.counted(&[("joined", joined), ("heads", 12), ("held", 0), ("hold_failed", 0)]);
            client.counted(&[("lost_sight", 0), ("raw_connections", 0), ("refused_at_boundary", 0)]);
            client.counted(&[("bad_checksum", 0)]);
        });
    }
}

#[test]
fn what_follows_a_head_in_several_segments_follows_it() {
    with_client(|client| {
        as_on_a_wire();
        let recorded = Recorded::start(client);
        let body = "x".repeat(1000);
        let upload = format!("POST / HTTP/1.1\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        let chunked =
            format!("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3e8\r\n{body}\r\n0\r\n\r\n");
        for (number, address) in addresses().into_iter().enumerate() {
            let mut connection = Recorded::connect(address);
            let mut sent = String::new();
            for (request, answers) in [
                (upload.clone(), 1),
                (chunked.clone(), 1),
                (upload.clone() + &get(""), 2),
                (get("") + &upload, 2),
            ] {
                send(&mut connection, &cut(&request, &[20]));
                read_answers(&mut connection, answers);
                sent += &request;
            }
            // The rest of the body by itself.
            send(&mut connection, &cut(&upload, &[20, 100, 500]));
            read_answers(&mut connection, 1);
            recorded.has(number, (sent + &upload).as_bytes());
        }
        client.counted(&[("joined", 10), ("held", 0), ("lost_sight", 0), ("raw_connections", 0)]);
        let mut connection = Recorded::connect(addresses()[0]);
        send(&mut connection, &cut(&(get("") + &get(WANTED)), &[20]));
        read_answers(&mut connection, 2);
        client.counted(&[("held", 0), ("refused_at_boundary", 1), ("interesting_heads", 1)]);
    });
}

#[test]
fn a_name_that_is_cut_is_found() {
    with_client(|client| {
        client.inspect();
        let request = get(WANTED);
        let name = request.find(WANTED).unwrap();
        for (number, at) in [name + 1, name + 4, name + 5, name + WANTED.len()].into_iter().enumerate() {
            let mut connection = client.connect();
            send(&mut connection, &cut(&request, &[at]));
            read_answers(&mut connection, 1);
            client.counted(&[("held", number as u64 + 1), ("interesting_heads", number as u64 + 1)]);
        }
        // In the last of them it was known by the first part.
        client.counted(&[("joined", 3), ("lost_sight", 0)]);
    });
}

#[test]
fn a_part_of_the_preface_of_http2_is_held() {
    with_client(|client| {
        client.inspect();
        let mut connection = client.connect();
        // What the app here takes for the ends of heads makes it answer.
        send(&mut connection, &cut("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &[9]));
        read_answers(&mut connection, 2);
        client.counted(&[("joined", 0), ("held", 1), ("hold_expired", 1)]);
    });
}

#[test]
fn a_long_head_in_segments_as_a_wire_takes_them_stays_with_the_app() {
    with_client(|client| {
        as_on_a_wire();
        let recorded = Recorded::start(client);
        let request = get(&format!("Cookie: {}\r\n", "x".repeat(10 * 1024)));
        for (number, address) in addresses().into_iter().enumerate() {
            let mut connection = Recorded::connect(address);
            for _ in 0..3 {
                ask(&mut connection, &request, 1);
            }
            recorded.has(number, request.repeat(3).as_bytes());
        }
        let counters = client.counters();
        assert!(counters["joined"] >= 6 * 7, "{counters:?}");
        client.counted(&[("heads", 6), ("held", 0), ("lost_sight", 0), ("raw_connections", 0)]);
    });
}

#[test]
fn heads_that_are_too_long_to_be_joined_are_held_as_they_were() {
    with_client(|client| {
        as_on_a_wire();
        let recorded = Recorded::start(client);
        for (number, address) in addresses().into_iter().enumerate() {
            let request = get(&format!("Cookie: {}\r\n", "x".repeat(30 * 1024)));
            let mut connection = Recorded::connect(address);
            ask(&mut connection, &request, 1);
            recorded.has(number, request.as_bytes());
        }
        client.counted(&[("held", 2), ("hold_expired", 2), ("raw_connections", 0)]);
    });
}

#[test]
fn a_second_part_that_is_too_long_leaves_the_first_to_be_held() {
    with_client(|client| {
        let recorded = Recorded::start(client);
        let body = "x".repeat(40_000);
        let upload = format!("POST / HTTP/1.1\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        for (number, address) in addresses().into_iter().enumerate() {
            let mut connection = Recorded::connect(address);
            // So that the client may send all of it at once.
            for before in 1..=8 {
                ask(&mut connection, &upload, 1);
                recorded.has(number, upload.repeat(before).as_bytes());
            }
            send(&mut connection, &cut(&upload, &[20]));
            read_answers(&mut connection, 1);
            recorded.has(number, upload.repeat(9).as_bytes());
        }
        client.counted(&[("held", 2), ("hold_expired", 2), ("joined", 0), ("raw_connections", 0)]);
        // Not because it is late.
        let mut connection = Recorded::connect(addresses()[0]);
        send(&mut connection, &cut(&get(""), &[20]));
        read_answers(&mut connection, 1);
        client.counted(&[("held", 2), ("joined", 1)]);
    });
}

#[test]
fn a_second_part_that_comes_late_finds_the_first_held() {
    with_client(|client| {
        let recorded = Recorded::start(client);
        let request = get("");
        let parts = cut(&request, &[20]);
        let mut connection = Recorded::connect(addresses()[0]);
        connection.write_all(parts[0]).unwrap();
        thread::sleep(LATE);
        connection.write_all(parts[1]).unwrap();
        read_answers(&mut connection, 1);
        // Nobody has taken it.
        client.counted(&[("joined", 1), ("held", 1), ("hold_expired", 1)]);
        // It is not waited for again.
        let mut connection = Recorded::connect(addresses()[0]);
        send(&mut connection, &parts);
        read_answers(&mut connection, 1);
        client.counted(&[("joined", 1), ("held", 2), ("hold_expired", 2)]);
        for number in 0..2 {
            recorded.has(number, request.as_bytes());
        }
    });
}

#[test]
fn a_client_that_waits_for_its_first_part_to_be_acknowledged_does_so_once() {
    with_client(|client| {
        let recorded = Recorded::start(client);
        let request = get("");
        let parts = cut(&request, &[20]);
        for number in 0..3 {
            // With Nagle's algorithm.
            let mut connection = TcpStream::connect((addresses()[0], RECORDED)).unwrap();
            for part in &parts {
                connection.write_all(part).unwrap();
            }
            read_answers(&mut connection, 1);
            recorded.has(number, request.as_bytes());
        }
        let counters = client.counters();
        assert!(counters["held"] >= 2 && counters["joined"] <= 1, "{counters:?}");
    });
}

#[test]
fn a_first_part_that_comes_again_is_known() {
    with_client(|client| {
        let recorded = Recorded::start(client);
        let request = get("");
        let mut connection = Recorded::connect(addresses()[0]);
        for number in 1..=2 {
            let start = position(&connection);
            connection.write_all(&request.as_bytes()[..20]).unwrap();
            thread::sleep(SHORT);
            // Before the second part comes,
            forged::send(&connection, start, &request.as_bytes()[..20]);
            thread::sleep(SHORT);
            connection.write_all(&request.as_bytes()[20..]).unwrap();
            read_answers(&mut connection, 1);
            // and when both have gone to the app.
            forged::send(&connection, start, &request.as_bytes()[..20]);
            thread::sleep(SHORT);
            recorded.has(0, request.repeat(number).as_bytes());
        }
        client.counted(&[("joined", 2), ("heads", 2), ("held", 0), ("lost_sight", 0)]);
        ask(&mut connection, &get(WANTED), 1);
        client.counted(&[("held", 1), ("hold_expired", 1), ("lost_sight", 0)]);
    });
}

#[test]
fn parts_that_come_again_are_known() {
    with_client(|client| {
        let recorded = Recorded::start(client);
        let request = get(&format!("X-Long: {}\r\n", "x".repeat(200)));
        let parts = cut(&request, &[20, 100, 150]);
        let mut connection = Recorded::connect(addresses()[0]);
        let start = position(&connection);
        let again = |connection: &TcpStream, from: usize, to: usize| {
            let position = Position { seq: start.seq + from as u32, ack: start.ack };
            forged::send(connection, position, &request.as_bytes()[from..to]);
        };
        send(&mut connection, &parts[..2]);
        // The last, as a client does that hears nothing of it; all of them; a half of them.
        for (from, to) in [(20, 100), (0, 20), (20, 100), (0, 100), (0, 50), (10, 70)] {
            again(&connection, from, to);
        }
        send(&mut connection, &parts[2..3]);
        // With more behind them.
        for (from, to) in [(20, 100), (0, 20), (50, 151), (100, 152)] {
            again(&connection, from, to);
        }
        client.counted(&[("held", 0), ("heads", 0), ("joined", 4)]);
        send(&mut connection, &parts[3..]);
        read_answers(&mut connection, 1);
        recorded.has(0, request.as_bytes());
        client.counted(&[
            ("held", 0),
            ("heads", 1),
            ("joined", 5),
            ("lost_sight", 0),
            ("raw_connections", 0),
        ]);
    });
}

#[test]
fn parts_come_in_any_order() {
    with_client(|client| {
        let recorded = Recorded::start(client);
        let request = get(&format!("X-Long: {}\r\n", "x".repeat(200)));
        let parts = cut(&request, &[20, 100]);
        let mut connection = Recorded::connect(addresses()[0]);
        let mut sent = String::new();
        for order in [[0, 2, 1], [1, 0, 2], [2, 1, 0]] {
            let Position { seq, ack } = position(&connection);
            for part in order {
                let from = request.len() - parts[part..].concat().len();
                forged::send(&connection, Position { seq: seq + from as u32, ack }, parts[part]);
                thread::sleep(SHORT);
            }
            // To the client's TCP it is all the same.
            connection.write_all(request.as_bytes()).unwrap();
            read_answers(&mut connection, 1);
            sent += &request;
            recorded.has(0, sent.as_bytes());
        }
        client.counted(&[("held", 0), ("lost_sight", 0), ("raw_connections", 0), ("refused_at_boundary", 0)]);
        ask(&mut connection, &get(WANTED), 1);
        client.counted(&[("held", 1), ("lost_sight", 0)]);
    });
}

#[test]
fn a_damaged_second_part_is_not_joined() {
    with_client(|client| {
        as_on_a_wire();
        let recorded = Recorded::start(client);
        let request = get("X-Other: bob\r\n");
        let mut connection = Recorded::connect(addresses()[0]);
        connection.write_all(&request.as_bytes()[..20]).unwrap();
        thread::sleep(SHORT);
        forged::send_damaged(&connection, position(&connection), b"\r\nX-Dev: alice\r\n\r\n");
        thread::sleep(SHORT);
        client.counted(&[("bad_checksum", 1), ("joined", 0)]);
        connection.write_all(&request.as_bytes()[20..]).unwrap();
        read_answers(&mut connection, 1);
        recorded.has(0, request.as_bytes());
        client.counted(&[("joined", 1), ("held", 0)]);
    });
}

#[test]
fn a_client_that_ends_its_half_behind_any_part_is_heard() {
    with_client(|client| {
        let recorded = Recorded::start(client);
        let request = get("");
        let halves = cut(&request, &[20]);
        let unfinished = cut(&request[..25], &[20]);
        let mut number = 0;
        for with_the_last_part in [true, false] {
            for parts in [&halves[..], &halves[..1], &unfinished] {
                let mut connection = Recorded::connect(addresses()[0]);
                if with_the_last_part {
                    send_and_end(&mut connection, parts);
                } else {
                    send(&mut connection, parts);
                    connection.shutdown(Shutdown::Write).unwrap();
                }
                let mut answer = String::new();
                connection.read_to_string(&mut answer).unwrap();
                let sent = parts.concat();
                assert_eq!(answer, if sent == request.as_bytes() { ANSWER } else { "" });
                recorded.has(number, &sent);
                number += 1;
            }
            if with_the_last_part {
                // Nothing had to come again.
                client.counted(&[("joined", 2), ("held", 0)]);
            }
        }
    });
}

/// Each in a segment of its own, the last of which says that there are no more.
fn send_and_end(connection: &mut TcpStream, parts: &[&[u8]]) {
    let (last, others) = parts.split_last().unwrap();
    send(connection, others);
    inspected::tcp::set(connection, libc::TCP_CORK, 1);
    connection.write_all(last).unwrap();
    connection.shutdown(Shutdown::Write).unwrap();
}

#[test]
fn the_app_gets_all_parts_when_the_agent_stops_in_between() {
    with_client(|client| {
        the_app_gets_both_parts_with(client, || {
            client.freeze();
            thread::sleep(LONG);
        });
    });
}

#[test]
fn the_app_gets_all_parts_when_nothing_is_inspected_any_more() {
    with_client(|client| {
        the_app_gets_both_parts_with(client, || {
            client.in_pod(|pod| pod.door().watch(RECORDED, &[].into()).unwrap());
        });
    });
}

/// Something happens between them.
fn the_app_gets_both_parts_with(client: &Client, between: impl FnOnce()) {
    let recorded = Recorded::start(client);
    let request = get(WANTED);
    let mut connection = Recorded::connect(addresses()[0]);
    connection.write_all(&request.as_bytes()[..20]).unwrap();
    thread::sleep(SHORT);
    between();
    connection.write_all(&request.as_bytes()[20..]).unwrap();
    read_answers(&mut connection, 1);
    recorded.has(0, request.as_bytes());
    client.counted(&[("joined", 0)]);
}

#[test]
fn the_app_may_speak_between_two_parts() {
    with_client(|client| {
        client.inspect();
        let mut connection = client.connect();
        ask(&mut connection, &get(""), 1);
        let request = get(WANTED);
        connection.write_all(&request.as_bytes()[..20]).unwrap();
        thread::sleep(SHORT);
        let address = connection.local_addr().unwrap();
        client.in_pod(move |pod| pod.app_end(address).write_all(ANSWER.as_bytes()).unwrap());
        read_answers(&mut connection, 1);
        connection.write_all(&request.as_bytes()[20..]).unwrap();
        read_answers(&mut connection, 1);
        client.counted(&[("held", 0)]);
    });
}

#[test]
fn more_first_parts_than_there_is_room_for_are_held() {
    with_client(|client| {
        /// In `aside`, where a client's port says which is tried first.
        const SLOTS: u16 = 64;
        const TOO_MANY: u16 = 20;
        client.inspect();
        let request = get("");
        let first = 400 * SLOTS;
        let mut connections: Vec<_> = (first..first + SLOTS + TOO_MANY).map(connect_from).collect();
        for part in cut(&request, &[20]) {
            for connection in &mut connections {
                connection.write_all(part).unwrap();
            }
        }
        for connection in &mut connections {
            read_answers(connection, 1);
        }
        client.counted(&[("joined", SLOTS.into()), ("held", TOO_MANY.into())]);
    });
}

/// From this port of the client's.
fn connect_from(port: u16) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).unwrap();
    let from: SocketAddr = (CLIENT.parse::<IpAddr>().unwrap(), port).into();
    socket.bind(&from.into()).unwrap();
    let app: SocketAddr = (POD.parse::<IpAddr>().unwrap(), PORT).into();
    socket.connect(&app.into()).unwrap();
    ready(socket.into())
}

#[test]
fn room_is_free_again_when_both_parts_have_come_or_their_connection_is_gone() {
    with_client(|client| {
        client.inspect();
        let request = get("");
        let mut connection = client.connect();
        let before = 500;
        for _ in 0..before {
            send_at_once(&mut connection, &request);
        }
        client.counted(&[("joined", before), ("held", 0)]);
        // The rest of these never comes.
        let address: SocketAddr = (POD.parse::<IpAddr>().unwrap(), PORT).into();
        for _ in 0..100 {
            let mut connection = ready(TcpStream::connect(address).unwrap());
            connection.write_all(&request.as_bytes()[..20]).unwrap();
            inspected::tcp::reset(connection);
        }
        let held = client.counters()["held"];
        thread::sleep(LONG);
        for _ in 0..before {
            send_at_once(&mut connection, &request);
        }
        client.counted(&[("joined", 2 * before), ("held", held)]);
    });
}

fn send_at_once(connection: &mut TcpStream, request: &str) {
    send(connection, &cut(request, &[20]));
    read_answers(connection, 1);
}
