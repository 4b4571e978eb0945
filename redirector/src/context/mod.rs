//! Which requests carry a developer's context: conditions on the head of a request, combined with AND.
//!
//! Pure functions of a [`RequestView`](crate::http1::RequestView), whatever version of HTTP it came in. Conditions can
//! only be made valid, from the command line as from JSON.
//!
//! | file | purpose |
//! | --- | --- |
//! | `matcher` | all kinds of conditions, and their combination |
//! | `subsume` | when one matcher claims all that another one does |
//! | `header`, `header_regex`, `baggage`, `tracestate`, `methods`, `path_condition` | the kinds |
//! | `key`, `preset` | a developer's key in any of several places: our own, and those of other tools |
//! | `place` | one such place |
//! | `path` | the path of a request target, normalised |
//! | `pattern` | regular expressions |
//! | `list`, `pair` | comma-separated lists; names and values |
//! | `error` | why a condition cannot be made |

mod baggage;
mod error;
mod header;
mod header_regex;
mod key;
mod list;
mod matcher;
mod methods;
mod needle;
mod pair;
mod path;
mod path_condition;
mod pattern;
mod place;
mod preset;
mod subsume;
mod tracestate;

pub use baggage::BaggageCondition;
pub use error::ConditionError;
pub use header::HeaderCondition;
pub use header_regex::HeaderRegexCondition;
pub use key::{InterceptKey, NoRandomness};
pub use matcher::{Condition, MAX_CONDITIONS, Matcher};
pub use methods::{MethodsCondition, parse_method};
pub use needle::{Needle, is_common_header};
pub use path::path_of_target;
pub use path_condition::{PathCondition, PathPrefixCondition, PathRegexCondition};
pub use pattern::Pattern;
pub use preset::{Preset, PresetCondition};
pub use tracestate::TracestateCondition;
