//! Regular expressions that a whole value must match.

use std::fmt;

use regex::bytes::{Regex, RegexBuilder};
use serde::{Deserialize, Serialize};

use super::error::ConditionError;
use super::pair::check_len;

/// Longest expression, in bytes.
const MAX_LEN: usize = 1024;
/// Most memory of a compiled one, in bytes: what `(\w{1,100}){1,100}` would need is refused, not used.
const MAX_COMPILED: usize = 64 * 1024;

/// A regular expression in the syntax of the `regex` crate: no look-around and no back references, so its time is
/// linear in the length of the value. It must match the *whole* value. It works on bytes: `\w`, `\d` and `(?i)` are
/// ASCII, `.` is any byte but a line feed. Compiled once, when it is made. Equal to those with the same text.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pattern {
    text: String,
    whole: Regex,
}

impl Pattern {
    pub fn new(text: &str) -> Result<Self, ConditionError> {
        check_len(text, MAX_LEN)?;
        if text.is_empty() {
            return Err(ConditionError::Pattern {
                pattern: String::new(),
                reason: "it is empty (is a shell variable unset?)".to_owned(),
            });
        }
        // By itself first: `a)|(?:b` would become one that is not anchored.
        compile(text, text)?;
        Ok(Self { text: text.to_owned(), whole: compile(text, &format!(r"\A(?:{text})\z"))? })
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    #[must_use]
    pub fn matches(&self, value: &[u8]) -> bool {
        self.whole.is_match(value)
    }
}

fn compile(shown: &str, text: &str) -> Result<Regex, ConditionError> {
    let refusal = |reason: String| ConditionError::Pattern { pattern: shown.to_owned(), reason };
    RegexBuilder::new(text).unicode(false).size_limit(MAX_COMPILED).build().map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => {
            refusal("it would take too much memory; use smaller counts in {…}".to_owned())
        }
        error => refusal(error.to_string()),
    })
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Pattern {}

impl std::hash::Hash for Pattern {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

impl TryFrom<String> for Pattern {
    type Error = ConditionError;

    fn try_from(text: String) -> Result<Self, ConditionError> {
        Self::new(&text)
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> Self {
        pattern.text
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pattern").field(&self.text).finish()
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
