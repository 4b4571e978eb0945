//! Real connections of the kernel change hands, without any eBPF program: the test itself sees to it that nothing is in
//! flight. In network namespaces of their own; needs root.

use super::{
    connection_state::{ConnectionState, Unfit},
    farewell::{Farewell, Impersonator},
    flows::Flows,
    held::HeldSegment,
    mover::{Mover, NotParked, Parked},
    options::Timestamps,
    repair::Repaired,
};
use crate::{
    datapath::load_ingress,
    sock_diag::{SockDiag, State, facts::ConnectionFacts},
};
use aya::maps::HashMap;
use nix::sched::{CloneFlags, unshare};
use redirector_common::{Held, Tuple};
use std::{
    fs,
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    os::fd::AsRawFd,
    process::Command,
    thread,
};

/// A connection between two sockets of this namespace, both known to the test.
struct Wire {
    client: TcpStream,
    app: TcpStream,
}

/// Runs `work` in a new network namespace in which `lo` is up.
fn in_new_netns<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    assert!(nix::unistd::geteuid().is_root(), "this test makes network namespaces: run it as root");
    let thread = thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        let up = Command::new("ip").args(["link", "set", "lo", "up", "mtu", "1500"]).status().unwrap();
        assert!(up.success());
        work()
    });
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn sysctl(name: &str, value: &str) {
    fs::write(format!("/proc/sys/net/ipv4/{name}"), value).unwrap();
}

const BOTH: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

impl Wire {
    fn open(ip: IpAddr) -> Self {
        let listener = TcpListener::bind((ip, 0)).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (app, _) = listener.accept().unwrap();
        Self { client, app }
    }

    fn addresses(&self) -> (SocketAddr, SocketAddr) {
        (self.client.local_addr().unwrap(), self.app.local_addr().unwrap())
    }

    fn tuple(&self) -> Tuple {
        let bytes = |address: SocketAddr| match address.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
            IpAddr::V6(ip) => ip.octets(),
        };
        let (client, app) = self.addresses();
        Tuple { client: bytes(client), app: bytes(app), client_port: client.port(), app_port: app.port() }
    }

    /// The segment that the client would send next, with `payload`: what the program would hold.
    fn next_segment(&self, payload: &[u8]) -> HeldSegment {
        let facts = connection(&self.addresses());
        let (seq, ack, clock) = numbers(&self.client);
        let (_, _, app_clock) = numbers(&self.app);
        HeldSegment {
            tuple: self.tuple(),
            seq,
            ack,
            said: facts.acknowledged as u32,
            received: facts.received as u32,
            window: 512,
            timestamps: facts.timestamps.then_some(Timestamps { value: clock, echo: app_clock }),
            payload: payload.to_vec(),
        }
    }
}

fn connection((client, app): &(SocketAddr, SocketAddr)) -> ConnectionFacts {
    SockDiag::open().unwrap().look_up(*app, *client).unwrap().unwrap().connection.unwrap()
}

/// What `socket` would send next, what it would receive next, and its clock, read as CRIU reads them.
fn numbers(socket: &TcpStream) -> (u32, u32, u32) {
    let set = |option, value: i32| {
        // SAFETY: the descriptor is open and the value is as long as it is said to be.
        let failed = unsafe {
            libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, option, (&raw const value).cast(), 4)
        };
        assert_eq!(failed, 0, "{}", std::io::Error::last_os_error());
    };
    let repaired = option(socket, libc::TCP_REPAIR);
    set(libc::TCP_REPAIR, 1);
    set(libc::TCP_REPAIR_QUEUE, 2);
    let send = option(socket, libc::TCP_QUEUE_SEQ);
    set(libc::TCP_REPAIR_QUEUE, 1);
    let receive = option(socket, libc::TCP_QUEUE_SEQ);
    let clock = option(socket, libc::TCP_TIMESTAMP);
    set(libc::TCP_REPAIR_QUEUE, 0);
    if repaired == 0 {
        // -1: without a window probe.
        set(libc::TCP_REPAIR, -1);
    }
    (send, receive, clock)
}

fn option(socket: &TcpStream, option: i32) -> u32 {
    let mut value = 0_u32;
    let mut length: libc::socklen_t = 4;
    // SAFETY: the descriptor is open and the kernel writes at most four bytes.
    let failed = unsafe {
        let value = (&raw mut value).cast();
        libc::getsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, option, value, &raw mut length)
    };
    assert_eq!(failed, 0, "{}", std::io::Error::last_os_error());
    value
}

