//! A pod whose port is inspected, by an agent that takes nothing of what is held, and a client outside. What is held reaches the app
//! when the client sends it again.

pub mod forged;
pub mod tcp;

use nix::sched::{CloneFlags, unshare};
use nix::unistd::gettid;
use redirector::context::Needle;
use redirector::datapath::{AttachKind, Door, Heartbeat};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

pub const PORT: u16 = 8080;
pub const POD: &str = "10.79.0.2";
pub const CLIENT: &str = "10.79.0.1";
/// The line that the agent looks for.
pub const WANTED: &str = "X-Dev: alice\r\n";
/// The app's answer to everything.
pub const ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
/// More than the agent may be silent, and more than a segment is held.
pub const LONG: Duration = Duration::from_millis(600);
/// More than the silence of the app that is asked for where not all of a connection was seen.
pub const SILENCE: Duration = Duration::from_millis(250);
const PATIENCE: Duration = Duration::from_secs(20);

/// The client's side of a test.
pub struct Client {
    pod: Sender<Work>,
}

type Work = Box<dyn FnOnce(&mut Pod) + Send>;

/// The pod's side, on a thread that is inside its namespace, and that beats for the agent.
#[derive(Default)]
pub struct Pod {
    pub door: Option<Door>,
    heartbeat: Option<Heartbeat>,
    frozen: bool,
    /// The app's connections.
    pub accepted: Arc<Mutex<Vec<TcpStream>>>,
}

impl Client {
    pub fn connect(&self) -> TcpStream {
        ready(TcpStream::connect((POD, PORT)).unwrap())
    }

    /// Does something in the pod.
    pub fn in_pod<T: Send + 'static>(&self, work: impl FnOnce(&mut Pod) -> T + Send + 'static) -> T {
        let (sender, receiver) = channel();
        let work = move |pod: &mut Pod| {
            let outcome = work(pod);
            // It may have taken longer than the agent may be silent.
            pod.beat_unless_frozen();
            drop(sender.send(outcome));
        };
        self.pod.send(Box::new(work)).unwrap();
        receiver.recv_timeout(PATIENCE).unwrap()
    }

    /// From now on the port is inspected.
    pub fn inspect(&self) {
        self.in_pod(|pod| pod.door().watch(PORT, &names()).unwrap());
    }

    /// From now on the agent does not beat.
    pub fn freeze(&self) {
        self.in_pod(|pod| pod.frozen = true);
    }

    /// It does again.
    pub fn thaw(&self) {
        self.in_pod(|pod| {
            pod.frozen = false;
            pod.beat();
        });
    }

    pub fn counters(&self) -> BTreeMap<&'static str, u64> {
        self.in_pod(|pod| pod.door().counters())
    }

    #[track_caller]
    pub fn counted(&self, expected: &[(&str, u64)]) {
        let counters = self.counters();
        for (name, count) in expected {
            assert_eq!(counters[name], *count, "{name} in {counters:?}");
        }
    }
}

impl Pod {
    pub fn door(&mut self) -> &mut Door {
        self.door.get_or_insert_with(|| {
            let (door, heartbeat) = Door::open(AttachKind::Tcx, false).unwrap();
            self.heartbeat = Some(heartbeat);
            door
        })
    }

    fn beat_unless_frozen(&mut self) {
        if !self.frozen {
            self.beat();
        }
    }

    fn beat(&mut self) {
        self.heartbeat.as_mut().map(Heartbeat::beat).transpose().unwrap();
    }

    /// The app's end of a client's connection.
    pub fn app_end(&self, client: SocketAddr) -> TcpStream {
        let accepted = self.accepted.lock().unwrap();
        let found = accepted.iter().find(|stream| stream.peer_addr().is_ok_and(|peer| peer == client));
        found.unwrap().try_clone().unwrap()
    }

