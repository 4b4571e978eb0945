//! What of a matcher can be put into a request, and by which names context is known at the edge.

use crate::context::{Condition, InterceptKey, Matcher, is_common_header};
use http::{HeaderName, HeaderValue};
use percent_encoding::percent_decode;
use std::{borrow::Cow, collections::BTreeSet};

/// Header fields that a request gets, and members of its `baggage` and `tracestate`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PreviewContext {
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub baggage: Vec<Member>,
    pub tracestate: Vec<Member>,
}

/// A member of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub key: String,
    /// `key=value` as it travels.
    pub text: String,
}

/// Why requests can't be made to match.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotInjectable {
    #[error(
        "nobody can tell which value `{0}` is to match: make the intercept with --header NAME=VALUE, or with no \
         condition, for a preview"
    )]
    Regex(String),
    #[error(
        "an intercept by {0} has nothing that a preview could put into a request: make it with --header, --baggage, \
         --tracestate or --preset, or with no condition"
    )]
    NothingToInject(String),
    #[error(
        "the header `{0}` has a meaning of its own, so a preview can't set it: make the intercept with another one"
    )]
    HeaderInUse(String),
    #[error("the value of `{0}` can't be sent in a header: use printable characters")]
    Value(String),
}

/// The names of everybody's context, which nobody may bring along from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContextNames {
    /// As [`folded`].
    headers: BTreeSet<String>,
    baggage: BTreeSet<String>,
    tracestate: BTreeSet<String>,
}

impl PreviewContext {
    /// What makes a request match. Conditions on method and path are left to the requests.
    pub fn of(matcher: &Matcher) -> Result<Self, NotInjectable> {
        let mut context = Self::default();
        for condition in &matcher.conditions {
            // In all forms, so that whichever the hops in between pass on is one of them.
            match condition.forms() {
                Some(forms) => forms.iter().try_for_each(|form| context.add(form))?,
                None => context.add(condition)?,
            }
        }
        if context == Self::default() {
            return Err(NotInjectable::NothingToInject(matcher.to_string()));
        }
        Ok(context)
    }

    fn add(&mut self, condition: &Condition) -> Result<(), NotInjectable> {
        match condition {
            Condition::Header(header) => {
                let name = HeaderName::from_bytes(header.name().as_bytes())
                    .map_err(|_| NotInjectable::HeaderInUse(header.name().to_owned()))?;
                if is_in_use(&name) {
                    return Err(NotInjectable::HeaderInUse(name.to_string()));
                }
                let value = HeaderValue::from_bytes(header.value().as_bytes())
                    .map_err(|_| NotInjectable::Value(name.to_string()))?;
                self.headers.push((name, value));
            }
            Condition::Baggage(member) => {
                self.baggage.push(Member { key: member.key().to_owned(), text: member.member() });
            }
            Condition::Tracestate(member) => {
                self.tracestate.push(Member { key: member.key().to_owned(), text: member.to_string() });
            }
            Condition::HeaderRegex(_) => return Err(NotInjectable::Regex(condition.to_string())),
            Condition::AnyKey
            | Condition::Path(_)
            | Condition::PathPrefix(_)
            | Condition::PathRegex(_)
            | Condition::Methods(_) => {}
            // Replaced by their forms.
            Condition::Preset(_) | Condition::Key(_) => {}
        }
        Ok(())
    }
}

/// Headers that most requests have, or that say how a request is to be read and by whom.
fn is_in_use(name: &HeaderName) -> bool {
    let name = name.as_str();
    is_common_header(name)
        || ["baggage", "tracestate", "expect", "te", "trailer", "upgrade", "keep-alive", "range", "via"]
            .contains(&name)
        || ["x-forwarded-", "proxy-", "sec-", "if-", "content-", "access-control-"]
            .iter()
            .any(|prefix| name.starts_with(prefix))
}