fn repaired(wire: &Wire, held: &HeldSegment) -> (ConnectionState, SocketAddr, Repaired) {
    let (client, app) = wire.addresses();
    let facts = SockDiag::open().unwrap().look_up(app, client).unwrap().unwrap();
    let state = ConnectionState::of(held, &facts).unwrap();
    // Any port but the app's: one that is used by many connections at a time, as the agent's is.
    let agent = SocketAddr::new(app.ip(), 40_000);
    let repaired = Repaired::build(&state, &held.payload, agent, client).unwrap();
    (state, agent, repaired)
}

#[test]
fn a_repaired_socket_is_what_the_apps_socket_was() {
    for ip in BOTH {
        for (timestamps, sack, scaling) in
            [("1", "1", "1"), ("0", "1", "1"), ("1", "0", "1"), ("0", "0", "0"), ("1", "1", "0")]
        {
            in_new_netns(move || {
                sysctl("tcp_timestamps", timestamps);
                sysctl("tcp_sack", sack);
                sysctl("tcp_window_scaling", scaling);
                let wire = Wire::open(ip);
                (&wire.app).write_all(b"an answer").unwrap();
                (&wire.client).read_exact(&mut [0; 9]).unwrap();
                let (client, app) = wire.addresses();
                let was = connection(&(client, app));
                let held = wire.next_segment(b"GET / HTTP/1.1\r\n\r\n");
                let (state, agent, repaired) = repaired(&wire, &held);
                let (send, receive, clock) = numbers(&repaired.0);
                assert_eq!((send, receive), (held.ack, held.seq + held.payload.len() as u32), "{ip}");
                if let Some(begun) = state.clock {
                    assert!(clock.wrapping_sub(begun) < 1 << 16, "{clock} after {begun}");
                }
                // While it is in repair: here it is not the client's peer, which would reset it.
                let is = connection(&(client, agent));
                let stream = repaired.go_live().unwrap();
                let what =
                    format!("{ip} timestamps {timestamps} sack {sack} scaling {scaling}\n{was:?}\n{is:?}");
                assert_eq!((is.timestamps, is.sack), (was.timestamps, was.sack), "{what}");
                assert_eq!((is.send_scale, is.receive_scale), (was.send_scale, was.receive_scale), "{what}");
                assert_eq!(is.congestion_control, was.congestion_control, "{what}");
                assert_eq!(is.send_mss, was.send_mss, "{what}");
                assert!(is.receive_window <= was.receive_window, "{what}");
                assert_eq!((was.timestamps, was.sack), (timestamps == "1", sack == "1"), "the kernel obeys");

                let mut request = vec![0; held.payload.len()];
                (&stream).read_exact(&mut request).unwrap();
                assert_eq!(request, held.payload);
            });
        }
    }
}

#[test]
fn a_socket_that_is_dropped_in_repair_says_nothing() {
    // The app's delayed ACK may fall between the two looks; not every time.
    assert!((0..5).any(|_| in_new_netns(nothing_is_sent_when_a_socket_is_dropped_in_repair)));
}

fn nothing_is_sent_when_a_socket_is_dropped_in_repair() -> bool {
    let wire = Wire::open(BOTH[0]);
    let held = wire.next_segment(b"GET / HTTP/1.1\r\n\r\n");
    let (_, agent, repaired) = repaired(&wire, &held);
    let segments_sent = || {
        let text = fs::read_to_string("/proc/thread-self/net/snmp").unwrap();
        let line = text.lines().filter(|line| line.starts_with("Tcp:")).nth(1).unwrap();
        line.split_whitespace().nth(11).unwrap().parse::<u64>().unwrap()
    };
    let before = segments_sent();
    drop(repaired);
    let nothing_sent = segments_sent() == before;
    let (client, _) = wire.addresses();
    assert_eq!(SockDiag::open().unwrap().look_up(agent, client).unwrap(), None);
    // The connection goes on as if nothing had been tried.
    (&wire.client).write_all(b"x").unwrap();
    (&wire.app).read_exact(&mut [0]).unwrap();
    nothing_sent
}

/// A connection is moved while something happens to it that no program has seen.
fn moved_while(happens: impl FnOnce(&Wire, &HeldSegment) + Send + 'static) -> Result<Parked, NotParked> {
    in_new_netns(|| {
        let wire = Wire::open(BOTH[0]);
        let held = wire.next_segment(b"GET / HTTP/1.1\r\n\r\n");
        let mut object = load_ingress(false).unwrap();
        let mut holds: HashMap<_, Tuple, Held> = object.map_mut("HOLDS").unwrap().try_into().unwrap();
        holds.insert(held.tuple, Held { at_ns: 0 }, 0).unwrap();
        let mover = Mover::open(Flows::new(&mut object).unwrap()).unwrap();
        let (moving, repaired) = mover.prepare(&held, 40_000).unwrap();
        happens(&wire, &held);
        mover.hand_over(&held, moving, repaired)
    })
}

