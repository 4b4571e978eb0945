//! Which requests carry a developer's context: conditions on the head of a request, combined with AND.
//!
//! Pure functions of a [`RequestView`](crate::http1::RequestView). Conditions can only be made valid, from the
//! command line (`NAME=VALUE`) as from JSON.

mod baggage;
mod error;
mod header;
mod key;
mod list;
mod matcher;
mod needle;
mod pair;
mod subsume;
mod tracestate;

pub use baggage::BaggageCondition;
pub use error::ConditionError;
pub use header::HeaderCondition;
pub use key::{InterceptKey, NoRandomness};
pub use matcher::{Condition, Matcher};
pub use needle::Needle;
pub use tracestate::TracestateCondition;
