//! What becomes of live connections on an inspected port when no agent takes what is held: everything reaches the app.
//! Needs root.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "clippy takes the helpers of a test for code")]

use nix::sched::{CloneFlags, unshare};
use nix::unistd::gettid;
use redirector::context::Needle;
use redirector::datapath::{AttachKind, Door};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

const PORT: u16 = 8080;
const POD: &str = "10.79.0.2";
const WANTED: &str = "X-Dev: alice\r\n";
/// More than the agent may be silent, and more than a segment is held.
const LONG: Duration = Duration::from_millis(600);

/// The client's side of a test.
struct Client {
    /// Says what the agent is to do.
    agent: Sender<Agent>,
    done: Receiver<()>,
}

enum Agent {
    Inspect,
    Freeze,
    Count(Sender<std::collections::BTreeMap<&'static str, u64>>),
}

impl Client {
    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect((POD, PORT)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream
    }

    fn tell(&self, command: Agent) {
        self.agent.send(command).unwrap();
        self.done.recv_timeout(Duration::from_secs(10)).unwrap();
    }

    #[track_caller]
    fn counted(&self, expected: &[(&str, u64)]) {
        let (sender, receiver) = channel();
        self.tell(Agent::Count(sender));
        let counters = receiver.recv().unwrap();
        for (name, count) in expected {
            assert_eq!(counters[name], *count, "{name} in {counters:?}");
        }
    }
}

fn get(headers: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: a\r\n{headers}\r\n")
}

/// Sends, and reads the app's answers to so many requests.
#[track_caller]
fn ask(stream: &mut TcpStream, request: &str, answers: usize) {
    stream.write_all(request.as_bytes()).unwrap();
    read_answers(stream, answers);
}

#[track_caller]
fn read_answers(stream: &mut TcpStream, answers: usize) {
    let mut read = vec![0; ANSWER.len() * answers];
    stream.read_exact(&mut read).unwrap();
    assert_eq!(read, ANSWER.repeat(answers).as_bytes());
}

const ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// An app that answers each empty line at the end of a head. Bodies are skipped by their length.
fn serve(mut stream: TcpStream) {
    let mut pending = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        while let Some(end) = pending.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&pending[..end]).to_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
            let total = end + 4 + length.unwrap_or(0);
            if pending.len() < total {
                break;
            }
            pending.drain(..total);
            if stream.write_all(ANSWER.as_bytes()).is_err() {
                return;
            }
        }
        match stream.read(&mut chunk) {
            Ok(0) | Err(_) => return,
            Ok(len) => pending.extend_from_slice(&chunk[..len]),
        }
    }
}

/// A pod with an app and an agent that takes nothing of what is held, and a client outside; `scenario` is the client's.
fn with_client(scenario: impl FnOnce(&Client) + Send + 'static) {
    assert!(nix::unistd::geteuid().is_root(), "this test attaches eBPF programs: run it as root");
    let pod = thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        let (tid_sender, tid) = channel();
        let (go, gone) = channel::<()>();
        let (agent, commands) = channel();
        let (done_sender, done) = channel();
        let client = thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            tid_sender.send(gettid()).unwrap();
            gone.recv().unwrap();
            run("ip address add 10.79.0.1/24 dev eth1");
            run("ip link set eth1 up");
            scenario(&Client { agent, done });
        });
        let tid = tid.recv().unwrap();
        run("ip link add eth0 type veth peer name eth1");
        run(&format!("ip link set eth1 netns {tid}"));
        run("ip link set lo up");
        run(&format!("ip address add {POD}/24 dev eth0"));
        run("ip link set eth0 up");
        let listener = TcpListener::bind((POD, PORT)).unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                thread::spawn(|| serve(stream.unwrap()));
            }
        });
        go.send(()).unwrap();
        be_agent(&commands, &done_sender);
        client.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    pod.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

