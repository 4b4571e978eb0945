//! Targets: the network namespaces whose ports can be intercepted.
//!
//! [`name`] is what a user types and works on every system; the rest finds, watches and lists the namespaces behind
//! the names and is Linux only.

pub mod name;

#[cfg(target_os = "linux")]
pub mod discover;
#[cfg(target_os = "linux")]
pub mod listener;
#[cfg(target_os = "linux")]
pub mod listening;
#[cfg(target_os = "linux")]
pub mod netns;
#[cfg(target_os = "linux")]
pub mod presence;
#[cfg(target_os = "linux")]
pub mod process;
#[cfg(target_os = "linux")]
pub mod resolve;
#[cfg(target_os = "linux")]
pub mod root;

pub use name::Target;
