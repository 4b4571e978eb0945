//! Connections change from the app to the agent between two requests, and nobody notices: not the client, not the app.

use std::{
    collections::BTreeSet,
    fs, io,
    net::{SocketAddr, TcpStream},
    thread,
    time::Duration,
};

use lab::{
    Agent, AgentOptions, App, Connection, Curl, Developer, Family, KeepAliveClient, Lab, Log, Process,
    Response, Stream, eventually,
};
use serde_json::Value;

use crate::scene::{ALICE, LOCAL, PORT, for_alice, in_lab, served_by, text};

/// The echo app and an agent; alice's server runs, and nobody intercepts yet. (Fields are dropped in this order.)
pub struct Waiting<'a> {
    pub agent: Agent,
    pub alice_app: App,
    pub app: Option<App>,
    lab: &'a Lab,
}

impl<'a> Waiting<'a> {
    pub fn new(lab: &'a Lab) -> Self {
        let app = App::echo(lab, &lab.pod, "app", &[PORT]);
        Self { app: Some(app), ..Self::without_app(lab) }
    }

    pub fn without_app(lab: &'a Lab) -> Self {
        let alice_app = App::echo(lab, &lab.dev, "alice", &[LOCAL]);
        let agent = Agent::start_with(lab, &AgentOptions::allow_all());
        Self { agent, alice_app, app: None, lab }
    }

    pub fn intercept(&self, datapath: &str) -> Developer {
        for_alice(self.lab, &self.agent).argument("--datapath").argument(datapath).start(self.lab)
    }

    pub fn connect(&self, family: Family) -> Connection {
        connect(self.lab, family)
    }

    pub fn client(&self) -> &lab::Host {
        &self.lab.client
    }

    /// What `status` counted on the intercepted port.
    #[track_caller]
    pub fn counted(&self, what: &str) -> u64 {
        let status = self.agent.json(&["status"]);
        let count = status["targets"][0]["ports"][PORT.to_string()][what].as_u64();
        count.unwrap_or_else(|| panic!("{what} in {status}"))
    }

    /// What `status` counted of the target's packets.
    #[track_caller]
    pub fn packets(&self, what: &str) -> u64 {
        let status = self.agent.json(&["status"]);
        let count = status["targets"][0]["packets"][what].as_u64();
        count.unwrap_or_else(|| panic!("{what} in {status}"))
    }

    /// Connections that were new when the agent got them.
    #[track_caller]
    pub fn assigned(&self) -> u64 {
        let status = self.agent.json(&["status"]);
        let count = status["targets"][0]["ports"][PORT.to_string()]["connections"]["assign"].as_u64();
        count.unwrap_or_else(|| panic!("no count in {status}"))
    }
}

pub fn connect(lab: &Lab, family: Family) -> Connection {
    lab.client.connect(SocketAddr::new(lab.pod.ip(family), PORT))
}

/// A request with alice's context, or one that has nothing in common with it.
pub fn request(path: &str, matching: bool) -> String {
    let header = if matching { ALICE } else { "x-other: nobody" };
    format!("GET {path} HTTP/1.1\r\nHost: pod.test\r\n{header}\r\n\r\n")
}

/// Asserts that the request was answered by who it was for.
#[track_caller]
pub fn ask(connection: &mut Connection, matching: bool) -> Response {
    let answer = connection.ask(request("/whoami", matching));
    assert_eq!(served_by(&answer), if matching { "alice" } else { "app" });
    answer
}

#[test]
fn a_connection_that_existed_before_is_answered_by_the_developer_from_the_first_match_on() {
    for datapath in ["inspect", "auto"] {
        in_lab(|lab| {
            let waiting = Waiting::new(lab);
            let mut connections = Family::BOTH.map(|family| waiting.connect(family));
            for connection in &mut connections {
                ask(connection, false);
            }
            let _alice = waiting.intercept(datapath);
            for connection in &mut connections {
                for matching in [false, false, true, true, false, true, false, false] {
                    ask(connection, matching);
                }
            }
            assert_eq!(waiting.counted("parked"), 2);
            assert_eq!(waiting.counted("falsely_parked"), 0);
        });
    }
}

#[test]
fn the_first_request_of_a_connection_can_be_a_developers() {
    in_lab(|lab| {
        let waiting = Waiting::new(lab);
        let _alice = waiting.intercept("inspect");
        for family in Family::BOTH {
            for order in [[true, false, true], [false, true, false]] {
                let mut connection = waiting.connect(family);
                for matching in order {
                    ask(&mut connection, matching);
                }
            }
        }
        assert_eq!(waiting.counted("parked"), 4);
    });
}

