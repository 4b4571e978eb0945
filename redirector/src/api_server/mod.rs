//! The serving side of a control API, the agent's and the gateway's: connections, who calls, and what both APIs have in
//! common. The calls themselves are where they are carried out.

mod answer;
mod caller;
mod listener;
mod tokens;
mod trace;

pub use answer::{ApiError, Json, parse};
pub use caller::{Caller, HoldsTokens};
pub use listener::serve_tls;
#[cfg(unix)]
pub use listener::{bind_unix, serve_unix};
pub use tokens::{EndsWithToken, token_calls};
pub use trace::trace_query;
