//! The lab: network namespaces with real servers and clients in them.
//!
//! ```text
//!   node (bridge, agent) ──┬── pod     the app
//!                          ├── client  who asks
//!                          └── dev     the developer's machine
//! ```
//!
//! Everything here blocks, and fails by panicking with what was expected, what came, and the logs of all
//! processes of the lab: this is what a test needs. Every wait has a deadline; none asserts a duration.
//! `REDIRECTOR_LAB_LOGS=1` shows the logs of labs whose tests pass, too.
#![allow(clippy::expect_used, reason = "a lab that cannot be built is a failed test")]

mod agent;
mod agent_map;
mod apps;
mod attached;
mod browser;
mod cable;
mod collector;
mod curl;
mod datapaths;
mod developer;
mod frozen_threads;
mod gateway;
mod http;
mod lab;
mod log;
mod netns;
mod observer;
mod packages;
mod process;
mod server;
mod shop;
mod shuffler;
mod tls;
mod tools;
mod wait;
mod wire;

pub use agent::{Agent, AgentOptions, CommandOutput, redirector_binary};
pub use agent_map::AgentMap;
pub use apps::{
    App, Ends, Http2Answers, KeepAliveClient, Nginx, PoolClient, Software, WebSockets, grpc_client,
    http2_client, http2_raw, tls_ends_client, tls_ends_server, websocket_dialog,
};
pub use attached::{Direction, PassAll, cgroup_peername_programs, cgroup_root, tcx_programs};
pub use browser::Browser;
pub use cable::{CABLE, Cable, LargestPacket};
pub use collector::{Collector, Span};
pub use curl::{Answer, Curl};
pub use datapaths::datapaths;
pub use developer::{Developer, Intercept, Refusal};
pub use frozen_threads::FrozenThreads;
pub use gateway::{Gateway, GatewayOptions};
pub use http::{Connection, Response};
pub use lab::{Family, Host, Lab};
pub use log::{Log, Logs, Stream};
pub use netns::Netns;
pub use observer::Observer;
pub use packages::{PACKAGES, Package};
pub use process::Process;
pub use server::{Peer, Server};
pub use shop::{Forwards, Shop};
pub use shuffler::{Odds, Shuffled, Shuffler};
pub use tls::{Certificate, Kind, s_client};
pub use tools::h2spec;
pub use wait::{DEADLINE, eventually, eventually_some};
pub use wire::{Resets, Wire};
