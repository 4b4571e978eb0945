//! A wire that loses, repeats, reorders and damages: for kernels without `netem`, and the same each time for one seed.

use std::{
    collections::VecDeque,
    io::{self, ErrorKind, Read, Write},
    os::fd::{AsFd, AsRawFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use fastrand::Rng;
use nix::{
    net::if_::if_nametoindex,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, Socket, Type};

use crate::{
    lab::{Host, Lab},
    netns::Netns,
};

/// How likely what is to happen to a TCP packet, from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Odds {
    pub lost: f64,
    pub repeated: f64,
    /// It is overtaken by 1 to [`OVERTAKEN`] that come after it, unless these do not come.
    pub overtaken: f64,
    /// A bit of its TCP part is another.
    pub damaged: f64,
}

/// What happened so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shuffled {
    pub packets: u64,
    pub lost: u64,
    pub repeated: u64,
    pub overtaken: u64,
    pub damaged: u64,
    /// Bytes of the largest packet: more than a wire takes would be packets that no wire ever sees.
    pub largest: usize,
}

/// By at most as many packets.
const OVERTAKEN: usize = 4;

/// A packet that nobody overtakes goes on after that.
const PATIENCE: Duration = Duration::from_millis(10);

const MTU_FRAME: usize = 1514;

/// One direction of the wire: bytes in, bytes out.
#[derive(Debug)]
struct Shuffle {
    odds: Odds,
    rng: Rng,
    /// With how many must overtake each before it goes on, and since when it waits.
    waiting: VecDeque<(usize, Instant, Vec<u8>)>,
    shuffled: Shuffled,
}

impl Shuffle {
    fn new(odds: Odds, seed: u64) -> Self {
        Self { odds, rng: Rng::with_seed(seed), waiting: VecDeque::new(), shuffled: Shuffled::default() }
    }

    /// Takes a frame; gives those that go on now.
    fn take(&mut self, mut frame: Vec<u8>, now: Instant) -> Vec<Vec<u8>> {
        let Some(tcp) = tcp_offset(&frame) else { return vec![frame] };
        let Odds { lost, repeated, overtaken, damaged } = self.odds;
        self.shuffled.packets += 1;
        self.shuffled.largest = self.shuffled.largest.max(frame.len());
        let mut on = Vec::new();
        if self.rng.f64() < lost {
            self.shuffled.lost += 1;
            return on;
        }
        if self.rng.f64() < damaged {
            self.shuffled.damaged += 1;
            let at = self.rng.usize(tcp..frame.len());
            frame[at] ^= 1 << self.rng.u8(0..8);
        }
        let copies = if self.rng.f64() < repeated {
            self.shuffled.repeated += 1;
            2
        } else {
            1
        };
        for _ in 0..copies {
            if self.rng.f64() < overtaken {
                self.shuffled.overtaken += 1;
                self.waiting.push_back((self.rng.usize(1..=OVERTAKEN), now, frame.clone()));
            } else {
                on.push(frame.clone());
            }
        }
        if !on.is_empty() {
            for (left, ..) in &mut self.waiting {
                *left -= 1;
            }
        }
        on.extend(self.due(now));
        on
    }

    /// Those that have waited for long enough.
    fn due(&mut self, now: Instant) -> Vec<Vec<u8>> {
        let (due, waiting) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition(|(left, since, _)| *left == 0 || now.duration_since(*since) >= PATIENCE);
        self.waiting = waiting;
        let due: VecDeque<_> = due;
        due.into_iter().map(|(.., frame)| frame).collect()
    }
}

/// Where the TCP part of an Ethernet frame begins.
fn tcp_offset(frame: &[u8]) -> Option<usize> {
    const TCP: u8 = 6;
    let ip = frame.get(14..)?;
    match (frame.get(12..14)?, ip.first()? >> 4) {
        ([0x08, 0x00], 4) if *ip.get(9)? == TCP => Some(14 + usize::from(ip[0] & 15) * 4),
        ([0x86, 0xdd], 6) if *ip.get(6)? == TCP => Some(14 + 40),
        _ => None,
    }
}

