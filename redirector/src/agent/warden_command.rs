//! What a warden is asked, and why it says no.

use super::steering::Steering;
use crate::{
    api::TargetStatus,
    datapath::DoorError,
    engine::{PortContext, tls::TlsKey},
};
use std::{io, sync::Arc};
use thiserror::Error;
use tokio::sync::oneshot;

/// Why a port cannot be intercepted.
#[derive(Debug, Error)]
pub enum PortError {
    #[error(transparent)]
    Door(#[from] DoorError),
    #[error("cannot listen inside the target (is its loopback interface up?): {0}")]
    Listen(#[source] io::Error),
    #[error("cannot reserve a local port for parked connections inside the target: {0}")]
    Park(#[source] io::Error),
    #[error(
        "netfilter (iptables or nftables) in the target redirects port {port}, as service meshes do: what it takes never \
         reaches this intercept, whatever its datapath ({rule}). Take the port out of the mesh's redirect (Istio: the \
         annotation traffic.sidecar.istio.io/excludeInboundPorts), or intercept a service behind it"
    )]
    Redirected { port: u16, rule: String },
    #[error("the target's connections can't be listed (sock_diag): {0}")]
    Connections(#[source] io::Error),
    #[error(
        "connections can't be closed here (--close-existing): {0}; it takes a kernel with CONFIG_INET_DIAG_DESTROY, and \
         CAP_NET_ADMIN. `redirector check` tries it"
    )]
    CannotClose(#[source] io::Error),
    #[error("the target is gone, or its thread hangs")]
    Gone,
}

/// What a warden is asked.
pub enum WardenCommand {
    /// Answers with what may keep the intercept from working.
    OpenPort {
        port: u16,
        context: PortContext,
        reply: oneshot::Sender<Result<Vec<String>, PortError>>,
    },
    /// What is to happen to connections to an open port.
    Steer {
        port: u16,
        steering: Steering,
        reply: oneshot::Sender<Result<(), PortError>>,
    },
    ClosePort {
        port: u16,
        reply: oneshot::Sender<()>,
    },
    /// Answers with what may keep TLS on the port from being looked into.
    ProbeTls {
        port: u16,
        keys: Vec<Arc<TlsKey>>,
        reply: oneshot::Sender<Vec<String>>,
    },
    /// Find out whether the app speaks HTTP/2; answers when it is known.
    ProbeHttp2 {
        port: u16,
        reply: oneshot::Sender<()>,
    },
    /// Can connections of the app's be inspected, or why not? From the first one on who asks, they can be at once.
    Inspection {
        reply: oneshot::Sender<Result<(), String>>,
    },
    /// Can connections of the app's be closed?
    CanClose {
        reply: oneshot::Sender<Result<(), PortError>>,
    },
    /// Ends connections of the app's that are not covered, where their clients' next ones are; answers with how many.
    CloseExisting {
        port: u16,
        reply: oneshot::Sender<Result<u64, PortError>>,
    },
    Status {
        /// With the connections that are not covered.
        connections: bool,
        reply: oneshot::Sender<TargetStatus>,
    },
    /// Detach everything; answers when nothing is attached any more.
    End {
        reply: oneshot::Sender<()>,
    },
}
