//! The app comes and goes while it is intercepted.

use std::{io::ErrorKind, net::SocketAddr};

use lab::{Agent, App, Connection, Lab, eventually};

use crate::scene::{
    ALICE, DIRECT, LOCAL, PORT, Route, Scene, assert_routing, for_alice, in_lab, served_by, who_answers,
};

#[test]
fn an_app_that_restarts_while_intercepted_is_found_again() {
    in_lab(|lab| {
        let Scene { alice: _alice, agent: _agent, alice_app: _alice_app, app, .. } = Scene::new(lab);
        assert_routing(lab);
        drop(app);
        assert_refused(lab);
        let _second = App::echo(lab, &lab.pod, "app", &[PORT, DIRECT]);
        assert_routing(lab);
    });
}

#[test]
fn an_app_that_binds_again_with_clients_waiting_is_found_again() {
    in_lab(|lab| {
        let Scene { alice: _alice, agent: _agent, alice_app: _alice_app, app, .. } = Scene::new(lab);
        // These connections are the old app's: they must end, not move over.
        let mut connections: Vec<Connection> =
            (0..10).map(|_| lab.client.connect(lab.pod.at(PORT))).collect();
        for connection in &mut connections {
            assert_eq!(served_by(&connection.ask(Route::Live.get("/"))), "app");
        }
        drop(app);
        for mut connection in connections {
            assert!(matches!(connection.try_rest().as_deref(), Ok([]) | Err(_)));
        }
        let _second = App::echo(lab, &lab.pod, "second", &[PORT]);
        assert_eq!(who_answers(lab, Route::Live.header()), "second");
        assert_eq!(who_answers(lab, ALICE), "alice");
    });
}

#[test]
fn a_port_on_which_nothing_listens_refuses_as_it_does_without_the_agent() {
    in_lab(|lab| {
        let agent = Agent::start(lab);
        assert_refused(lab);
        let _alice_app = App::echo(lab, &lab.dev, "alice", &[LOCAL]);
        let _alice = for_alice(lab, &agent).start(lab);
        assert_refused(lab);
        let _app = App::echo(lab, &lab.pod, "app", &[PORT]);
        assert_routing(lab);
    });
}

#[test]
fn a_client_port_out_of_time_wait_can_be_used_again() {
    in_lab(|lab| {
        let Scene { alice: _alice, agent: _agent, alice_app: _alice_app, app: _app, .. } = Scene::new(lab);
        let answered = |route: Route| {
            let mut connection = from_port(lab, 40_000);
            let server = served_by(&connection.ask(route.get("/close")));
            // The pod's side closes first, so the TIME_WAIT is the pod's.
            assert_eq!(connection.rest(), b"");
            drop(connection);
            wait_for_time_wait(lab);
            server
        };
        assert_eq!(answered(Route::Alice), "alice", "a fresh port");
        // By design a connection out of TIME_WAIT is left alone: it is answered, but may not be routed.
        for route in [Route::Live, Route::Alice, Route::Live, Route::Alice] {
            let server = answered(route);
            assert!(server == "app" || server == route.server(), "{route:?}: {server}");
        }
        assert_routing(lab);
    });
}

#[test]
fn a_client_port_in_time_wait_since_before_the_intercept_can_be_used_again() {
    in_lab(|lab| {
        let _app = App::echo(lab, &lab.pod, "app", &[PORT]);
        let _alice_app = App::echo(lab, &lab.dev, "alice", &[LOCAL]);
        let agent = Agent::start(lab);
        let mut connection = from_port(lab, 40_000);
        assert_eq!(served_by(&connection.ask(Route::Live.get("/close"))), "app");
        assert_eq!(connection.rest(), b"");
        drop(connection);
        wait_for_time_wait(lab);
        let _alice = for_alice(lab, &agent).start(lab);
        // It must be answered, not time out.
        let answer = from_port(lab, 40_000).ask(Route::Live.get("/"));
        assert_eq!(served_by(&answer), "app");
        assert_routing(lab);
    });
}

/// A connection of the client from a port of choice.
#[track_caller]
fn from_port(lab: &Lab, port: u16) -> Connection {
    let from = SocketAddr::new(lab.client.v4.into(), port);
    let opened = lab.client.netns.run(|| Connection::open_from(from, lab.pod.at(PORT)));
    opened.unwrap_or_else(|error| panic!("connect from port {port}: {error}"))
}

fn wait_for_time_wait(lab: &Lab) {
    eventually("the connection is in TIME_WAIT in the pod", || {
        lab.pod.netns.sh("ss -Htn state time-wait").lines().any(|line| line.contains(":40000"))
    });
}

/// Asserts that the client is told no, with an error and not with an end of stream.
#[track_caller]
fn assert_refused(lab: &Lab) {
    for family in lab::Family::BOTH {
        let to = SocketAddr::new(lab.pod.ip(family), PORT);
        let answer = lab.client.netns.run(|| {
            let mut connection = Connection::open(to)?;
            connection.try_send(Route::Live.get("/"))?;
            connection.try_rest()
        });
        let error = answer.expect_err("nothing listens").kind();
        let refused = [ErrorKind::ConnectionRefused, ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
        assert!(refused.contains(&error), "{family:?}: {error}");
    }
}
