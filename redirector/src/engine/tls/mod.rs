//! TLS that ends at the agent, so that requests inside it can be routed.
//!
//! The agent does not decide anything about TLS by itself: it makes the connection to the app first, with what the
//! client asked for, and answers the client as the app has answered. The client sees the app's own certificate,
//! because somebody who intercepts the port has given its key. Until the client has been answered everything can
//! still be undone: whatever is not as it should be, client and app are left to each other.
//!
//! | file | purpose |
//! | --- | --- |
//! | `hello` | what the client asks for |
//! | `app` | TLS towards the app |
//! | `key` | a certificate with its key |
//! | `keys` | those that an intercept has brought, and when they are read again |
//! | `termination` | from the client's first byte to two open sessions, or to none |
//! | `verdicts` | whom not to try again for a while |
//! | `session` | bytes through TLS |
//! | `probe` | what will keep a service from being intercepted |

mod app;
mod hello;
mod key;
mod keys;
mod probe;
mod session;
mod termination;
mod verdicts;

pub(super) use app::AppTls;
pub use key::{KeyError, TlsKey, certificate, private_key};
pub use keys::InterceptKeys;
pub use probe::probe;
pub(super) use session::{Ending, Session};
pub(super) use termination::{Terminated, terminate};
pub(super) use verdicts::Verdicts;