    fn work(&mut self, work: &Receiver<Work>) {
        loop {
            match work.recv_timeout(Duration::from_millis(20)) {
                Ok(work) => work(self),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.beat_unless_frozen();
        }
    }
}

/// What the agent looks for.
pub fn names() -> std::collections::BTreeSet<Needle> {
    let needles =
        [Needle::Header("x-dev".to_owned()), Needle::Member { field: "baggage", key: "user".to_owned() }];
    needles.into()
}

pub fn get(headers: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: a\r\n{headers}\r\n")
}

/// Sends, and reads the app's answers to so many requests.
#[track_caller]
pub fn ask(stream: &mut TcpStream, request: &str, answers: usize) {
    stream.write_all(request.as_bytes()).unwrap();
    read_answers(stream, answers);
}

#[track_caller]
pub fn read_answers(stream: &mut TcpStream, answers: usize) {
    let mut read = vec![0; ANSWER.len() * answers];
    stream.read_exact(&mut read).unwrap();
    assert_eq!(read, ANSWER.repeat(answers).as_bytes());
}

pub fn ready(stream: TcpStream) -> TcpStream {
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Runs `scenario`, which is the client's.
pub fn with_client(scenario: impl FnOnce(&Client) + Send + 'static) {
    with_client_of(|_| {}, scenario);
}

/// The same; `prepare` sees the app's listener before the client is there, inside the pod.
pub fn with_client_of(
    prepare: impl FnOnce(&TcpListener) + Send + 'static,
    scenario: impl FnOnce(&Client) + Send + 'static,
) {
    assert!(nix::unistd::geteuid().is_root(), "this test attaches eBPF programs: run it as root");
    let pod = thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        let (tid_sender, tid) = channel();
        let (go, gone) = channel::<()>();
        let (pod, work) = channel();
        let client = thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            tid_sender.send(gettid()).unwrap();
            gone.recv().unwrap();
            run(&format!("ip address add {CLIENT}/24 dev eth1"));
            run("ip link set lo up");
            run("ip link set eth1 up");
            scenario(&Client { pod });
        });
        let tid = tid.recv().unwrap();
        run("ip link add eth0 type veth peer name eth1");
        run(&format!("ip link set eth1 netns {tid}"));
        run("ip link set lo up");
        run(&format!("ip address add {POD}/24 dev eth0"));
        run("ip link set eth0 up");
        let listener = TcpListener::bind((POD, PORT)).unwrap();
        prepare(&listener);
        tcp::be_urgent();
        let mut pod = Pod::default();
        let accepted = Arc::clone(&pod.accepted);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.unwrap();
                accepted.lock().unwrap().push(stream.try_clone().unwrap());
                thread::spawn(|| serve(stream));
            }
        });
        go.send(()).unwrap();
        pod.work(&work);
        client.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    pod.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

/// An app that answers each empty line at the end of a head, after the milliseconds of `X-Wait`. Bodies are skipped: by their length,
/// or up to the first thing that looks like a last chunk. A request with `X-Early` is answered before its body, which has so many bytes.
pub fn serve(mut stream: TcpStream) {
    const LAST_CHUNK: &[u8] = b"\r\n0\r\n\r\n";
    let mut pending = Vec::new();
    let mut chunk = vec![0; 65_536];
    // The request at hand was, and its body is to come.
    let mut answered = false;
    loop {
        while let Some(end) = pending.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&pending[..end]).to_lowercase();
            let number = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)?.parse().ok());
            let wait = Duration::from_millis(number("x-wait: ").unwrap_or(0) as u64);
            let early = number("x-early: ");
            if early.is_some() && !answered {
                thread::sleep(wait);
                if stream.write_all(ANSWER.as_bytes()).is_err() {
                    return;
                }
                answered = true;
            }
            let total = if let Some(body) = early {
                Some(end + 4 + body)
            } else if head.contains("\ntransfer-encoding: chunked") {
                let last = pending.windows(LAST_CHUNK.len()).position(|window| window == LAST_CHUNK);
                last.map(|at| at + LAST_CHUNK.len())
            } else {
                Some(end + 4 + number("content-length: ").unwrap_or(0))
            };
            let Some(total) = total.filter(|total| pending.len() >= *total) else { break };
            pending.drain(..total);
            if std::mem::take(&mut answered) {
                continue;
            }
            thread::sleep(wait);
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

/// A command in the namespace of the calling thread.
pub fn run(line: &str) {
    let mut words = line.split(' ');
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    assert!(output.status.success(), "{line}: {output:?}");
}
