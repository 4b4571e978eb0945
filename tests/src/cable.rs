//! A second way between two machines of a lab, unlike the first.

use std::{
    fs::File,
    io::{ErrorKind, Read, Write},
    net::SocketAddr,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
};

use nix::{
    net::if_::if_nametoindex,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket},
};

use crate::lab::{Family, Host};

/// Its name on both machines.
pub const CABLE: &str = "cable0";

const NEAR: u8 = 1;
const FAR: u8 = 2;

/// Two devices, [`CABLE`], that lead from one machine to the other, and addresses of another network on them. Both are gone
/// when it is dropped.
#[derive(Debug)]
pub struct Cable {
    near: Host,
    _carrier: Option<Carrier>,
}

impl Cable {
    /// Two ends of a veth pair.
    #[must_use]
    pub fn veth(near: &Host, far: &Host) -> Self {
        near.netns.ip(&format!("link add {CABLE} type veth peer name {CABLE} netns {}", far.netns.name()));
        Self::plug_in(near, far, None)
    }

    /// Two tun devices: their packets have no Ethernet header.
    #[must_use]
    pub fn tun(near: &Host, far: &Host) -> Self {
        Self::plug_in(near, far, Some(Carrier::start([near, far].map(|host| host.netns.run(open_tun)))))
    }

    fn plug_in(near: &Host, far: &Host, carrier: Option<Carrier>) -> Self {
        for (host, number) in [(near, NEAR), (far, FAR)] {
            host.netns.ip(&format!("link set {CABLE} up"));
            host.netns.ip(&format!("address add 10.78.0.{number}/24 dev {CABLE}"));
            host.netns.ip(&format!("address add fd78::{number}/64 dev {CABLE} nodad"));
        }
        Self { near: near.clone(), _carrier: carrier }
    }

    /// The near end's.
    #[must_use]
    pub fn near(family: Family, port: u16) -> SocketAddr {
        address(family, NEAR, port)
    }

    /// The far end's.
    #[must_use]
    pub fn far(family: Family, port: u16) -> SocketAddr {
        address(family, FAR, port)
    }

    /// Lets both ends send and make packets of up to `bytes`, beyond the 64 KiB that fit into the length field of an IP
    /// header (BIG TCP; IPv6 since Linux 5.19, IPv4 since 6.3).
    pub fn allow_packets_of(bytes: u32, ends: [&Host; 2]) {
        for host in ends {
            host.netns.ip(&format!("link set {CABLE} gso_max_size {bytes} gro_max_size {bytes}"));
            host.netns.run(|| allow_ipv4_packets_of(bytes));
        }
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        // The other end goes with it. Fails when the lab is gone already, or the devices are tun.
        let _ = std::process::Command::new("ip")
            .args(["-n", self.near.netns.name(), "link", "delete", CABLE])
            .stderr(std::process::Stdio::null())
            .status();
    }
}

fn address(family: Family, number: u8, port: u16) -> SocketAddr {
    match family {
        Family::V4 => SocketAddr::from(([10, 78, 0, number], port)),
        Family::V6 => SocketAddr::from(([0xfd78, 0, 0, 0, 0, 0, 0, u16::from(number)], port)),
    }
}

/// iproute2 can't before 6.3.
fn allow_ipv4_packets_of(bytes: u32) {
    const RTM_NEWLINK: u16 = 16;
    const REQUEST_ACK: u16 = 5;
    const IFLA_GSO_IPV4_MAX_SIZE: u16 = 63;
    const IFLA_GRO_IPV4_MAX_SIZE: u16 = 64;
    let index = if_nametoindex(CABLE).expect("the cable");
    let mut message = 48_u32.to_ne_bytes().to_vec();
    message.extend([RTM_NEWLINK, REQUEST_ACK].map(u16::to_ne_bytes).concat());
    message.extend([1, 0].map(u32::to_ne_bytes).concat());
    // struct ifinfomsg
    message.extend([0, index, 0, 0].map(u32::to_ne_bytes).concat());
    for kind in [IFLA_GSO_IPV4_MAX_SIZE, IFLA_GRO_IPV4_MAX_SIZE] {
        message.extend([8, kind].map(u16::to_ne_bytes).concat());
        message.extend(bytes.to_ne_bytes());
    }
    let netlink =
        socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)
            .expect("a netlink socket");
    send(netlink.as_raw_fd(), &message, MsgFlags::empty()).expect("ask for IPv4 BIG TCP");
    let mut answer = [0; 256];
    recv(netlink.as_raw_fd(), &mut answer, MsgFlags::empty()).expect("an answer");
    let error = i32::from_ne_bytes([answer[16], answer[17], answer[18], answer[19]]);
    assert_eq!(error, 0, "IPv4 BIG TCP (Linux 6.3): {}", std::io::Error::from_raw_os_error(-error));
}

