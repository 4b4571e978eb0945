//! Where a request went: what agents and gateways remember of requests that carried a developer's context, and how the
//! path of a request is put together from that. No sockets, and no clock but in `recording`.
//!
//! | file | purpose |
//! | --- | --- |
//! | `traceparent` | the ids of a trace: made, and read |
//! | `observation` | one request, as one hop saw it |
//! | `mark` | a context, told by a hash |
//! | `contexts` | the contexts that are looked for at a port, and what a request carries of them |
//! | `recording` | a request that is being served |
//! | `log` | the last ones of an agent or a gateway |
//! | `query` | what is asked for, and the answer |
//! | `tree` | from observations to paths, and to the hop that dropped the context |
//! | `text` | paths for people |

pub mod contexts;
pub mod log;
pub mod mark;
pub mod observation;
pub mod query;
pub mod recording;
pub mod text;
pub mod traceparent;
pub mod tree;

#[cfg(test)]
pub(crate) mod tests;
