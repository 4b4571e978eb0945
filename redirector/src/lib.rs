//! redirector: requests that carry a developer's context reach the developer, all others stay live.

#[cfg(target_os = "linux")]
pub mod agent;
mod any_certificate;
pub mod api;
mod api_server;
pub mod byte_counts;
#[cfg(target_os = "linux")]
pub mod check;
pub mod cli;
pub mod client;
pub mod context;
mod crypto_provider;
#[cfg(target_os = "linux")]
pub mod datapath;
#[cfg(target_os = "linux")]
pub mod engine;
mod file_limit;
pub mod gateway;
pub mod http1;
#[cfg(target_os = "linux")]
mod netlink;
#[cfg(target_os = "linux")]
mod netns_cookie;
mod otlp;
#[cfg(target_os = "linux")]
pub mod park;
pub mod protocol;
#[cfg(target_os = "linux")]
pub mod redirect_rules;
#[cfg(target_os = "linux")]
mod sock_diag;
mod stop_signal;
pub mod target;
pub mod trace;
pub mod tunnel;
#[cfg(target_os = "linux")]
mod with_sources;
