//! redirector: requests that carry a developer's context reach the developer, all others stay live.

pub mod context;
#[cfg(target_os = "linux")]
pub mod datapath;
pub mod http1;
pub mod target;
pub mod tunnel;
