//! Conditions on the path of a request.
//!
//! The query is no part of the path. Paths are compared as RFC 3986 §6.2.2 normalises them, so `/caf%c3%a9`,
//! `/caf%C3%A9`, `/café` and `/x/../café` are one path. CONNECT and `OPTIONS *` have an empty path (RFC 9112 §3.3):
//! of paths and prefixes only the prefix `/` takes them, which takes everything.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::error::ConditionError;
use super::pair::check_value;
use super::path::{normalised, request_path};
use super::pattern::Pattern;
use crate::http1::RequestView;

/// The path is exactly this one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PathCondition(String);

/// The path starts with these elements: `/api` takes `/api`, `/api/` and `/api/x`, but not `/apix`. A slash at the
/// end does not count.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PathPrefixCondition(
    /// Without a slash at the end: `/` is empty.
    String,
);

/// The expression matches the whole path, as normalised: `é` is `%C3%A9` there.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PathRegexCondition(Pattern);

impl PathCondition {
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    #[must_use]
    pub fn matches(&self, request: &RequestView<'_>) -> bool {
        request_path(request.target) == self.0
    }
}

impl PathPrefixCondition {
    #[must_use]
    pub fn as_str(&self) -> &str {
        if self.0.is_empty() { "/" } else { &self.0 }
    }

    #[must_use]
    pub fn matches(&self, request: &RequestView<'_>) -> bool {
        self.takes(&request_path(request.target))
    }

    /// Whether a normalised path starts with these elements.
    pub(super) fn takes(&self, path: &str) -> bool {
        self.0.is_empty()
            || path.strip_prefix(&self.0).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// It is `/`, which takes every request.
    pub(super) fn is_root(&self) -> bool {
        self.0.is_empty()
    }
}

impl PathRegexCondition {
    pub fn new(pattern: &str) -> Result<Self, ConditionError> {
        Pattern::new(pattern).map(Self)
    }

    #[must_use]
    pub fn pattern(&self) -> &Pattern {
        &self.0
    }

    #[must_use]
    pub fn matches(&self, request: &RequestView<'_>) -> bool {
        self.0.matches(request_path(request.target).as_bytes())
    }

    /// Takes paths that nobody can have had in mind, as `/.*` does.
    pub(super) fn is_indifferent(&self) -> bool {
        ["/", "/q", "/8Zk0_v-w/~7.Xj/3h%C3%A9"].iter().all(|path| self.0.matches(path.as_bytes()))
    }
}

fn checked(text: &str) -> Result<String, ConditionError> {
    if !text.starts_with('/') || text.contains(['?', '#']) {
        return Err(ConditionError::Path(text.to_owned()));
    }
    check_value("path", text)?;
    Ok(normalised(text).into_owned())
}

impl FromStr for PathCondition {
    type Err = ConditionError;

    fn from_str(text: &str) -> Result<Self, ConditionError> {
        checked(text).map(Self)
    }
}

impl FromStr for PathPrefixCondition {
    type Err = ConditionError;

    fn from_str(text: &str) -> Result<Self, ConditionError> {
        let path = checked(text)?;
        Ok(Self(path.trim_end_matches('/').to_owned()))
    }
}

impl FromStr for PathRegexCondition {
    type Err = ConditionError;

    fn from_str(text: &str) -> Result<Self, ConditionError> {
        Self::new(text)
    }
}

impl TryFrom<String> for PathCondition {
    type Error = ConditionError;

    fn try_from(text: String) -> Result<Self, ConditionError> {
        text.parse()
    }
}

impl TryFrom<String> for PathPrefixCondition {
    type Error = ConditionError;

    fn try_from(text: String) -> Result<Self, ConditionError> {
        text.parse()
    }
}

impl From<PathCondition> for String {
    fn from(path: PathCondition) -> Self {
        path.0
    }
}

impl From<PathPrefixCondition> for String {
    fn from(prefix: PathPrefixCondition) -> Self {
        prefix.as_str().to_owned()
    }
}

impl fmt::Display for PathCondition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for PathPrefixCondition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for PathRegexCondition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
