//! A socket that is the other end of an existing connection, made with `TCP_REPAIR` (tcp(7), Linux 3.5).

use super::connection_state::ConnectionState;
use nix::fcntl::{FcntlArg, fcntl};
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    io::{self, Write as _},
    net::{SocketAddr, TcpStream},
    os::fd::{AsFd, AsRawFd, FromRawFd as _, OwnedFd, RawFd},
};

/// Constants of linux/tcp.h.
const OPTION_MSS: u32 = 2;
const OPTION_WINDOW_SCALE: u32 = 3;
const OPTION_SACK: u32 = 4;
const OPTION_TIMESTAMPS: u32 = 8;
const RECEIVE_QUEUE: libc::c_int = 1;
const SEND_QUEUE: libc::c_int = 2;
const NO_QUEUE: libc::c_int = 0;
/// Programs are attached for each intercepted namespace; most other descriptors of an agent are connections.
const ABOVE_PROGRAMS: RawFd = 16_384;
/// The largest value of `TCP_MAXSEG` that the kernel takes.
const MAX_MAXSEG: i32 = 32_767;

/// `struct tcp_repair_opt`
#[repr(C)]
struct RepairOption {
    code: u32,
    value: u32,
}

/// `struct tcp_repair_window` (Linux 4.8)
#[repr(C)]
struct RepairWindow {
    /// The segment that `send_window` was announced in.
    send_window_segment: u32,
    send_window: u32,
    max_window: u32,
    receive_window: u32,
    /// The acknowledgement that `receive_window` was announced with.
    receive_window_update: u32,
}

/// A socket that is still being repaired: it sends nothing, not even when it is dropped.
#[derive(Debug)]
pub struct Repaired(pub(super) TcpStream);

impl Repaired {
    /// Makes the socket at `local`, whose port may be in use for any number of other clients. `payload` is what the
    /// client has sent and will not send again: the first to be read.
    ///
    /// # Errors
    /// `EPERM` without `CAP_NET_ADMIN`; `EADDRNOTAVAIL` when `local` has a connection to `peer`, or is not an address
    /// of this namespace.
    pub fn build(
        state: &ConnectionState,
        payload: &[u8],
        local: SocketAddr,
        peer: SocketAddr,
    ) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(local), Type::STREAM, Some(Protocol::TCP))?;
        let socket = closed_before_programs(socket);
        socket.set_nonblocking(true)?;
        set(&socket, libc::TCP_REPAIR, &1_i32)?;
        socket.bind(&local.into())?;
        set(&socket, libc::TCP_REPAIR_QUEUE, &RECEIVE_QUEUE)?;
        set(&socket, libc::TCP_QUEUE_SEQ, &state.receive_next)?;
        set(&socket, libc::TCP_REPAIR_QUEUE, &SEND_QUEUE)?;
        set(&socket, libc::TCP_QUEUE_SEQ, &state.send_next)?;
        // The size of segments is settled when the socket connects; the option below comes too late for that.
        let mss = i32::from(state.mss).min(MAX_MAXSEG);
        set(&socket, libc::TCP_MAXSEG, &mss)?;
        // Sends nothing: the connection is there.
        socket.connect(&peer.into())?;
        set_options(&socket, state)?;
        // It only paces; one that is not to be had is no reason to leave a connection.
        if let Err(error) = socket.set_tcp_congestion(state.congestion_control.as_bytes()) {
            tracing::debug!(%error, name = state.congestion_control, "congestion control not carried over");
        }

        set(&socket, libc::TCP_REPAIR_QUEUE, &RECEIVE_QUEUE)?;
        let stream = TcpStream::from(socket);
        // Into the queue that is chosen, not to the client.
        (&stream).write_all(payload)?;
        set(&stream, libc::TCP_REPAIR_QUEUE, &NO_QUEUE)?;
        Ok(Self(stream))
    }

    /// Lets it be a connection. It acknowledges the payload at once, by a window probe.
    ///
    /// # Errors
    /// None that a healthy kernel gives.
    pub fn go_live(self) -> io::Result<TcpStream> {
        let stream = self.0;
        set(&stream, libc::TCP_REPAIR, &0_i32)?;
        stream.set_nodelay(true)?;
        // The end of the repair took it away.
        socket2::SockRef::from(&stream).set_reuse_address(true)?;
        Ok(stream)
    }
}

/// Lets the table of descriptors grow to where those of the sockets are. It would by itself, but in a process with threads that waits for all
/// processors (10 ms; `expand_fdtable` of Linux): too long for a request that is held.
pub fn make_room() {
    // If there is none, sockets stay where they are.
    let _ = above_programs(io::stderr());
}

/// When the agent is killed, the socket must be closed before the programs are detached: they give the last thing that it says the
/// port that its client knows. The kernel closes a dead process's files from the highest descriptor to the lowest (since Linux
/// 4.3; not promised). If there is no room for descriptors so high, it stays where it is.
fn closed_before_programs(socket: Socket) -> Socket {
    above_programs(&socket).map_or(socket, Socket::from)
}

fn above_programs(file: impl AsFd) -> nix::Result<OwnedFd> {
    let descriptor = fcntl(file, FcntlArg::F_DUPFD_CLOEXEC(ABOVE_PROGRAMS))?;
    // SAFETY: it is new, and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

fn set_options(socket: &Socket, state: &ConnectionState) -> io::Result<()> {
    let scales = u32::from(state.send_scale) | u32::from(state.receive_scale) << 16;
    let mut options = vec![
        RepairOption { code: OPTION_MSS, value: state.mss.into() },
        // Without scaling too, as zero: else what the new socket would have offered stays.
        RepairOption { code: OPTION_WINDOW_SCALE, value: scales },
    ];
    if state.sack {
        options.push(RepairOption { code: OPTION_SACK, value: 0 });
    }
    if state.clock.is_some() {
        options.push(RepairOption { code: OPTION_TIMESTAMPS, value: 0 });
    }
    set_slice(socket, libc::TCP_REPAIR_OPTIONS, &options)?;
    if let Some(clock) = state.clock {
        set(socket, libc::TCP_TIMESTAMP, &clock)?;
    }
    let window = RepairWindow {
        send_window_segment: state.receive_next,
        send_window: state.send_window,
        max_window: state.send_window,
        receive_window: state.receive_window,
        receive_window_update: state.receive_next,
    };
    set(socket, libc::TCP_REPAIR_WINDOW, &window)
}

fn set<T>(socket: &impl AsRawFd, option: libc::c_int, value: &T) -> io::Result<()> {
    set_slice(socket, option, std::slice::from_ref(value))
}

/// `T` is an integer or a `repr(C)` struct of integers.
fn set_slice<T>(socket: &impl AsRawFd, option: libc::c_int, values: &[T]) -> io::Result<()> {
    let length = size_of_val(values) as libc::socklen_t;
    // SAFETY: the descriptor is open, and the kernel reads `length` bytes of initialised memory.
    let failed = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, option, values.as_ptr().cast(), length)
    };
    nix::errno::Errno::result(failed).map(drop).map_err(io::Error::from)
}