#[test]
fn a_connection_whose_app_gets_the_segment_after_all_stays_with_the_app() {
    assert!(moved_while(|_, _| {}).is_ok());
    let outcome = moved_while(|wire, held| {
        (&wire.client).write_all(&held.payload).unwrap();
        (&wire.app).read_exact(&mut [0]).unwrap();
    });
    assert!(matches!(outcome, Err(NotParked::Unfit(Unfit::AppHasReceived))));
    let outcome = moved_while(|wire, _| (&wire.app).write_all(b"x").unwrap());
    assert!(matches!(outcome, Err(NotParked::Unfit(Unfit::AppHasSpoken))));
}

#[test]
fn a_payload_of_any_size_is_there_to_read() {
    in_new_netns(|| {
        for size in [1, 1448, 4096, 4097, 16_384] {
            let wire = Wire::open(BOTH[0]);
            let payload: Vec<u8> = (0..size).map(|n: u32| n as u8).collect();
            let held = wire.next_segment(&payload);
            let (_, _, repaired) = repaired(&wire, &held);
            let stream = repaired.go_live().unwrap();
            stream.set_nonblocking(false).unwrap();
            let mut read = vec![0; payload.len()];
            (&stream).read_exact(&mut read).unwrap();
            assert!(read == payload, "{size} bytes");
        }
    });
}

#[test]
fn the_app_sees_a_plain_end_of_stream() {
    for ip in BOTH {
        for timestamps in ["1", "0"] {
            in_new_netns(move || {
                sysctl("tcp_timestamps", timestamps);
                let wire = Wire::open(ip);
                (&wire.client).write_all(b"a request").unwrap();
                (&wire.app).read_exact(&mut [0; 9]).unwrap();
                (&wire.app).write_all(b"an answer").unwrap();
                (&wire.client).read_exact(&mut [0; 9]).unwrap();
                let (client, app) = wire.addresses();
                let farewell = Farewell::from(&wire.next_segment(b"GET / HTTP/1.1\r\n\r\n"));
                Impersonator::open().unwrap().finish(client, app, &farewell).unwrap();
                let facts = SockDiag::open().unwrap().look_up(app, client).unwrap().unwrap();
                assert_eq!(facts.state, State::CloseWait, "{ip} timestamps {timestamps}");
                assert_eq!((&wire.app).read(&mut [0]).unwrap(), 0);
            });
        }
    }
}

#[test]
fn a_foreign_client_can_finish_whatever_the_reverse_path_filter_says() {
    in_new_netns(|| {
        for interface in ["all", "default", "lo"] {
            fs::write(format!("/proc/sys/net/ipv4/conf/{interface}/rp_filter"), "1").unwrap();
        }
        let ip = |line: &str| assert!(Command::new("ip").args(line.split(' ')).status().unwrap().success());
        // The client is on another machine: its address is not one of this namespace.
        ip("netns add rdr-park-peer");
        let outcome = std::panic::catch_unwind(|| {
            ip("link add eth0 type veth peer name eth0 netns rdr-park-peer");
            ip("address add 10.78.0.2/24 dev eth0");
            ip("link set eth0 up");
            ip("-n rdr-park-peer address add 10.78.0.3/24 dev eth0");
            ip("-n rdr-park-peer link set eth0 up");
            let listener = TcpListener::bind("10.78.0.2:0").unwrap();
            let address = listener.local_addr().unwrap();
            let peer = fs::File::open("/run/netns/rdr-park-peer").unwrap();
            let client = thread::spawn(move || {
                nix::sched::setns(peer, CloneFlags::CLONE_NEWNET).unwrap();
                TcpStream::connect(address).unwrap()
            });
            let client = client.join().unwrap();
            let wire = Wire { client, app: listener.accept().unwrap().0 };
            let farewell = Farewell::from(&wire.next_segment(b"GET / HTTP/1.1\r\n\r\n"));
            let (client, app) = wire.addresses();
            Impersonator::open().unwrap().finish(client, app, &farewell).unwrap();
            assert_eq!((&wire.app).read(&mut [0]).unwrap(), 0);
        });
        ip("netns delete rdr-park-peer");
        outcome.unwrap();
    });
}
