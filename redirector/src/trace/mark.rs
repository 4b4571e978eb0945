//! A context, told by a hash: what was in a request can be compared and looked for, and is shown to nobody.

use crate::context::{Condition, InterceptKey};
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use std::{
    fmt::{self, Write as _},
    sync::Arc,
};

/// Of an intercept's key, or of a condition on a header or a member. The first 8 bytes of a SHA-256, in hex. Shared by the
/// requests that carry it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct Mark(Arc<str>);

impl Mark {
    /// Keys are looked for in every request that is remembered.
    #[must_use]
    pub fn of_key(key: &InterceptKey) -> Self {
        Self::hashed("key", key.as_str())
    }

    /// `None` for conditions that say nothing of context: on paths and methods.
    #[must_use]
    pub fn of_condition(condition: &Condition) -> Option<Self> {
        match condition {
            Condition::Key(key) => Some(Self::of_key(key)),
            Condition::Header(_)
            | Condition::HeaderRegex(_)
            | Condition::Baggage(_)
            | Condition::Tracestate(_)
            | Condition::Preset(_) => Some(Self::hashed("condition", &condition.to_string())),
            // The keys that meet it have marks of their own.
            Condition::AnyKey
            | Condition::Path(_)
            | Condition::PathPrefix(_)
            | Condition::PathRegex(_)
            | Condition::Methods(_) => None,
        }
    }

    /// Is it that of a key?
    #[must_use]
    pub fn is_of_key(&self) -> bool {
        self.0.starts_with("key-")
    }

    fn hashed(kind: &str, text: &str) -> Self {
        let mut mark = format!("{kind}-");
        for byte in &digest(&SHA256, format!("{kind} {text}").as_bytes()).as_ref()[..8] {
            // Writing to a string can't fail.
            let _ = write!(mark, "{byte:02x}");
        }
        Self(mark.into())
    }
}

impl From<String> for Mark {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl From<Mark> for String {
    fn from(mark: Mark) -> Self {
        mark.0.as_ref().to_owned()
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
