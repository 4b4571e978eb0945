//! What a program that can only compare names has to look for, so that it misses no request of an intercept.

use super::key::InterceptKey;
use super::matcher::{Condition, Matcher};

/// A name that occurs in every head that a condition can match.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Needle {
    /// A header field of this name, in lower case.
    Header(String),
    /// A member of a list with this key, case-sensitive; `field` in lower case.
    Member { field: &'static str, key: String },
}

/// Fields that most requests have: looking for them finds everybody's.
const COMMON: [&str; 22] = [
    "accept",
    "accept-encoding",
    "accept-language",
    "authorization",
    "cache-control",
    "connection",
    "content-length",
    "content-type",
    "cookie",
    "forwarded",
    "host",
    "origin",
    "referer",
    "traceparent",
    "transfer-encoding",
    "user-agent",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-real-ip",
    "x-request-id",
];

/// Whether most requests have a header field of this name (in lower case) anyway.
#[must_use]
pub fn is_common_header(name: &str) -> bool {
    COMMON.contains(&name)
}

impl Matcher {
    /// At least one of these is in the head of every request that matches. Of the conditions, which all must hold, the
    /// one is taken that the fewest other requests are likely to meet. `None`: no condition has a name to look for.
    #[must_use]
    pub fn needles(&self) -> Option<Vec<Needle>> {
        let needles = self.conditions.iter().map(Condition::needles).filter(|needles| !needles.is_empty());
        needles.min_by_key(|needles| needles.iter().filter(|needle| needle.is_common()).count())
    }
}

impl Condition {
    /// At least one of these is in the head of every request that meets the condition; empty when nothing has to be.
    fn needles(&self) -> Vec<Needle> {
        if let Some(forms) = self.forms() {
            return forms.iter().flat_map(Self::needles).collect();
        }
        let member = |field, key: &str| Needle::Member { field, key: key.to_owned() };
        match self {
            Self::AnyKey => InterceptKey::PLACES.iter().map(|place| place.needle()).collect(),
            Self::Header(header) => vec![Needle::Header(header.name().to_owned())],
            Self::Baggage(condition) => vec![member("baggage", condition.key())],
            Self::Tracestate(condition) => vec![member("tracestate", condition.key())],
            Self::HeaderRegex(header) => vec![Needle::Header(header.name().to_owned())],
            Self::Path(_) | Self::PathPrefix(_) | Self::PathRegex(_) | Self::Methods(_) => Vec::new(),
            // Replaced by their forms.
            Self::Preset(_) | Self::Key(_) => Vec::new(),
        }
    }
}

impl Needle {
    /// Of the field that says it, in lower case.
    pub fn header_name(&self) -> &str {
        match self {
            Self::Header(name) => name,
            Self::Member { field, .. } => field,
        }
    }

    fn is_common(&self) -> bool {
        matches!(self, Self::Header(name) if is_common_header(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matcher(conditions: &[&str]) -> Matcher {
        let condition = |text: &&str| match text.split_once(' ') {
            Some(("header", rest)) => Condition::Header(rest.parse().unwrap()),
            Some(("baggage", rest)) => Condition::Baggage(rest.parse().unwrap()),
            Some(("tracestate", rest)) => Condition::Tracestate(rest.parse().unwrap()),
            _ => Condition::Key(text.parse().unwrap()),
        };
        Matcher { conditions: conditions.iter().map(condition).collect() }
    }

    #[test]
    fn each_condition_has_its_name() {
        assert_eq!(matcher(&["header X-Dev=a"]).needles(), Some(vec![Needle::Header("x-dev".to_owned())]));
        let member = |field, key: &str| Needle::Member { field, key: key.to_owned() };
        assert_eq!(matcher(&["baggage User=a"]).needles(), Some(vec![member("baggage", "User")]));
        assert_eq!(matcher(&["tracestate x=a"]).needles(), Some(vec![member("tracestate", "x")]));
    }

    #[test]
    fn a_key_may_be_in_any_of_three_places() {
        let needles = matcher(&["abcdefghijklmnop"]).needles().unwrap();
        assert_eq!(needles.len(), 3);
        assert!(needles.contains(&Needle::Header("x-redirector-intercept".to_owned())));
        assert_eq!(Matcher { conditions: vec![Condition::AnyKey] }.needles(), Some(needles));
    }

    #[test]
    fn of_several_conditions_the_rare_one_is_looked_for() {
        for order in [["header host=a", "header x-dev=a"], ["header x-dev=a", "header host=a"]] {
            assert_eq!(matcher(&order).needles(), Some(vec![Needle::Header("x-dev".to_owned())]));
        }
    }

    #[test]
    fn a_catch_all_has_nothing_to_look_for() {
        assert_eq!(matcher(&[]).needles(), None);
    }
}