/// Carries packets from one tun device to another.
#[derive(Debug)]
struct Carrier {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Carrier {
    fn start(ends: [File; 2]) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let [near, far] = ends.map(Arc::new);
        let threads = [(&near, &far), (&far, &near)]
            .map(|(from, to)| {
                let (from, to, stop) = (Arc::clone(from), Arc::clone(to), Arc::clone(&stop));
                thread::spawn(move || carry(&from, &to, &stop))
            })
            .into();
        Self { stop, threads }
    }
}

impl Drop for Carrier {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn carry(mut from: &File, mut to: &File, stop: &AtomicBool) {
    let mut packet = vec![0; 1 << 16];
    while !stop.load(Relaxed) {
        if !readable(from) {
            continue;
        }
        match from.read(&mut packet) {
            // What a full queue does not take is lost, as anywhere.
            Ok(length) => drop(to.write(&packet[..length])),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}

/// Within a moment.
fn readable(file: &impl AsFd) -> bool {
    let mut files = [PollFd::new(file.as_fd(), PollFlags::POLLIN)];
    poll(&mut files, PollTimeout::from(50_u8)).is_ok_and(|ready| ready > 0)
}

/// `struct ifreq`, as far as `TUNSETIFF` reads it.
#[repr(C)]
struct Request {
    name: [u8; 16],
    flags: u16,
    padding: [u8; 22],
}

fn open_tun() -> File {
    const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
    const TUN_WITHOUT_PACKET_INFO: u16 = 0x1001;
    let file = File::options().read(true).write(true).open("/dev/net/tun").expect("/dev/net/tun");
    let mut request = Request { name: [0; 16], flags: TUN_WITHOUT_PACKET_INFO, padding: [0; 22] };
    request.name[..CABLE.len()].copy_from_slice(CABLE.as_bytes());
    // SAFETY: the descriptor is open, and the kernel reads and writes one `struct ifreq`.
    let failed = unsafe { libc::ioctl(file.as_raw_fd(), TUNSETIFF, &raw mut request) };
    assert_eq!(failed, 0, "a tun device: {}", std::io::Error::last_os_error());
    file
}

/// Sees all packets of a machine, and remembers how large the largest was. Stops when dropped.
#[derive(Debug)]
pub struct LargestPacket {
    largest: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl LargestPacket {
    #[must_use]
    pub fn of(host: &Host) -> Self {
        let socket: OwnedFd = host.netns.run(|| {
            socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::EthAll)
                .expect("a packet socket")
        });
        let (largest, stop) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let thread = {
            let (largest, stop) = (Arc::clone(&largest), Arc::clone(&stop));
            thread::spawn(move || {
                while !stop.load(Relaxed) {
                    if readable(&socket)
                        && let Ok(length) = recv(socket.as_raw_fd(), &mut [0; 64], MsgFlags::MSG_TRUNC)
                    {
                        largest.fetch_max(length, Relaxed);
                    }
                }
            })
        };
        Self { largest, stop, thread: Some(thread) }
    }

    /// In bytes, until now; starts anew.
    #[must_use]
    pub fn take(&self) -> usize {
        self.largest.swap(0, Relaxed)
    }
}

impl Drop for LargestPacket {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
