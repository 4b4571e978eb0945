//! redirector: requests that carry a developer's context reach the developer, all others stay live.

#[cfg(target_os = "linux")]
pub mod check;
pub mod context;
pub mod http1;
#[cfg(target_os = "linux")]
mod netlink;
#[cfg(target_os = "linux")]
pub mod redirect_rules;
pub mod target;
pub mod tunnel;
