//! Every request is routed by its own head, whatever went before it on its connection.

use std::{
    io::Write as _,
    net::TcpStream,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

use lab::{Agent, App, Connection, Curl, Lab, Peer, Server, eventually};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::Value;

use crate::scene::{LOCAL, PORT, Route, for_alice, in_lab, intercepted_by_each_datapath, served_by, text};

#[test]
fn requests_on_one_connection_are_routed_one_by_one() {
    intercepted_by_each_datapath(|scene| {
        let to = scene.lab.pod.at(PORT);
        let routes: Vec<Route> = Route::BOTH.into_iter().cycle().take(20).collect();
        let curl = routes
            .iter()
            .fold(Curl::on(&scene.lab.client), |curl, route| curl.get(to, "/whoami", &[route.header()]));
        let answers = curl.answers();
        assert_eq!(
            answers.iter().map(|answer| answer.connects).sum::<u32>(),
            1,
            "one connection: {answers:?}"
        );

        let reports: Vec<Value> =
            answers.iter().map(|answer| serde_json::from_str(&answer.body).expect("a report")).collect();
        for (route, report) in routes.iter().zip(&reports) {
            assert_eq!(text(report, "served_by"), route.server());
        }
        let app: Vec<&Value> = reports.iter().filter(|report| report["served_by"] == "app").collect();
        for (number, report) in app.iter().enumerate() {
            assert_eq!(report["connection"], app[0]["connection"], "one connection to the app: {report}");
            assert_eq!(report["request"], number, "the app got every request once and in order: {report}");
        }
    });
}

#[test]
fn a_connection_routes_in_any_order_of_routes() {
    use Route::{Alice, Live};
    intercepted_by_each_datapath(|scene| {
        for order in [[Alice, Alice, Live], [Alice, Live, Alice], [Live, Live, Alice], [Live, Alice, Alice]] {
            let mut connection = scene.connect();
            for route in order {
                assert_eq!(served_by(&connection.ask(route.get("/"))), route.server(), "{order:?}");
            }
        }
    });
}

#[test]
fn a_thousand_connections_at_once_get_their_own_answers() {
    const CONNECTIONS: usize = 1000;
    raise_open_files(4 * CONNECTIONS as u64);
    in_lab(|lab| {
        let scene = crate::scene::Scene::new(lab);
        let mut connections: Vec<Connection> = (0..CONNECTIONS).map(|_| scene.connect()).collect();
        for round in 0..4 {
            let route = |number: usize| Route::BOTH[(number + round) % 2];
            for (number, connection) in connections.iter_mut().enumerate() {
                connection.send(route(number).get(&format!("/?number={number}&round={round}")));
            }
            for (number, connection) in connections.iter_mut().enumerate() {
                let report = connection.response("GET").json();
                assert_eq!(text(&report, "target"), format!("/?number={number}&round={round}"));
                assert_eq!(text(&report, "served_by"), route(number).server(), "{number} in round {round}");
            }
        }
    });
}

#[test]
fn a_connection_that_the_server_closes_is_closed_for_the_client() {
    intercepted_by_each_datapath(|scene| {
        scene.same_as_direct(|connection, route| {
            let answer = connection.ask(route.get("/close"));
            (answer.text(), connection.rest_text())
        });
        scene.same_as_direct(|connection, route| connection.ask(route.get("/until-close")).text());
        scene.assert_routing();
    });
}

#[test]
fn a_client_that_asks_to_close_gets_its_answer_and_the_end() {
    intercepted_by_each_datapath(|scene| {
        scene.same_as_direct(|connection, route| {
            connection.send(route.request("GET", "/", "Connection: close\r\n", ""));
            connection.rest_text()
        });
    });
}

#[test]
fn an_app_that_closes_after_its_answer_is_seen_to_close_after_a_developers_request_too() {
    intercepted_by_each_datapath(|scene| {
        for path in ["/until-close", "/close"] {
            let mut connection = scene.connect();
            assert_eq!(served_by(&connection.ask(Route::Alice.get("/"))), "alice");
            connection.send(Route::Live.get(path));
            let answer = connection.rest_text();
            assert!(answer.starts_with("HTTP/1.1 200 "), "{path}: {answer}");
        }
    });
}

#[test]
fn an_app_that_ends_an_idle_connection_does_not_end_that_of_a_developers_client() {
    in_lab(|lab| {
        // Each connection gets one answer, and is then closed without a word.
        let app = Server::start(&lab.pod.netns, lab.pod.at(PORT), |stream: &TcpStream, peer: &Peer| {
            let _ = peer.wait_for(1);
            (&*stream).write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\napp")
        });
        let agent = Agent::start(lab);
        let _alice_app = App::echo(lab, &lab.dev, "alice", &[LOCAL]);
        let _alice = for_alice(lab, &agent).start(lab);
        let mut connection = lab.client.connect(lab.pod.at(PORT));
        for _ in 0..3 {
            assert_eq!(served_by(&connection.ask(Route::Alice.get("/"))), "alice");
            assert_eq!(connection.ask(Route::Live.get("/")).body, b"app");
            assert_eq!(
                served_by(&connection.ask(Route::Alice.get("/"))),
                "alice",
                "as soon as the app has closed"
            );
        }
        drop(app);
    });
}

/// An app whose first connection gets one answer, and is closed when the second request has come, without an answer or in
/// the middle of one. Other connections get answers.
fn app_that_ends_its_first_connection(lab: &Lab, last_words: &'static [u8]) -> Server {
    let first = AtomicBool::new(true);
    Server::start(&lab.pod.netns, lab.pod.at(PORT), move |mut stream: &TcpStream, peer: &Peer| {
        let ends = first.swap(false, Relaxed);
        for count in 1.. {
            let requests = || String::from_utf8_lossy(&peer.received()).matches("\r\n\r\n").count();
            eventually("a request, or the end", || requests() >= count || peer.ended());
            if ends && count == 2 {
                return stream.write_all(last_words);
            }
            if peer.ended() {
                return Ok(());
            }
            let last = String::from_utf8_lossy(&peer.received()).contains("Connection: close");
            let close = if last { "Connection: close\r\n" } else { "" };
            write!(stream, "HTTP/1.1 200 OK\r\n{close}Content-Length: 3\r\n\r\napp")?;
            if last {
                return Ok(());
            }
        }
        Ok(())
    })
}

/// Has the app's connection idle while alice answers, and then makes a request that meets its end; gives what the client got
/// for that, and how many connections the app had.
fn meet_the_end(method: &str, last_words: &'static [u8]) -> (String, usize) {
    let mut outcome = None;
    in_lab(|lab| {
        let app = app_that_ends_its_first_connection(lab, last_words);
        let agent = Agent::start(lab);
        let _alice_app = App::echo(lab, &lab.dev, "alice", &[LOCAL]);
        let _alice = for_alice(lab, &agent).argument("--datapath").argument("proxy").start(lab);
        let mut connection = lab.client.connect(lab.pod.at(PORT));
        for route in [Route::Live, Route::Alice] {
            assert_eq!(connection.ask(route.get("/")).status, 200, "{route:?}");
        }
        connection.send(Route::Live.request(method, "/", "Connection: close\r\nContent-Length: 0\r\n", ""));
        let last = connection.rest_text();
        let live = &agent.json(&["status"])["targets"][0]["ports"][PORT.to_string()]["requests"]["http/1.1"];
        assert_eq!(live["live"], 2, "each is counted once: {live}");
        outcome = Some((last, app.peers().len()));
        drop(connection);
    });
    outcome.unwrap()
}

#[test]
fn a_request_that_meets_the_end_of_an_idle_connection_to_the_app_is_sent_again() {
    let (answer, connections) = meet_the_end("GET", b"");
    assert!(answer.ends_with("app"), "{answer}");
    assert_eq!(connections, 2);
}

#[test]
fn a_request_that_must_not_be_repeated_is_not() {
    assert_eq!(meet_the_end("POST", b""), (String::new(), 1));
}

#[test]
fn a_request_whose_answer_has_begun_is_not_sent_again() {
    let words = "HTTP/1.1 200 OK\r\nContent-Length: 30\r\n\r\nnot";
    assert_eq!(meet_the_end("GET", words.as_bytes()), (words.to_owned(), 1));
}

#[test]
fn a_client_that_leaves_while_the_developer_thinks_is_let_go() {
    intercepted_by_each_datapath(|scene| {
        for reset in [false, true] {
            let mut connection = scene.connect();
            connection.send(Route::Alice.get("/stall"));
            eventually("the request is under way", || open_connections(&scene.agent) == 1);
            if reset {
                connection.reset();
            } else {
                drop(connection);
            }
            eventually("nothing is open any more", || open_connections(&scene.agent) == 0);
        }
        scene.assert_routing();
    });
}

fn open_connections(agent: &Agent) -> u64 {
    let status = agent.json(&["status"]);
    status["targets"][0]["ports"][PORT.to_string()]["open"].as_u64().expect("a count")
}

/// The soft limit of this process, up to the hard one: each connection is a file.
fn raise_open_files(wanted: u64) {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, soft.max(wanted.min(hard)), hard).unwrap();
}
