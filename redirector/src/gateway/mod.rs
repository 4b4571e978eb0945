//! The preview gateway.

pub mod context;
pub mod forwarded;
pub mod hop_by_hop;
pub mod injection;
pub mod link;
pub mod page;
pub mod password;
pub mod preview;
pub mod route;
pub mod traceparent;