#[test]
fn a_request_that_waited_for_the_answer_before_it_is_the_developers() {
    in_lab(|lab| {
        let waiting = Waiting::new(lab);
        let _alice = waiting.intercept("inspect");
        // The client has both requests at once, and sends the second when the first is acknowledged (Nagle's algorithm), which only
        // the answer does: before the app's kernel is done with sending that.
        let bare = "-p tcp --sport 8080 --tcp-flags ALL ACK -m length --length 0:80";
        lab.pod.netns.sh(&format!("iptables -A OUTPUT {bare} -j DROP"));
        let mut connection = waiting.connect(Family::V4);
        ask(&mut connection, false);
        connection.stream().set_nodelay(false).unwrap();
        for matching in [false, true] {
            connection.send(request("/whoami", matching));
        }
        for server in ["app", "alice"] {
            assert_eq!(served_by(&connection.response("GET")), server);
        }
        assert_eq!(waiting.counted("parked"), 1);
    });
}

#[test]
fn a_connection_without_a_match_stays_with_the_app() {
    in_lab(|lab| {
        let waiting = Waiting::new(lab);
        let _alice = waiting.intercept("inspect");
        let mut connection = waiting.connect(Family::V4);
        let first = ask(&mut connection, false).json();
        for _ in 0..20 {
            assert_eq!(ask(&mut connection, false).json()["connection"], first["connection"]);
        }
        assert_eq!((waiting.counted("parked"), waiting.assigned()), (0, 0));
        assert_eq!(lab.connections_inside_pod(PORT), 0);
    });
}

#[test]
fn the_app_sees_the_client_on_a_parked_connection() {
    in_lab(|lab| {
        let waiting = Waiting::new(lab);
        let _alice = waiting.intercept("inspect");
        for family in Family::BOTH {
            let mut connection = waiting.connect(family);
            ask(&mut connection, true);
            let report = ask(&mut connection, false).json();
            let client = connection.local_address();
            assert_eq!(text(&report, "peer"), client.ip().to_string());
            assert_eq!(report["port"], client.port());
        }
    });
}

#[test]
fn a_request_that_only_looks_like_a_match_is_answered_by_the_app_and_counted() {
    in_lab(|lab| {
        let waiting = Waiting::new(lab);
        let _alice = waiting.intercept("inspect");
        let mut connection = waiting.connect(Family::V4);
        let bob = "GET /whoami HTTP/1.1\r\nHost: pod.test\r\nx-dev: bobby\r\n\r\n";
        assert_eq!(served_by(&connection.ask(bob)), "app");
        assert_eq!((waiting.counted("parked"), waiting.counted("falsely_parked")), (1, 1));
        ask(&mut connection, true);
        assert_eq!(served_by(&connection.ask(bob)), "app");
    });
}

#[test]
fn a_body_of_any_size_follows_its_head() {
    in_lab(|lab| {
        let waiting = Waiting::new(lab);
        let _alice = waiting.intercept("inspect");
        for family in Family::BOTH {
            for size in [1, 1000, 20_000, 1_000_000] {
                let mut connection = waiting.connect(family);
                let body = "x".repeat(size);
                let head =
                    format!("POST / HTTP/1.1\r\nHost: pod.test\r\n{ALICE}\r\nContent-Length: {size}\r\n\r\n");
                let report = connection.ask(head + &body).json();
                assert_eq!(text(&report, "served_by"), "alice");
                assert_eq!(report["body_length"], size);
                ask(&mut connection, false);
            }
        }
    });
}

#[test]
fn a_head_in_two_segments_is_not_missed() {
    in_lab(|lab| {
        let waiting = Waiting::new(lab);
        let _alice = waiting.intercept("inspect");
        let request = request("/whoami", true);
        for at in [5, 30, request.len() - 3] {
            let mut connection = waiting.connect(Family::V4);
            connection.send(&request[..at]);
            thread::sleep(Duration::from_millis(5));
            connection.send(&request[at..]);
            let server = served_by(&connection.response("GET"));
            assert_eq!(server, "alice", "cut at {at}: {}", waiting.agent.json(&["status"]));
        }
    });
}

#[test]
fn requests_that_overtake_an_answer_are_answered_by_the_app_in_order() {
    in_lab(|lab| {
        let waiting = Waiting::new(lab);
        let _alice = waiting.intercept("inspect");
        for pause in [None, Some(Duration::from_millis(50))] {
            let mut connection = waiting.connect(Family::V4);
            ask(&mut connection, false);
            connection.send(request("/slow?ms=300", false));
            if let Some(pause) = pause {
                thread::sleep(pause);
            }
            connection.send(request("/whoami", true));
            assert_eq!(text(&connection.response("GET").json(), "target"), "/slow?ms=300");
            assert_eq!(served_by(&connection.response("GET")), "app", "{pause:?}");
            // Nothing is outstanding any more.
            ask(&mut connection, false);
            ask(&mut connection, true);
        }
    });
}

