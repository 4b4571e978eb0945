//! Conditions on a header field.

use std::fmt;
use std::str::FromStr;

use http::HeaderName;
use serde::{Deserialize, Serialize};

use super::error::ConditionError;
use super::list::trim_ows;
use super::pair::{check_pair, split_pair};
use crate::http1::RequestView;

/// Some line of the field has exactly this value, whitespace around it aside. A list in one line is one value.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Unchecked", into = "Unchecked")]
pub struct HeaderCondition {
    name: HeaderName,
    value: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Unchecked {
    name: String,
    value: String,
}

impl HeaderCondition {
    /// `name` in any case; `value` without the whitespace around it.
    pub fn new(name: &str, value: &str) -> Result<Self, ConditionError> {
        check_pair(name, value)?;
        Ok(Self { name: header_name(name)?, value: value.trim_matches([' ', '\t']).to_owned() })
    }

    /// Name in lower case.
    #[must_use]
    pub fn name(&self) -> &str {
        self.name.as_str()
    }

    #[must_use]
    pub fn value(&self) -> &str {
        &self.value
    }

    #[must_use]
    pub fn matches(&self, request: &RequestView<'_>) -> bool {
        has_line(request, self.name(), &self.value)
    }
}

pub(super) fn header_name(name: &str) -> Result<HeaderName, ConditionError> {
    HeaderName::from_bytes(name.as_bytes()).map_err(|_| ConditionError::HeaderName(name.to_owned()))
}

/// Whether `is` holds for any line of the field that is text.
pub(super) fn any_line(request: &RequestView<'_>, name: &str, is: &mut dyn FnMut(&str) -> bool) -> bool {
    request.header_lines(name).map(trim_ows).any(|line| std::str::from_utf8(line).is_ok_and(&mut *is))
}

/// Some line of the field `name` has exactly this value, whitespace around it aside.
pub(super) fn has_line(request: &RequestView<'_>, name: &str, value: &str) -> bool {
    request.header_lines(name).any(|line| trim_ows(line) == value.as_bytes())
}

/// `NAME=VALUE`
impl FromStr for HeaderCondition {
    type Err = ConditionError;

    fn from_str(text: &str) -> Result<Self, ConditionError> {
        let (name, value) = split_pair(text)?;
        Self::new(name, value)
    }
}

impl TryFrom<Unchecked> for HeaderCondition {
    type Error = ConditionError;

    fn try_from(unchecked: Unchecked) -> Result<Self, ConditionError> {
        Self::new(&unchecked.name, &unchecked.value)
    }
}

impl From<HeaderCondition> for Unchecked {
    fn from(condition: HeaderCondition) -> Self {
        Self { name: condition.name.as_str().to_owned(), value: condition.value }
    }
}

/// `NAME=VALUE`
impl fmt::Display for HeaderCondition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.name, self.value)
    }
}