/// Stands between a machine of the lab and its bridge. Dropping it joins them again.
#[derive(Debug)]
pub struct Shuffler {
    node: Netns,
    veth: String,
    stop: Arc<AtomicBool>,
    forwarding: Option<JoinHandle<[Shuffle; 2]>>,
}

impl Shuffler {
    /// All that `host` (not the node) sends and gets passes here from now on.
    #[must_use]
    pub fn before(lab: &Lab, host: &Host, role: &str, odds: Odds, seed: u64) -> Self {
        let node = lab.node.netns.clone();
        let veth = format!("veth-{role}");
        node.ip("link add shuffle-host type veth peer name shuffle-net");
        node.ip(&format!("link set {veth} nomaster"));
        node.ip("link set shuffle-net master br0 up");
        node.ip("link set shuffle-host up");
        // No packet larger than a wire takes, and none whose checksum is still to be filled in.
        for (netns, device) in [(&host.netns, "eth0"), (&node, "shuffle-net")] {
            netns.sh(&format!("ethtool -K {device} tx off tso off gso off gro off"));
        }
        let ends = node.run(|| [open(&veth), open("shuffle-host")]);
        let ends = ends.map(|end| end.unwrap_or_else(|error| panic!("a packet socket: {error}")));
        let stop = Arc::<AtomicBool>::default();
        let forwarding = {
            let stop = Arc::clone(&stop);
            let shuffles = [Shuffle::new(odds, seed), Shuffle::new(odds, !seed)];
            std::thread::spawn(move || forward(ends, shuffles, &stop))
        };
        Self { node, veth, stop, forwarding: Some(forwarding) }
    }

    /// Ends it, and tells what happened from the host to the bridge, and in the other direction.
    #[must_use]
    pub fn end(mut self) -> [Shuffled; 2] {
        self.stop_forwarding().expect("it forwards until it is told to end").map(|shuffle| shuffle.shuffled)
    }

    fn stop_forwarding(&mut self) -> Option<[Shuffle; 2]> {
        self.stop.store(true, Relaxed);
        self.forwarding.take()?.join().ok()
    }
}

impl Drop for Shuffler {
    fn drop(&mut self) {
        let _ = self.stop_forwarding();
        if !std::thread::panicking() {
            self.node.ip("link delete shuffle-net");
            self.node.ip(&format!("link set {} master br0", self.veth));
        }
    }
}

fn forward(mut ends: [Socket; 2], mut shuffles: [Shuffle; 2], stop: &AtomicBool) -> [Shuffle; 2] {
    let mut frame = vec![0; 1 << 16];
    while !stop.load(Relaxed) {
        let mut polled = ends.each_ref().map(|end| PollFd::new(end.as_fd(), PollFlags::POLLIN));
        let _ = poll(&mut polled, PollTimeout::from(5_u8));
        for from in [0, 1] {
            let shuffle = &mut shuffles[from];
            // As many as there are, within bounds: the other direction wants its turn.
            for _ in 0..64 {
                let length = match ends[from].read(&mut frame) {
                    Ok(length) => length,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    // A device that went down says so once.
                    Err(_) => continue,
                };
                for frame in shuffle.take(frame[..length].to_vec(), Instant::now()) {
                    send(&mut ends[1 - from], &frame);
                }
            }
            for frame in shuffles[from].due(Instant::now()) {
                send(&mut ends[1 - from], &frame);
            }
        }
    }
    shuffles
}

/// A frame that finds no room is lost, as on any wire.
fn send(end: &mut Socket, frame: &[u8]) {
    let _ = end.write(frame);
}