#[test]
fn a_client_that_ends_its_half_right_behind_its_request_gets_the_developers_answer() {
    in_lab(|lab| {
        let waiting = Waiting::new(lab);
        let _alice = waiting.intercept("inspect");
        for before in [0, 1] {
            let mut connection = waiting.connect(Family::V4);
            for _ in 0..before {
                ask(&mut connection, false);
            }
            connection.send(request("/whoami", true));
            connection.finish_sending();
            assert_eq!(served_by(&connection.response("GET")), "alice");
            assert_eq!(connection.rest_text(), "");
        }
        assert_eq!(waiting.counted("parked"), 2);
    });
}

#[test]
fn a_client_that_never_waits_for_answers_gets_each_in_its_place() {
    in_lab(|lab| {
        let waiting = Waiting::new(lab);
        let mut connection = waiting.connect(Family::V4);
        let slow = |number: u32, matching| request(&format!("/slow?ms=40&number={number}"), matching);
        // Three are on the way, before the intercept and ever after.
        for number in 0..3 {
            connection.send(slow(number, false));
        }
        let mut answered = 0;
        let mut answer = |connection: &mut Connection| {
            let report = connection.response("GET").json();
            assert_eq!(text(&report, "target"), format!("/slow?ms=40&number={answered}"));
            answered += 1;
        };
        answer(&mut connection);
        connection.send(slow(3, false));
        let _alice = waiting.intercept("inspect");
        for number in 4..60 {
            answer(&mut connection);
            connection.send(slow(number, number > 6));
        }
        for _ in 0..3 {
            answer(&mut connection);
        }
    });
}

#[test]
fn clients_that_keep_a_connection_keep_it() {
    for client in KeepAliveClient::BOTH {
        in_lab(|lab| {
            let waiting = Waiting::new(lab);
            let mut client = client.start(lab, &lab.client, lab.pod.at(PORT), "x-dev", "alice");
            client.wait_for_line("matching app");
            let _alice = waiting.intercept("inspect");
            client.wait_for_line("matching alice");
            let seen = lines(&client).len();
            eventually("it goes on", || lines(&client).len() > seen + 20);
            let lines = lines(&client);
            let port = lines[0].split(' ').next().unwrap();
            let first = lines.iter().position(|line| line.ends_with("matching alice")).unwrap();
            for (number, line) in lines.iter().enumerate() {
                let expected = match line.contains("matching") {
                    true if number >= first => format!("{port} matching alice"),
                    true => format!("{port} matching app"),
                    false => format!("{port} plain app"),
                };
                assert_eq!(*line, expected, "{lines:?}");
            }
        });
    }
}

/// Lines of both streams that contain `text`.
pub fn matching(log: &Log, text: &str) -> Vec<String> {
    let lines = [Stream::Stdout, Stream::Stderr].map(|stream| log.lines(stream)).concat();
    lines.into_iter().filter(|line| line.contains(text)).collect()
}

pub fn lines(process: &Process) -> Vec<String> {
    process.log().lines(Stream::Stdout)
}

#[test]
fn curl_keeps_its_connection() {
    in_lab(|lab| {
        let waiting = Waiting::new(lab);
        let _alice = waiting.intercept("inspect");
        let headers = [ALICE, "x-other: nobody"];
        let routes: Vec<&str> = headers.into_iter().cycle().take(20).collect();
        let curl = Curl::on(&lab.client);
        let curl = routes.iter().fold(curl, |curl, header| curl.get(lab.pod.at(PORT), "/whoami", &[header]));
        let answers = curl.answers();
        assert_eq!(answers.iter().map(|answer| answer.connects).sum::<u32>(), 1, "{answers:?}");
        for (header, answer) in routes.iter().zip(&answers) {
            let report: Value = serde_json::from_str(&answer.body).unwrap();
            assert_eq!(text(&report, "served_by"), if *header == ALICE { "alice" } else { "app" });
        }
    });
}

