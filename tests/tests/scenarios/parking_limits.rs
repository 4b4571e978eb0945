//! No room for one more: the app gets the request, nothing hangs, and it is counted.

use lab::{AgentMap, CABLE, Cable, Connection, Family};

use crate::{
    parking::{Waiting, ask, request},
    scene::{ALICE, PORT, in_lab, served_by},
};

/// Asks on a new connection; whoever is to be asked when there is no room.
#[track_caller]
fn who_answers(waiting: &Waiting<'_>, family: Family) -> String {
    served_by(&waiting.connect(family).ask(request("/whoami", true)))
}

fn without_room_in(map: &str, counted: impl Fn(&Waiting<'_>) -> u64) {
    in_lab(|lab| {
        let waiting = Waiting::new(lab);
        let alice = waiting.intercept("inspect");
        let mut parked = waiting.connect(Family::V4);
        let mut live = waiting.connect(Family::V6);
        ask(&mut parked, true);
        ask(&mut live, false);
        let map = AgentMap::of(&waiting.agent, map);
        map.fill();
        let before = counted(&waiting);
        for family in Family::BOTH {
            assert_eq!(who_answers(&waiting, family), "app");
        }
        assert_eq!(counted(&waiting), before + 2);
        // What is parked stays so, and what is live.
        for matching in [true, false, true] {
            ask(&mut parked, matching);
            ask(&mut live, false);
        }
        map.make_room();
        for family in Family::BOTH {
            lab::eventually("alice answers again", || who_answers(&waiting, family) == "alice");
        }
        ask(&mut live, true);
        drop((alice, waiting));
    });
}

#[test]
fn what_can_not_be_held_is_the_apps() {
    without_room_in("HOLDS", |waiting| waiting.packets("hold_failed"));
}

#[test]
fn what_can_not_be_parked_is_the_apps() {
    without_room_in("FLOWS", |waiting| waiting.counted("given_back"));
}

/// The agent takes nothing out of the ring, and has not been away for long enough to be noticed.
#[test]
fn what_the_agent_can_not_be_told_of_is_the_apps() {
    /// As much of it as the ring's records have room for: 16 KiB, of 4 MiB.
    const BODY: usize = 20_000;
    const CONNECTIONS: usize = 400;
    in_lab(|lab| {
        // In one segment.
        let cable = Cable::veth(&lab.pod, &lab.client);
        for end in [&lab.pod, &lab.client] {
            end.netns.ip(&format!("link set {CABLE} mtu 40000"));
        }
        let waiting = Waiting::new(lab);
        let alice = waiting.intercept("inspect");
        let head = format!("POST / HTTP/1.1\r\nHost: pod.test\r\n{ALICE}\r\nContent-Length: {BODY}\r\n\r\n");
        let request = head + &"x".repeat(BODY);
        let mut connections: Vec<Connection> = (0..CONNECTIONS)
            .map(|number| lab.client.connect(Cable::near(Family::BOTH[number % 2], PORT)))
            .collect();
        waiting.agent.freeze();
        for connection in &mut connections {
            connection.send(&request);
        }
        for connection in &mut connections {
            let report = connection.response("POST").json();
            assert_eq!((&report["served_by"], &report["body_length"]), (&"app".into(), &BODY.into()));
        }
        waiting.agent.thaw();
        assert!(waiting.packets("held") > 200, "{}", waiting.agent.json(&["status"]));
        assert!(waiting.packets("hold_failed") > 0, "{}", waiting.agent.json(&["status"]));
        lab::eventually("alice answers again", || who_answers(&waiting, Family::V4) == "alice");
        for connection in connections.iter_mut().take(20) {
            ask(connection, false);
        }
        drop((alice, waiting, cable));
    });
}
