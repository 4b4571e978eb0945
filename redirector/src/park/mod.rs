//! Parking: a client's connection changes from the app's socket to one of the agent's, between two requests, and the
//! client does not notice.
//!
//! | file | purpose |
//! | --- | --- |
//! | `held` | the segment that the eBPF program has held back |
//! | `held_ring` | where it comes from |
//! | `options` | its TCP options |
//! | `connection_state` | both put together: all that the new socket must be. Pure data |
//! | `repair` | makes the socket |
//! | `farewell` | tells the app that the client has finished |
//! | `flows` | the maps through which the eBPF programs are told, and whose deletion decides who has a connection |
//! | `mover` | one move, from the held segment to a connection of the agent's |

mod connection_state;
mod farewell;
mod flows;
mod held;
mod held_ring;
mod mover;
mod options;
mod repair;

#[cfg(test)]
mod tests;

pub use farewell::Farewell;
pub use flows::{Flows, addresses};
pub use held::HeldSegment;
pub use held_ring::HeldRing;
pub use mover::{Mover, NotParked, Parked};