fn be_agent(commands: &Receiver<Agent>, done: &Sender<()>) {
    let mut door = None;
    let mut frozen = false;
    loop {
        match commands.recv_timeout(Duration::from_millis(20)) {
            Ok(Agent::Inspect) => {
                let mut new = Door::open(AttachKind::Tcx, false).unwrap();
                let needles = [
                    Needle::Header("x-dev".to_owned()),
                    Needle::Member { field: "baggage", key: "user".to_owned() },
                ];
                new.watch(PORT, &needles.into()).unwrap();
                door = Some(new);
                done.send(()).unwrap();
            }
            Ok(Agent::Freeze) => {
                frozen = true;
                done.send(()).unwrap();
            }
            Ok(Agent::Count(answer)) => {
                answer.send(door.as_ref().unwrap().counters()).unwrap();
                done.send(()).unwrap();
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        if let (Some(door), false) = (&mut door, frozen) {
            door.beat().unwrap();
        }
    }
}

fn run(line: &str) {
    let mut words = line.split(' ');
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    assert!(output.status.success(), "{line}: {output:?}");
}

#[test]
fn a_held_request_that_nobody_claims_reaches_the_app_when_the_client_sends_it_again() {
    with_client(|client| {
        client.tell(Agent::Inspect);
        let mut connection = client.connect();
        ask(&mut connection, &get(WANTED), 1);
        client.counted(&[("held", 1), ("hold_expired", 1), ("interesting_heads", 1), ("raw_connections", 0)]);
        // It is followed on, and what is not interesting passes.
        ask(&mut connection, &get(""), 1);
        client.counted(&[("held", 1), ("heads", 2), ("lost_sight", 0)]);
    });
}

#[test]
fn a_connection_that_was_held_twice_in_vain_is_left_alone() {
    with_client(|client| {
        client.tell(Agent::Inspect);
        let mut connection = client.connect();
        for _ in 0..4 {
            ask(&mut connection, &get(WANTED), 1);
        }
        client.counted(&[("held", 2), ("hold_expired", 2), ("raw_connections", 1)]);
    });
}

#[test]
fn nothing_is_held_while_the_agent_is_frozen() {
    with_client(|client| {
        client.tell(Agent::Inspect);
        client.tell(Agent::Freeze);
        thread::sleep(LONG);
        let mut connection = client.connect();
        ask(&mut connection, &get(WANTED), 1);
        client.counted(&[("held", 0), ("agent_silent", 1), ("interesting_heads", 1)]);
    });
}

#[test]
fn a_request_behind_another_in_one_segment_is_the_apps() {
    with_client(|client| {
        client.tell(Agent::Inspect);
        let mut connection = client.connect();
        ask(&mut connection, &(get("") + &get(WANTED)), 2);
        client.counted(&[("held", 0), ("refused_at_boundary", 1), ("interesting_heads", 1)]);
    });
}

#[test]
fn a_connection_that_existed_before_is_trusted_after_a_whole_exchange() {
    with_client(|client| {
        let mut connection = client.connect();
        ask(&mut connection, &get(""), 1);
        client.tell(Agent::Inspect);
        // The first one seen may be a part of a body.
        ask(&mut connection, &get(WANTED), 1);
        client.counted(&[("held", 0), ("refused_at_boundary", 1)]);
        ask(&mut connection, &get("Baggage: a=b, user = alice\r\n"), 1);
        client.counted(&[("held", 1), ("raw_connections", 0)]);
    });
}

#[test]
fn a_body_that_looks_like_requests_is_not_taken_for_them() {
    with_client(|client| {
        let body = get(WANTED);
        let upload = format!("POST / HTTP/1.1\r\nContent-Length: {}\r\n\r\n", body.len() * 3);
        // An upload that has begun before we look.
        let mut before = client.connect();
        before.write_all(upload.as_bytes()).unwrap();
        before.write_all(body.as_bytes()).unwrap();
        thread::sleep(Duration::from_millis(50));
        client.tell(Agent::Inspect);
        for _ in 0..2 {
            before.write_all(body.as_bytes()).unwrap();
            thread::sleep(Duration::from_millis(50));
        }
        read_answers(&mut before, 1);
        let mut seen_from_the_start = client.connect();
        seen_from_the_start.write_all(upload.as_bytes()).unwrap();
        for _ in 0..3 {
            thread::sleep(Duration::from_millis(20));
            seen_from_the_start.write_all(body.as_bytes()).unwrap();
        }
        read_answers(&mut seen_from_the_start, 1);
        client.counted(&[("held", 0), ("raw_connections", 0)]);
        // After its body a request is one.
        ask(&mut seen_from_the_start, &get(WANTED), 1);
        client.counted(&[("held", 1)]);
    });
}

#[test]
fn connections_that_may_change_their_protocol_are_left_alone() {
    with_client(|client| {
        client.tell(Agent::Inspect);
        for first in ["GET /chat HTTP/1.1\r\nUpgrade: websocket\r\n\r\n", "HELO there\r\n\r\n"] {
            let mut connection = client.connect();
            connection.write_all(first.as_bytes()).unwrap();
            thread::sleep(Duration::from_millis(50));
            connection.write_all(get(WANTED).as_bytes()).unwrap();
            read_answers(&mut connection, 2);
        }
        client.counted(&[("held", 0), ("raw_connections", 2)]);
    });
}
