//! A port inside the target: who listens there, and what is in the way of intercepting it. For threads that are inside.

use super::warden_command::PortError;
use crate::{
    redirect_rules::{Certainty, RedirectFinding, redirect_of},
    target::listening::ListeningSockets,
};
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
};

/// As large as the kernel allows, which cuts it to `net.core.somaxconn`.
const BACKLOG: i32 = 65535;

/// A listening socket of the agent in the namespace of the calling thread.
///
/// On a loopback address, so that nothing outside can connect to it; what is assigned to it keeps its own.
/// `SO_REUSEADDR`, because accepted sockets inherit it, and the app must be able to bind its port again while
/// they exist; `TCP_NODELAY`, because they inherit that as well. No `SO_REUSEPORT`: `bpf_sk_assign` takes such
/// listeners from kernel 6.6 only.
pub fn listen(address: IpAddr) -> io::Result<TcpListener> {
    let socket =
        Socket::new(Domain::for_address(SocketAddr::new(address, 0)), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_nonblocking(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&SocketAddr::new(address, 0).into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Where the app that listens on `port` is reached from inside.
pub fn address_inside(port: u16) -> Option<SocketAddr> {
    let sockets = ListeningSockets::of_current_netns().ok()?;
    let mut addresses = sockets.addresses().iter().filter(|address| address.port() == port);
    let address = addresses.find(|address| !address.ip().to_canonical().is_loopback())?;
    Some(match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port),
        IpAddr::V6(ip) if ip.is_unspecified() => SocketAddr::new(Ipv6Addr::LOCALHOST.into(), port),
        ip => SocketAddr::new(ip, port),
    })
}

/// What a user should know who intercepts `port` of the namespace that the thread is in.
///
/// # Errors
/// What makes it impossible.
pub fn obstacles(port: u16) -> Result<Vec<String>, PortError> {
    let mut warnings = Vec::new();
    match ListeningSockets::of_current_netns() {
        Ok(sockets) if !sockets.listens_on(port) => warnings.push(format!(
            "nothing listens on port {port} in the target now: connections are refused until the app starts"
        )),
        Ok(_) => {}
        Err(error) => tracing::warn!(%error, "cannot read the target's listening sockets"),
    }
    match redirect_of(port) {
        Ok(Some(RedirectFinding { table, chain, rule, certainty })) => {
            let rule = format!("{table}, chain {chain}: {rule}");
            match certainty {
                Certainty::Redirects => return Err(PortError::Redirected { port, rule }),
                Certainty::MayRedirect => warnings.push(format!(
                    "netfilter (iptables or nftables) in the target may redirect port {port}, as service meshes do: \
                     what it takes never reaches this intercept ({rule})"
                )),
            }
        }
        Ok(None) => {}
        Err(error) => tracing::warn!(%error, "cannot tell whether netfilter redirects the port"),
    }
    Ok(warnings)
}
