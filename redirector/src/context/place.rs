//! Where a request carries the key of a developer.

use super::baggage::{self, BaggageCondition};
use super::error::ConditionError;
use super::header::{self, HeaderCondition};
use super::matcher::Condition;
use super::needle::Needle;
use super::tracestate::{self, TracestateCondition};
use crate::http1::RequestView;

/// A header whose whole value is the key, or a member of baggage or of trace state with this name.
#[derive(Debug, Clone, Copy)]
pub(super) enum Place {
    Header(&'static str),
    Baggage(&'static str),
    Tracestate(&'static str),
}

impl Place {
    pub(super) fn has(self, request: &RequestView<'_>, key: &str) -> bool {
        match self {
            Self::Header(name) => header::has_line(request, name, key),
            Self::Baggage(member) => baggage::has_member(request, member, key),
            Self::Tracestate(member) => tracestate::has_member(request, member, key),
        }
    }

    /// Whether `is` holds for anything in this place, decoded; in any number of lines.
    pub(super) fn any(self, request: &RequestView<'_>, is: &mut dyn FnMut(&str) -> bool) -> bool {
        match self {
            Self::Header(name) => header::any_line(request, name, is),
            Self::Baggage(member) => baggage::any_member(request, member, is),
            Self::Tracestate(member) => tracestate::any_member(request, member, is),
        }
    }

    /// What heads have in which something is in this place.
    pub(super) fn needle(self) -> Needle {
        let member = |field, key: &str| Needle::Member { field, key: key.to_owned() };
        match self {
            Self::Header(name) => Needle::Header(name.to_owned()),
            Self::Baggage(key) => member("baggage", key),
            Self::Tracestate(key) => member("tracestate", key),
        }
    }

    /// The condition that this place has this key.
    pub(super) fn condition(self, key: &str) -> Result<Condition, ConditionError> {
        Ok(match self {
            Self::Header(name) => Condition::Header(HeaderCondition::new(name, key)?),
            Self::Baggage(member) => Condition::Baggage(BaggageCondition::new(member, key)?),
            Self::Tracestate(member) => Condition::Tracestate(TracestateCondition::new(member, key)?),
        })
    }
}
