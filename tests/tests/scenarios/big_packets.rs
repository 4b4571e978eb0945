//! Packets beyond the 64 KiB that an IP header can count (BIG TCP): a body that comes in them is a body like any other.

use lab::{App, Cable, Connection, Family, LargestPacket};
use serde_json::json;

use crate::{
    parking::{Waiting, ask},
    scene::{PORT, in_lab, served_by, text},
};

const BODY: usize = 32 << 20;
const LARGEST: u32 = 190_000;
/// What an IP header can count.
const COUNTED: usize = 1 << 16;

/// How packets of the cable look.
fn with_big_packets(body: impl Fn(&Waiting<'_>, &LargestPacket, Family)) {
    in_lab(|lab| {
        let cable = Cable::veth(&lab.pod, &lab.client);
        Cable::allow_packets_of(LARGEST, [&lab.pod, &lab.client]);
        let file = lab.directory().join("file");
        std::fs::write(&file, vec![b'x'; BODY]).unwrap();
        let app = App::echo_with(lab, &lab.pod, "app", &[PORT], &["--file", &file.to_string_lossy()]);
        let waiting = Waiting::without_app(lab);
        let alice = waiting.intercept("inspect");
        for family in Family::BOTH {
            body(&waiting, &LargestPacket::of(&lab.pod), family);
        }
        drop((alice, waiting, app, cable));
    });
}

fn connect(waiting: &Waiting<'_>, family: Family) -> Connection {
    waiting.client().connect(Cable::near(family, PORT))
}

fn upload(headers: &str) -> Vec<u8> {
    let head = format!("POST / HTTP/1.1\r\nHost: pod.test\r\n{headers}\r\nContent-Length: {BODY}\r\n\r\n");
    let mut request = head.into_bytes();
    request.resize(request.len() + BODY, b'x');
    request
}

#[test]
fn a_request_after_bodies_in_big_packets_is_the_developers() {
    with_big_packets(|waiting, largest, family| {
        let lost = waiting.packets("lost_sight");
        let mut connection = connect(waiting, family);
        ask(&mut connection, false);
        let report = connection.ask(upload("x-other: nobody")).json();
        assert_eq!((text(&report, "served_by").as_str(), &report["body_length"]), ("app", &json!(BODY)));
        assert!(largest.take() > COUNTED, "{family:?}: no big packets came in");
        let download = connection.ask("GET /file HTTP/1.1\r\nHost: pod.test\r\n\r\n");
        assert_eq!(download.body.len(), BODY);
        assert!(largest.take() > COUNTED, "{family:?}: no big packets went out");
        let parked = waiting.counted("parked");
        ask(&mut connection, true);
        assert_eq!(waiting.counted("parked"), parked + 1);
        assert_eq!(waiting.packets("lost_sight"), lost, "{family:?}");
        assert_eq!(waiting.packets("raw_connections"), 0, "{family:?}");
    });
}

#[test]
fn a_parked_connection_carries_big_packets() {
    with_big_packets(|waiting, largest, family| {
        let mut connection = connect(waiting, family);
        ask(&mut connection, true);
        let _ = largest.take();
        let answer = connection.ask(upload("x-dev: alice"));
        assert_eq!((served_by(&answer).as_str(), &answer.json()["body_length"]), ("alice", &json!(BODY)));
        assert!(largest.take() > COUNTED, "{family:?}: no big packets came in");
        let download = connection.ask("GET /file HTTP/1.1\r\nHost: pod.test\r\n\r\n");
        assert_eq!(download.body.len(), BODY);
        ask(&mut connection, true);
    });
}