#[test]
fn parked_connection_sees_no_reset() {
    in_lab(|lab| {
        let waiting = Waiting::new(lab);
        let mut existing: Vec<Connection> =
            (0..10).map(|number| waiting.connect(Family::BOTH[number % 2])).collect();
        for connection in &mut existing {
            ask(connection, false);
        }
        let wire = Wire::of_pod(lab);
        let alice = waiting.intercept("inspect");
        for connection in &mut existing {
            for matching in [false, true, false, true] {
                ask(connection, matching);
            }
        }
        for number in 0..50 {
            let mut connection = waiting.connect(Family::BOTH[number % 2]);
            for matching in [true, false] {
                ask(&mut connection, matching);
            }
        }
        assert_eq!(waiting.counted("parked"), 60);
        drop(existing);
        drop(alice);
        let seen = wire.packets(lab);
        let resets: Vec<&String> = seen.iter().filter(|line| line.contains("Flags [R")).collect();
        assert!(resets.is_empty(), "{resets:?}");
        // The agent's own port is nobody's business.
        let foreign: Vec<&String> = seen.iter().filter(|line| !line.contains(&format!(".{PORT}"))).collect();
        assert!(foreign.is_empty(), "{foreign:?}");
    });
}

/// TCP packets between the pod and the rest of the lab, as tcpdump sees them.
pub struct Wire(Process);

impl Wire {
    pub fn of_pod(lab: &Lab) -> Self {
        let mut tcpdump = lab.node.netns.command("tcpdump");
        tcpdump.args(["-i", "veth-pod", "-n", "-l", "--immediate-mode", "tcp"]);
        let process = Process::spawn("tcpdump", &mut tcpdump, lab.logs());
        eventually("tcpdump listens", || {
            process.log().lines(Stream::Stderr).iter().any(|line| line.contains("listening on"))
        });
        Self(process)
    }

    /// All until now.
    pub fn packets(&self, lab: &Lab) -> Vec<String> {
        let last = connect(lab, Family::V4).local_address().port();
        let mark = format!(".{last} >");
        eventually("tcpdump has seen the last packet", || {
            lines(&self.0).iter().any(|line| line.contains(&mark))
        });
        lines(&self.0)
    }
}

#[test]
fn a_parked_connection_ends_plainly_when_its_intercept_does() {
    in_lab(|lab| {
        let waiting = Waiting::new(lab);
        let alice = waiting.intercept("inspect");
        let mut connections = Family::BOTH.map(|family| waiting.connect(family));
        for connection in &mut connections {
            ask(connection, true);
            ask(connection, false);
        }
        assert!(alice.interrupt().success());
        for connection in &mut connections {
            assert_eq!(connection.rest(), b"");
        }
        assert_eq!(served_by(&waiting.connect(Family::V4).ask(request("/whoami", true))), "app");
        eventually("nothing is attached", || lab.attached().is_empty());
    });
}

#[test]
fn a_parked_connection_that_is_idle_is_retired() {
    in_lab(|lab| {
        let waiting = Waiting::new(lab);
        let _alice = waiting.intercept("inspect");
        let mut connection = waiting.connect(Family::V4);
        ask(&mut connection, true);
        ask(&mut connection, false);
        assert_eq!(connection.rest(), b"", "a plain end");
        assert_eq!(waiting.counted("retired"), 1);
    });
}

#[test]
fn a_parked_connection_ends_with_an_agent_that_is_killed() {
    in_lab(|lab| {
        let waiting = Waiting::new(lab);
        let (address, files) = (waiting.agent.address(), format!("/proc/{}/fd", waiting.agent.pid()));
        let open_files = || -> BTreeSet<_> {
            fs::read_dir(&files).unwrap().map(|entry| entry.unwrap().file_name()).collect()
        };
        let before = open_files();
        let older_than_the_programs: Vec<_> =
            lab.dev.netns.run(|| (0..10).map(|_| TcpStream::connect(address).unwrap()).collect());
        eventually("the agent has accepted them", || open_files().len() >= before.len() + 10);
        let descriptors = &open_files() - &before;
        let alice = waiting.intercept("inspect");
        drop(older_than_the_programs);
        eventually("their descriptors are free", || open_files().is_disjoint(&descriptors));
        let mut connections: Vec<_> =
            Family::BOTH.into_iter().cycle().take(40).map(|family| waiting.connect(family)).collect();
        for (number, connection) in connections.iter_mut().enumerate() {
            ask(connection, true);
            if number % 4 > 1 {
                connection.send(request("/slow?ms=60000", true));
            }
        }
        let Waiting { agent, app, alice_app, .. } = waiting;
        agent.kill();
        for mut connection in connections {
            connection.stream().set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            let error = connection.try_response("GET").unwrap_err();
            assert_ne!(
                error.kind(),
                io::ErrorKind::WouldBlock,
                "nobody has told {}",
                connection.local_address()
            );
        }
        drop((alice, app, alice_app));
    });
}