/// All frames that come in on the device; what is written goes out.
fn open(device: &str) -> io::Result<Socket> {
    const ETH_P_ALL: u16 = libc::ETH_P_ALL.cast_unsigned() as u16;
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(i32::from(ETH_P_ALL.to_be()))))?;
    ignore_outgoing(&socket)?;
    socket.bind(&address(if_nametoindex(device)?.cast_signed(), ETH_P_ALL))?;
    socket.set_recv_buffer_size(8 << 20)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn address(index: i32, protocol: u16) -> SockAddr {
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: the kernel takes this layout for the family that is set here; all its bytes may be anything.
    let link = unsafe { storage.view_as::<libc::sockaddr_ll>() };
    link.sll_family = libc::AF_PACKET as u16;
    link.sll_protocol = protocol.to_be();
    link.sll_ifindex = index;
    // SAFETY: the storage holds an address of this family and length.
    unsafe { SockAddr::new(storage, size_of::<libc::sockaddr_ll>() as libc::socklen_t) }
}

/// Linux 4.20. What is written would come back otherwise.
fn ignore_outgoing(socket: &Socket) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the option takes an int, which is there while the call lasts.
    let outcome = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_IGNORE_OUTGOING,
            (&raw const on).cast(),
            size_of_val(&on) as libc::socklen_t,
        )
    };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

impl Shuffled {
    /// Whether it was a wire: nothing on it was larger than that takes.
    #[must_use]
    pub fn fits_a_wire(&self) -> bool {
        self.largest <= MTU_FRAME
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "these are tests")]
mod tests {
    use super::*;

    fn frame(number: u32) -> Vec<u8> {
        let mut frame = vec![0; 14];
        frame[12..].copy_from_slice(&[0x08, 0x00]);
        frame.extend([0x45, 0, 0, 44, 0, 0, 0, 0, 64, 6]);
        frame.resize(34, 0);
        frame.extend(number.to_be_bytes());
        frame
    }

    fn numbers(odds: Odds) -> Vec<u32> {
        let mut shuffle = Shuffle::new(odds, 7);
        let now = Instant::now();
        let mut frames: Vec<_> = (0..1000).flat_map(|number| shuffle.take(frame(number), now)).collect();
        frames.extend(shuffle.due(now + PATIENCE));
        frames.iter().map(|frame| u32::from_be_bytes(frame[34..].try_into().unwrap())).collect()
    }

    const NOTHING: Odds = Odds { lost: 0.0, repeated: 0.0, overtaken: 0.0, damaged: 0.0 };

    #[test]
    fn a_wire_that_does_nothing_to_packets_keeps_their_order() {
        assert_eq!(numbers(NOTHING), (0..1000).collect::<Vec<_>>());
    }

    #[test]
    fn packets_are_lost_repeated_overtaken_and_damaged_and_otherwise_all_there() {
        let sorted = |odds| {
            let mut numbers = numbers(odds);
            numbers.sort_unstable();
            numbers
        };
        let all: Vec<_> = (0..1000).collect();
        assert!((850..950).contains(&sorted(Odds { lost: 0.1, ..NOTHING }).len()));
        let mut repeated = sorted(Odds { repeated: 0.1, ..NOTHING });
        assert!((1050..1150).contains(&repeated.len()));
        repeated.dedup();
        assert_eq!(repeated, all);
        assert_ne!(numbers(Odds { overtaken: 0.1, ..NOTHING }), all);
        assert_eq!(sorted(Odds { overtaken: 0.1, ..NOTHING }), all);
        assert_ne!(sorted(Odds { damaged: 0.1, ..NOTHING }), all);
    }

    #[test]
    fn what_is_not_tcp_passes() {
        let arp = [&[0; 12][..], &[0x08, 0x06], &[0; 28]].concat();
        let mut shuffle = Shuffle::new(Odds { lost: 1.0, ..NOTHING }, 1);
        assert_eq!(shuffle.take(arp.clone(), Instant::now()), vec![arp]);
        assert!(shuffle.take(frame(1), Instant::now()).is_empty());
    }
}
