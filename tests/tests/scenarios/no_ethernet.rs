//! Devices whose packets have no Ethernet header (tun; netkit and WireGuard are alike): connections over them are inspected
//! and parked as over any other.

use lab::{App, Cable, Connection, Family, Stream, eventually};
use serde_json::json;

use crate::{
    parking::{Waiting, ask},
    scene::{ALICE, PORT, in_lab, served_by},
};

#[test]
fn connections_over_a_tun_device_are_inspected_and_parked() {
    in_lab(|lab| {
        let cable = Cable::tun(&lab.pod, &lab.client);
        let waiting = Waiting::new(lab);
        let mut existing = Family::BOTH.map(|family| lab.client.connect(Cable::near(family, PORT)));
        for connection in &mut existing {
            ask(connection, false);
        }
        let alice = waiting.intercept("inspect");
        for connection in &mut existing {
            for matching in [false, false, true, false, true] {
                ask(connection, matching);
            }
        }
        for family in Family::BOTH {
            for order in [[true, false, true], [false, true, false]] {
                let mut connection = lab.client.connect(Cable::near(family, PORT));
                for matching in order {
                    ask(&mut connection, matching);
                }
            }
        }
        assert_eq!(waiting.counted("parked"), 6);
        assert_eq!(waiting.packets("bad_checksum"), 0);
        drop((alice, waiting, cable));
    });
}

#[test]
fn a_large_body_follows_its_head_over_a_tun_device() {
    const SIZE: usize = 1_000_000;
    in_lab(|lab| {
        let cable = Cable::tun(&lab.pod, &lab.client);
        let waiting = Waiting::new(lab);
        let alice = waiting.intercept("inspect");
        for family in Family::BOTH {
            for (header, server) in [(ALICE, "alice"), ("x-other: nobody", "app")] {
                let mut connection: Connection = lab.client.connect(Cable::near(family, PORT));
                let head = format!(
                    "POST / HTTP/1.1\r\nHost: pod.test\r\n{header}\r\nContent-Length: {SIZE}\r\n\r\n"
                );
                let answer = connection.ask(head + &"x".repeat(SIZE));
                assert_eq!(served_by(&answer), server);
                assert_eq!(answer.json()["body_length"], json!(SIZE));
                ask(&mut connection, true);
            }
        }
        drop((alice, waiting, cable));
    });
}

#[test]
fn an_app_behind_a_tun_device_sees_a_plain_end_of_stream() {
    in_lab(|lab| {
        let cable = Cable::tun(&lab.pod, &lab.client);
        let app = App::ends(lab, &lab.pod, lab::Ends::Threads, PORT);
        let waiting = Waiting::without_app(lab);
        let alice = waiting.intercept("inspect");
        ask(&mut lab.client.connect(Cable::near(Family::V4, PORT)), true);
        let printed =
            |line: &str| app.log().lines(Stream::Stdout).iter().filter(|seen| *seen == line).count();
        eventually("it has ended", || printed("end") == 1);
        // What its socket sends at the end is answered in the client's place.
        eventually("the app's socket is gone", || lab.pod.netns.sh("ss -Htn state last-ack").is_empty());
        drop((alice, waiting, app, cable));
    });
}
