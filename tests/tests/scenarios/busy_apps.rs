//! Apps that do not answer just now, or not any more, or that are several processes: requests with the context reach the
//! developer all the same, and others wait for the app as they would without us.

use lab::{App, Connection, Family};
use nix::sys::signal::Signal;

use crate::{
    parking::{Waiting, ask, request},
    scene::{PORT, in_lab, served_by},
};

#[test]
fn a_stopped_app_keeps_nobody_from_the_developer() {
    in_lab(|lab| {
        let app = App::echo(lab, &lab.pod, "app", &[PORT]);
        let waiting = Waiting::without_app(lab);
        let alice = waiting.intercept("inspect");
        let mut known: Vec<Connection> =
            (0..8).map(|number| waiting.connect(Family::BOTH[number % 2])).collect();
        for (number, connection) in known.iter_mut().enumerate() {
            ask(connection, number >= 4);
        }
        app.process().signal(Signal::SIGSTOP);
        for connection in &mut known {
            ask(connection, true);
        }
        let mut fresh = waiting.connect(Family::V4);
        ask(&mut fresh, true);
        // What is the app's waits for it, on a parked connection, too.
        fresh.send(request("/whoami", false));
        let mut live = waiting.connect(Family::V6);
        live.send(request("/whoami", false));
        ask(&mut known[0], true);
        app.process().signal(Signal::SIGCONT);
        for connection in [&mut fresh, &mut live] {
            assert_eq!(served_by(&connection.response("GET")), "app");
        }
        for connection in &mut known {
            ask(connection, false);
            ask(connection, true);
        }
        drop((alice, waiting, app));
    });
}

#[test]
fn a_parked_connection_outlives_the_app_it_was_made_to() {
    in_lab(|lab| {
        let app = App::echo(lab, &lab.pod, "app", &[PORT]);
        let waiting = Waiting::without_app(lab);
        let alice = waiting.intercept("inspect");
        let mut connections = Family::BOTH.map(|family| waiting.connect(family));
        for connection in &mut connections {
            ask(connection, false);
            ask(connection, true);
        }
        // Killed: what it still had to say to the old connections is said to nobody.
        drop(app);
        for connection in &mut connections {
            ask(connection, true);
        }
        let app = App::echo(lab, &lab.pod, "app", &[PORT]);
        for connection in &mut connections {
            ask(connection, false);
            ask(connection, true);
        }
        for family in Family::BOTH {
            let mut connection = waiting.connect(family);
            ask(&mut connection, false);
            ask(&mut connection, true);
        }
        drop((alice, waiting, app));
    });
}

#[test]
fn several_processes_can_share_a_port() {
    in_lab(|lab| {
        let apps = [(); 3].map(|()| App::echo_with(lab, &lab.pod, "app", &[PORT], &["--reuse-port"]));
        let waiting = Waiting::without_app(lab);
        let alice = waiting.intercept("inspect");
        for number in 0..30 {
            let mut connection = waiting.connect(Family::BOTH[number % 2]);
            for matching in [number % 3 == 0, true, false] {
                ask(&mut connection, matching);
            }
        }
        assert_eq!(waiting.counted("parked"), 30);
        // The kernel goes on to give it connections.
        apps[0].process().signal(Signal::SIGSTOP);
        for number in 0..30 {
            ask(&mut waiting.connect(Family::BOTH[number % 2]), true);
        }
        apps[0].process().signal(Signal::SIGCONT);
        drop((alice, waiting, apps));
    });
}
