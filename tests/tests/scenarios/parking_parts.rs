//! A head that comes in several segments is judged like one that comes in one, and it does not take its connection from the app.

use std::{thread, time::Duration};

use lab::{Connection, Family};

use crate::{
    parking::{Waiting, ask, request},
    scene::{ALICE, in_lab, served_by, text},
};

/// More than the least retransmission timeout of Linux.
const LATE: Duration = Duration::from_millis(300);

/// In a segment each. The answer is still to come.
fn send_cut(connection: &mut Connection, request: &str, at: &[usize]) {
    let mut from = 0;
    for end in at.iter().copied().chain([request.len()]) {
        connection.send(&request[from..end]);
        from = end;
    }
}

#[test]
fn a_live_head_in_several_segments_stays_with_the_app() {
    in_lab(|lab| {
        let waiting = Waiting::new(lab);
        let mut existing = Family::BOTH.map(|family| waiting.connect(family));
        for connection in &mut existing {
            ask(connection, false);
        }
        // It says so by being idle.
        thread::sleep(Duration::from_millis(1200));
        let _alice = waiting.intercept("inspect");
        let live = request("/whoami", false);
        for mut connection in existing.into_iter().chain(Family::BOTH.map(|family| waiting.connect(family))) {
            let first = ask(&mut connection, false).json();
            for at in [&[5][..], &[live.len() - 3], &[3, 30], &[1, 2, 3, 4]] {
                send_cut(&mut connection, &live, at);
                assert_eq!(connection.response("GET").json()["connection"], first["connection"]);
            }
        }
        assert_eq!((waiting.counted("parked"), waiting.packets("held")), (0, 0));
        assert_eq!(waiting.packets("joined"), 4 * 8);
    });
}

#[test]
fn a_developers_head_in_several_segments_is_the_developers() {
    in_lab(|lab| {
        let waiting = Waiting::new(lab);
        let _alice = waiting.intercept("inspect");
        let body = "x".repeat(5000);
        let upload =
            format!("POST / HTTP/1.1\r\nContent-Length: 5000\r\nHost: pod.test\r\n{ALICE}\r\n\r\n{body}");
        let name = upload.find(ALICE).unwrap();
        let all = upload.len() - body.len();
        let cuts = [&[5][..], &[name + 2], &[name + 3, name + 7], &[all - 1], &[all - 1, all, all + 10]];
        for at in cuts {
            for family in Family::BOTH {
                for before in [false, true] {
                    let mut connection = waiting.connect(family);
                    if before {
                        ask(&mut connection, false);
                    }
                    send_cut(&mut connection, &upload, at);
                    let answer = connection.response("POST");
                    assert_eq!(served_by(&answer), "alice", "cut at {at:?}");
                    assert_eq!(answer.json()["body_length"], 5000);
                    ask(&mut connection, false);
                    ask(&mut connection, true);
                }
            }
        }
        assert_eq!((waiting.counted("parked"), waiting.counted("falsely_parked")), (20, 0));
    });
}

#[test]
fn a_second_part_that_comes_late_finds_its_connection_with_the_agent() {
    in_lab(|lab| {
        let waiting = Waiting::new(lab);
        let _alice = waiting.intercept("inspect");
        for (matching, part, late) in [(true, 20, LATE), (false, 20, LATE), (true, 7, 3 * LATE)] {
            let mut connection = waiting.connect(Family::V4);
            let request = request("/whoami", matching);
            connection.send(&request[..part]);
            thread::sleep(late);
            connection.send(&request[part..]);
            let by = served_by(&connection.response("GET"));
            let status = waiting.agent.json(&["status"]);
            assert_eq!(by, if matching { "alice" } else { "app" }, "{status}");
        }
        assert_eq!(waiting.counted("parked"), 3);
    });
}

#[test]
fn a_live_head_of_which_a_part_has_come_gets_to_the_app_when_the_agent_dies() {
    in_lab(|lab| {
        let live = request("/whoami", false);
        for (killed, pause) in [(true, None), (true, Some(LATE)), (false, None), (false, Some(LATE))] {
            let waiting = Waiting::new(lab);
            let alice = waiting.intercept("inspect");
            let mut connections = Family::BOTH.map(|family| waiting.connect(family));
            let first = connections.each_mut().map(|connection| ask(connection, false).json());
            for connection in &mut connections {
                connection.send(&live[..20]);
            }
            // If the agent took them for that, it would have done so by now.
            thread::sleep(Duration::from_millis(20));
            let Waiting { agent, alice_app, app, .. } = waiting;
            let agent = if killed {
                agent.kill();
                None
            } else {
                agent.freeze();
                Some(agent)
            };
            if let Some(pause) = pause {
                thread::sleep(pause);
            }
            for (connection, first) in connections.iter_mut().zip(first) {
                connection.send(&live[20..]);
                let report = connection.response("GET").json();
                assert_eq!(text(&report, "served_by"), "app");
                assert_eq!(report["connection"], first["connection"]);
            }
            agent.iter().for_each(lab::Agent::thaw);
            drop((alice, agent, alice_app, app));
        }
    });
}
