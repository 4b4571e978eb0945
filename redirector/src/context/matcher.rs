//! What a request must look like to be sent to the developer.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::baggage::BaggageCondition;
use super::header::HeaderCondition;
use super::key::InterceptKey;
use super::tracestate::TracestateCondition;
use crate::http1::RequestView;

/// One condition on a request head. In JSON `{"header": {"name": "x-user", "value": "alice"}}`,
/// `{"baggage": {"key": "user", "value": "alice"}}`, `{"tracestate": {…}}` or `{"key": "…"}`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Condition {
    Header(HeaderCondition),
    Baggage(BaggageCondition),
    Tracestate(TracestateCondition),
    /// The key of an intercept, in a header, in baggage or in trace state.
    Key(InterceptKey),
}

/// All of its conditions hold; without any it matches every request. In JSON `{"conditions": […]}`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Matcher {
    pub conditions: Vec<Condition>,
}

impl Condition {
    #[must_use]
    pub fn matches(&self, request: &RequestView<'_>) -> bool {
        match self {
            Self::Header(condition) => condition.matches(request),
            Self::Baggage(condition) => condition.matches(request),
            Self::Tracestate(condition) => condition.matches(request),
            Self::Key(key) => key.matches(request),
        }
    }
}

impl Matcher {
    /// Whether the request is one for the developer.
    #[must_use]
    pub fn matches(&self, request: &RequestView<'_>) -> bool {
        self.conditions.iter().all(|condition| condition.matches(request))
    }

    /// Matches every request, by having no condition.
    #[must_use]
    pub fn is_catch_all(&self) -> bool {
        self.conditions.is_empty()
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(condition) => write!(f, "header {condition}"),
            Self::Baggage(condition) => write!(f, "baggage {condition}"),
            Self::Tracestate(condition) => write!(f, "tracestate {condition}"),
            Self::Key(key) => write!(f, "key {key}"),
        }
    }
}

impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_catch_all() {
            return f.write_str("all requests");
        }
        for (index, condition) in self.conditions.iter().enumerate() {
            let and = if index == 0 { "" } else { " and " };
            write!(f, "{and}{condition}")?;
        }
        Ok(())
    }
}
