//! What only the kernel knows of a connection, and connections as one wants them (tcp(7), linux/tcp.h).

use redirector_common::Existing;
use socket2::{Domain, Protocol, Socket, Type};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;

const OPTION_WINDOW_SCALE: u32 = 3;
const WINDOW: u32 = 60_000;
const RECEIVE_QUEUE: i32 = 1;
const SEND_QUEUE: i32 = 2;
/// The end of a repair, with or without a probe of the peer's window.
pub const OFF: i32 = 0;
pub const QUIETLY_OFF: i32 = -1;

/// The next sequence numbers, of what is sent and of what is received.
#[derive(Clone, Copy, Debug)]
pub struct Position {
    pub seq: u32,
    pub ack: u32,
}

pub fn position(stream: &TcpStream) -> Position {
    set(stream, libc::TCP_REPAIR, 1);
    let next = |queue| {
        set(stream, libc::TCP_REPAIR_QUEUE, queue);
        u32::from_ne_bytes(option::<4>(stream, libc::TCP_QUEUE_SEQ))
    };
    let position = Position { seq: next(SEND_QUEUE), ack: next(RECEIVE_QUEUE) };
    set(stream, libc::TCP_REPAIR, QUIETLY_OFF);
    position
}

/// One end of a connection that nobody has opened; the second one is to tell the first one so.
pub fn end_of_connection(local: SocketAddr, peer: SocketAddr, position: Position, off: i32) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).unwrap();
    set(&socket, libc::TCP_REPAIR, 1);
    socket.bind(&local.into()).unwrap();
    for (queue, next) in [(SEND_QUEUE, position.seq), (RECEIVE_QUEUE, position.ack)] {
        set(&socket, libc::TCP_REPAIR_QUEUE, queue);
        set(&socket, libc::TCP_QUEUE_SEQ, next as i32);
    }
    socket.connect(&peer.into()).unwrap();
    // No scaling of windows, which are as large as they can be then.
    set(&socket, libc::TCP_REPAIR_OPTIONS, [OPTION_WINDOW_SCALE, 0]);
    set(&socket, libc::TCP_REPAIR_WINDOW, [position.ack, WINDOW, WINDOW, WINDOW, position.ack]);
    set(&socket, libc::TCP_REPAIR, off);
    TcpStream::from(socket)
}

/// What the agent would learn of it from sock_diag.
pub fn facts(stream: &TcpStream) -> Existing {
    let info = option::<256>(stream, libc::TCP_INFO);
    let number = |at: usize| u64::from_ne_bytes(info[at..at + 8].try_into().unwrap());
    Existing { bytes_acked: number(120), bytes_received: number(128) }
}

/// Ends the connection with a reset.
pub fn reset(stream: TcpStream) {
    socket2::SockRef::from(&stream).set_linger(Some(std::time::Duration::ZERO)).unwrap();
    drop(stream);
}

/// `T` is an integer or an array of integers.
pub fn set<T>(socket: &impl AsRawFd, option: i32, value: T) {
    let length = size_of::<T>() as libc::socklen_t;
    // SAFETY: the descriptor is open, and the kernel reads `length` bytes of initialised memory.
    let failed = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, option, (&raw const value).cast(), length)
    };
    assert_eq!(failed, 0, "option {option}: {}", std::io::Error::last_os_error());
}

/// The calling thread, which is to beat in time on a busy machine, comes before others.
pub fn be_urgent() {
    // SAFETY: no pointers; 0 is the calling thread.
    assert_eq!(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, -20) }, 0);
}

fn option<const SIZE: usize>(socket: &impl AsRawFd, option: i32) -> [u8; SIZE] {
    let mut value = [0; SIZE];
    let mut length = SIZE as libc::socklen_t;
    // SAFETY: the descriptor is open, and the kernel writes at most `length` bytes.
    let failed = unsafe {
        let to = value.as_mut_ptr().cast();
        libc::getsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, option, to, &raw mut length)
    };
    assert_eq!(failed, 0, "option {option}: {}", std::io::Error::last_os_error());
    value
}
