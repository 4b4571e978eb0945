//! The kernel side of the node agent: which packets reach it, and what the app is told about its peers.
//!
//! A [`Door`] is everything that is attached for one target; it lives on a thread that is inside the
//! target's network namespace, and nothing of it survives it.

mod attach;
mod connections;
mod door;
mod heartbeat;
mod inspection;
mod interfaces;
mod object;
mod peername;
mod rtnetlink;
mod sweep;
mod upstream_ports;

pub use attach::AttachKind;
pub use door::{Door, DoorError, NO_TCX, PortListeners};
pub use heartbeat::Heartbeat;
pub use inspection::{LoadedPrograms, UnloadedPrograms, loads as inspection_loads};
pub use peername::{PeerNames, PeerNamesError, UpstreamGuard};
pub use sweep::sweep;

#[cfg(test)]
pub(crate) use object::load_ingress;
