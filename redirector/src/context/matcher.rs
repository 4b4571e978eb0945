//! What a request must look like to be sent to the developer.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, de};

use super::baggage::BaggageCondition;
use super::header::HeaderCondition;
use super::header_regex::HeaderRegexCondition;
use super::key::InterceptKey;
use super::methods::MethodsCondition;
use super::path_condition::{PathCondition, PathPrefixCondition, PathRegexCondition};
use super::place::Place;
use super::preset::PresetCondition;
use super::tracestate::TracestateCondition;
use crate::http1::RequestView;

/// Most conditions of one matcher: every request is compared with all of them.
pub const MAX_CONDITIONS: usize = 32;

/// One condition on a request head. In JSON an object with one field, the kind:
///
/// | JSON | holds when |
/// | --- | --- |
/// | `{"header": {"name": "x-user", "value": "alice"}}` | a line of the header has exactly this value |
/// | `{"header_regex": {"name": "x-user", "pattern": "a.*"}}` | the expression matches a line's whole value |
/// | `{"baggage": {"key": "user", "value": "alice"}}` | `baggage` has this member |
/// | `{"tracestate": {"key": "user", "value": "alice"}}` | `tracestate` has this member |
/// | `{"path": "/cart"}` | the path is this one |
/// | `{"path_prefix": "/api"}` | the path starts with these elements |
/// | `{"path_regex": "/v[12]/.*"}` | the expression matches the whole path |
/// | `{"methods": ["GET", "HEAD"]}` | the method is one of these |
/// | `{"preset": {"tool": "signadot", "key": "k"}}` | the request carries the key as that tool does |
/// | `{"key": "…"}` | the request carries the key of an intercept, in a header, in baggage or in trace state |
/// | `"any_key"` | the request carries the key of any intercept there |
///
/// Names have at most 256 bytes, values and paths 4096, expressions 1024.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    Header(HeaderCondition),
    HeaderRegex(HeaderRegexCondition),
    Baggage(BaggageCondition),
    Tracestate(TracestateCondition),
    Path(PathCondition),
    PathPrefix(PathPrefixCondition),
    PathRegex(PathRegexCondition),
    Methods(MethodsCondition),
    Preset(PresetCondition),
    Key(InterceptKey),
    AnyKey,
}

/// All of its conditions hold; without any it matches every request. In JSON `{"conditions": […]}`, with at most
/// [`MAX_CONDITIONS`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Matcher {
    #[serde(deserialize_with = "few_conditions")]
    pub conditions: Vec<Condition>,
}

impl Matcher {
    /// Whether the request is one for the developer.
    #[must_use]
    pub fn matches(&self, request: &RequestView<'_>) -> bool {
        self.conditions.iter().all(|condition| condition.matches(request))
    }

    /// Takes everybody's requests: it has no condition, or only such as everybody meets.
    #[must_use]
    pub fn is_catch_all(&self) -> bool {
        self.conditions.iter().all(Condition::is_indifferent)
    }
}

impl Condition {
    #[must_use]
    pub fn matches(&self, request: &RequestView<'_>) -> bool {
        match self {
            Self::Header(condition) => condition.matches(request),
            Self::HeaderRegex(condition) => condition.matches(request),
            Self::Baggage(condition) => condition.matches(request),
            Self::Tracestate(condition) => condition.matches(request),
            Self::Path(condition) => condition.matches(request),
            Self::PathPrefix(condition) => condition.matches(request),
            Self::PathRegex(condition) => condition.matches(request),
            Self::Methods(condition) => condition.takes(request.method),
            Self::AnyKey => InterceptKey::is_carried_by(request),
            Self::Preset(_) | Self::Key(_) => {
                self.carrier().is_some_and(|(places, key)| places.iter().any(|place| place.has(request, key)))
            }
        }
    }

    /// Of one that holds in any of several forms, the forms, as conditions; the one that a client sends first.
    #[must_use]
    pub fn forms(&self) -> Option<Vec<Self>> {
        let (places, key) = self.carrier()?;
        // Each is valid: that was checked when the key was made.
        Some(places.iter().filter_map(|place| place.condition(key).ok()).collect())
    }

    /// Holds, or as good as holds, whatever the request.
    fn is_indifferent(&self) -> bool {
        match self {
            Self::PathPrefix(prefix) => prefix.is_root(),
            Self::PathRegex(regex) => regex.is_indifferent(),
            _ => false,
        }
    }

    fn carrier(&self) -> Option<(&'static [Place], &str)> {
        match self {
            Self::Preset(preset) => Some((preset.tool().places(), preset.key())),
            Self::Key(key) => Some((InterceptKey::PLACES, key.as_str())),
            _ => None,
        }
    }
}

/// Stops reading, and compiling, at the first one too many.
fn few_conditions<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Condition>, D::Error> {
    struct Few;
    impl<'de> de::Visitor<'de> for Few {
        type Value = Vec<Condition>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a list of at most {MAX_CONDITIONS} conditions")
        }

        fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<Vec<Condition>, A::Error> {
            let mut conditions = Vec::new();
            while let Some(condition) = list.next_element()? {
                if conditions.len() == MAX_CONDITIONS {
                    return Err(de::Error::invalid_length(MAX_CONDITIONS + 1, &self));
                }
                conditions.push(condition);
            }
            Ok(conditions)
        }
    }
    deserializer.deserialize_seq(Few)
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(condition) => write!(f, "header {condition}"),
            Self::HeaderRegex(condition) => write!(f, "header regex {condition}"),
            Self::Baggage(condition) => write!(f, "baggage {condition}"),
            Self::Tracestate(condition) => write!(f, "tracestate {condition}"),
            Self::Path(path) => write!(f, "path {path}"),
            Self::PathPrefix(prefix) => write!(f, "path prefix {prefix}"),
            Self::PathRegex(pattern) => write!(f, "path regex {pattern}"),
            Self::Methods(methods) => write!(f, "method {methods}"),
            Self::Preset(preset) => write!(f, "preset {preset}"),
            Self::Key(key) => write!(f, "key {key}"),
            Self::AnyKey => f.write_str("any key"),
        }
    }
}

impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.conditions.is_empty() {
            return f.write_str("all requests");
        }
        for (index, condition) in self.conditions.iter().enumerate() {
            let and = if index == 0 { "" } else { " and " };
            write!(f, "{and}{condition}")?;
        }
        Ok(())
    }
}
