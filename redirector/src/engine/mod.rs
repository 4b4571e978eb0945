//! The engine: takes client connections, routes each request by its own head, and keeps bytes as they came.
//!
//! | file | purpose |
//! | --- | --- |
//! | `addresses` | newtypes, so that client, app and agent addresses cannot be swapped |
//! | `intercept` | an intercept as the engine sees it: a matcher and a tunnel that may be away |
//! | `routes` | the intercepts of one port, oldest first |
//! | `connection` | one client connection from accept to close |
//! | `decision` | where a request goes |
//! | `live` | the live route: requests to the app, answers to the client |
//! | `cleared` | what of a buffer may be passed on, and how long it has been here |
//! | `kept` | a request that may be sent to the app a second time |
//! | `developer` | one request on the developer's route |
//! | `http2` | connections that speak HTTP/2: their streams, on both routes |
//! | `waiting` | between requests, without the app |
//! | `upstream` | connections to the app |
//! | `splice` | raw bytes both ways |
//! | `refusal` | the answers that are our own |
//! | `socket` | a connection, read and written from both directions of one task |
//! | `recording` | requests are remembered, for `redirector trace` |
//! | `replay` | a stream whose first bytes have been read already |
//! | `stats` | what is counted |
//! | `tls` | TLS that ends at the agent |
//! | `added_latency` | the time that the agent adds, as a histogram |

mod added_latency;
mod addresses;
mod cleared;
mod connection;
mod decision;
mod developer;
mod http2;
mod intercept;
mod kept;
mod live;
mod recording;
mod refusal;
mod replay;
mod routes;
mod socket;
mod splice;
mod stats;
pub mod tls;
mod upstream;
mod waiting;

pub use added_latency::Buckets;
pub use addresses::{ClientAddr, OriginalDst};
pub use connection::{Arrival, PortContext, serve};
pub use http2::speaks_http2;
pub use intercept::Intercept;
pub use recording::Recorder;
pub use routes::Routes;
pub use stats::{InterceptStats, Outcomes, PortStats, bump};
pub use upstream::UpstreamConnector;
