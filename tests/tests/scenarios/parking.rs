//! Connections change from the app to the agent between two requests, and nobody notices: not the client, not the app.

use std::net::SocketAddr;

use lab::{Agent, App, Connection, Developer, Family, Lab, eventually};
use serde_json::Value;

use crate::scene::{LOCAL, PORT, Route, for_alice, in_lab, served_by, text};

/// The echo app, alice's echo app, and an agent; nobody intercepts yet. (Fields are dropped in this order.)
struct Waiting<'a> {
    agent: Agent,
    _alice_app: App,
    _app: App,
    lab: &'a Lab,
}

impl<'a> Waiting<'a> {
    fn new(lab: &'a Lab) -> Self {
        let app = App::echo(lab, &lab.pod, "app", &[PORT]);
        Self {
            agent: Agent::start(lab),
            _alice_app: App::echo(lab, &lab.dev, "alice", &[LOCAL]),
            _app: app,
            lab,
        }
    }

    fn intercept(&self, datapath: &str) -> Developer {
        for_alice(self.lab, &self.agent).argument("--datapath").argument(datapath).start(self.lab)
    }

    fn connect(&self, family: Family) -> Connection {
        self.lab.client.connect(SocketAddr::new(self.lab.pod.ip(family), PORT))
    }
}

/// What `status` counted on the intercepted port.
fn counted(agent: &Agent, what: &str) -> u64 {
    let status = agent.json(&["status"]);
    status["targets"][0]["ports"][PORT.to_string()][what].as_u64().unwrap_or_else(|| panic!("{what} in {status}"))
}

/// One request, answered by the server at the end of its route; gives the report.
#[track_caller]
fn ask(connection: &mut Connection, route: Route) -> Value {
    let answer = connection.ask(route.get("/whoami"));
    assert_eq!(served_by(&answer), route.server());
    answer.json()
}

#[test]
fn a_connection_that_existed_before_is_answered_by_the_developer_from_the_first_match_on() {
    for datapath in ["inspect", "auto"] {
        in_lab(|lab| {
            let waiting = Waiting::new(lab);
            let mut connections = Family::BOTH.map(|family| waiting.connect(family));
            for connection in &mut connections {
                ask(connection, Route::Live);
            }
            let _alice = waiting.intercept(datapath);
            for connection in &mut connections {
                for route in [Route::Live, Route::Live, Route::Alice, Route::Alice, Route::Live, Route::Alice] {
                    ask(connection, route);
                }
            }
            assert_eq!(counted(&waiting.agent, "parked"), 2, "{}", waiting.agent.json(&["status"]));
        });
    }
}

#[test]
fn the_first_request_of_a_connection_can_be_a_developers() {
    in_lab(|lab| {
        let waiting = Waiting::new(lab);
        let _alice = waiting.intercept("inspect");
        for family in Family::BOTH {
            for routes in [[Route::Alice, Route::Live], [Route::Live, Route::Alice]] {
                let mut connection = waiting.connect(family);
                for route in routes {
                    ask(&mut connection, route);
                }
            }
        }
    });
}
