//! Conditions on a header field by a regular expression.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::error::ConditionError;
use super::header::header_name;
use super::list::trim_ows;
use super::pair::{check_pair, split_pair};
use super::pattern::Pattern;
use crate::http1::RequestView;

/// Some line of the field matches the expression with its whole value, whitespace around it aside.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Unchecked", into = "Unchecked")]
pub struct HeaderRegexCondition {
    name: http::HeaderName,
    pattern: Pattern,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Unchecked {
    name: String,
    pattern: String,
}

impl HeaderRegexCondition {
    /// `name` in any case.
    pub fn new(name: &str, pattern: &str) -> Result<Self, ConditionError> {
        check_pair(name, pattern)?;
        Ok(Self { name: header_name(name)?, pattern: Pattern::new(pattern)? })
    }

    /// Name in lower case.
    #[must_use]
    pub fn name(&self) -> &str {
        self.name.as_str()
    }

    #[must_use]
    pub fn pattern(&self) -> &Pattern {
        &self.pattern
    }

    #[must_use]
    pub fn matches(&self, request: &RequestView<'_>) -> bool {
        request.header_lines(self.name()).any(|line| self.pattern.matches(trim_ows(line)))
    }
}

/// `NAME=RE`
impl FromStr for HeaderRegexCondition {
    type Err = ConditionError;

    fn from_str(text: &str) -> Result<Self, ConditionError> {
        let (name, pattern) = split_pair(text)?;
        Self::new(name, pattern)
    }
}

impl TryFrom<Unchecked> for HeaderRegexCondition {
    type Error = ConditionError;

    fn try_from(unchecked: Unchecked) -> Result<Self, ConditionError> {
        Self::new(&unchecked.name, &unchecked.pattern)
    }
}

impl From<HeaderRegexCondition> for Unchecked {
    fn from(condition: HeaderRegexCondition) -> Self {
        Self { name: condition.name.as_str().to_owned(), pattern: condition.pattern.into() }
    }
}

/// `NAME=RE`
impl fmt::Display for HeaderRegexCondition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.name, self.pattern)
    }
}