impl ContextNames {
    /// Our own names, and those of these previews.
    pub fn of<'a>(contexts: impl IntoIterator<Item = &'a PreviewContext>) -> Self {
        let own = |name: &str| BTreeSet::from([name.to_owned()]);
        let mut names = Self {
            headers: own(InterceptKey::HEADER),
            baggage: own(InterceptKey::MEMBER),
            tracestate: own(InterceptKey::MEMBER),
        };
        for context in contexts {
            names.headers.extend(context.headers.iter().map(|(name, _)| folded(name.as_str()).into_owned()));
            names.baggage.extend(context.baggage.iter().map(|member| member.key.clone()));
            names.tracestate.extend(context.tracestate.iter().map(|member| member.key.clone()));
        }
        names
    }

    /// Also one that a server may take for it: CGI and what followed it can't tell `-` from `_`.
    #[must_use]
    pub fn has_header(&self, name: &str) -> bool {
        self.headers.contains(&*folded(name))
    }

    /// The key of a baggage member as it travels, compared as it is and percent-decoded.
    #[must_use]
    pub fn has_baggage(&self, key: &[u8]) -> bool {
        let decoded = percent_decode(key).decode_utf8_lossy();
        self.baggage.contains(decoded.trim())
            || std::str::from_utf8(key).is_ok_and(|key| self.baggage.contains(key))
    }

    #[must_use]
    pub fn has_tracestate(&self, key: &[u8]) -> bool {
        std::str::from_utf8(key).is_ok_and(|key| self.tracestate.contains(key.trim()))
    }
}

/// In lower case, with `-` for whatever is neither letter nor digit.
#[must_use]
pub fn folded(name: &str) -> Cow<'_, str> {
    let fold = |byte: u8| if byte.is_ascii_alphanumeric() { byte.to_ascii_lowercase() } else { b'-' };
    // Nearly all are, and every name of every request is asked about.
    if name.bytes().all(|byte| fold(byte) == byte) {
        return Cow::Borrowed(name);
    }
    Cow::Owned(name.bytes().map(|byte| char::from(fold(byte))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matcher(conditions: &[Condition]) -> Matcher {
        Matcher { conditions: conditions.to_vec() }
    }

    fn header(text: &str) -> Condition {
        Condition::Header(text.parse().unwrap())
    }

    #[test]
    fn an_intercept_by_key_gets_all_three_places() {
        let key = InterceptKey::random().unwrap();
        let context = PreviewContext::of(&matcher(&[Condition::Key(key.clone())])).unwrap();
        assert_eq!(context.headers.len(), 1);
        assert_eq!(context.headers[0].0, "x-redirector-intercept");
        assert_eq!(context.headers[0].1, key.as_str());
        assert_eq!(context.baggage[0].text, format!("redirector={key}"));
        assert_eq!(context.tracestate[0].text, format!("redirector={key}"));
    }

    #[test]
    fn other_conditions_get_exactly_their_place() {
        let context = PreviewContext::of(&matcher(&[
            header("x-dev=alice"),
            Condition::Baggage("user=al ice".parse().unwrap()),
            Condition::Preset("lapdev=u-1".parse().unwrap()),
            Condition::PathPrefix("/api".parse().unwrap()),
        ]))
        .unwrap();
        assert_eq!(context.headers, [("x-dev".parse().unwrap(), HeaderValue::from_static("alice"))]);
        assert_eq!(context.baggage[0].text, "user=al%20ice");
        assert_eq!(context.tracestate[0].text, "lapdev-env-id=u-1");
    }

    #[test]
    fn what_cannot_be_injected_is_refused_and_says_why() {
        let refused = |conditions: &[Condition]| PreviewContext::of(&matcher(conditions)).unwrap_err();
        let path = Condition::Path("/cart".parse().unwrap());
        assert!(matches!(refused(&[path]), NotInjectable::NothingToInject(_)));
        assert!(matches!(refused(&[]), NotInjectable::NothingToInject(_)));
        let regex = Condition::HeaderRegex("x-dev=a.*".parse().unwrap());
        assert!(matches!(refused(&[header("x-dev=alice"), regex]), NotInjectable::Regex(_)));
        for name in
            ["host", "cookie", "content-length", "transfer-encoding", "x-forwarded-proto", "traceparent"]
        {
            assert_eq!(refused(&[header(&format!("{name}=1"))]), NotInjectable::HeaderInUse(name.to_owned()));
        }
    }

    #[test]
    fn names_are_known_in_every_spelling() {
        let alice = PreviewContext::of(&matcher(&[
            header("x-dev=alice"),
            Condition::Baggage("user=alice".parse().unwrap()),
        ]))
        .unwrap();
        let names = ContextNames::of([&alice]);
        for name in ["x-dev", "X-Dev", "x_dev", "x.dev", "X_REDIRECTOR_INTERCEPT", "x-redirector-intercept"] {
            assert!(names.has_header(name), "{name}");
        }
        for key in ["redirector", "%72edirector", "user", "us%65r", " user"] {
            assert!(names.has_baggage(key.as_bytes()), "{key}");
        }
        assert!(names.has_tracestate(b"redirector") && !names.has_tracestate(b"user"));
        assert!(!names.has_header("x-devil") && !names.has_baggage(b"users"));
    }
}
