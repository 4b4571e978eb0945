//! The `curl` line that makes a request which matches.

use crate::{
    context::{Condition, Matcher},
    http1::RequestView,
};
use http::Method;
use httparse::Header;
use std::collections::BTreeMap;

/// Goes with trace state, which tracers drop without it (W3C Trace Context, section "Processing Model"). The
/// specification's own example, not sampled: nobody needs to record it.
const TRACEPARENT: (&str, &str) = ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00");

/// A request that meets the conditions, as far as they say what it looks like.
#[derive(Default)]
struct Example {
    headers: Vec<(String, String)>,
    /// Members by header.
    lists: BTreeMap<&'static str, Vec<String>>,
    /// Of the last condition that has one; exact ones come after prefixes.
    path: Option<String>,
    method: Option<Method>,
}

/// A line for a shell, in `scheme`, with `ADDRESS` for whatever clients call the service by. `None` where no example can be made:
/// nobody can tell what a regular expression is to match.
pub fn curl_line(matcher: &Matcher, scheme: &str, port: u16) -> Option<String> {
    let mut example = Example::default();
    for condition in &matcher.conditions {
        // Of several forms one is enough.
        match condition.forms() {
            Some(forms) => example.meet(forms.first()?)?,
            None => example.meet(condition)?,
        }
    }
    let (path, method, headers) = example.into_parts();
    // What was put together may still contradict itself, as two paths do.
    let lines: Vec<Header<'_>> =
        headers.iter().map(|(name, value)| Header { name, value: value.as_bytes() }).collect();
    if !matcher.matches(&RequestView::new(method.as_str(), &path, &lines)) {
        return None;
    }
    let mut words = vec!["curl".to_owned()];
    match method.as_str() {
        "GET" => {}
        // With `-X HEAD` curl would wait for a body.
        "HEAD" => words.push("--head".to_owned()),
        // A tunnel is nothing that one request shows.
        "CONNECT" => return None,
        other => words.push(format!("-X {}", quoted(other))),
    }
    words.extend(headers.iter().map(|(name, value)| format!("-H {}", quoted(&format!("{name}: {value}")))));
    words.push(quoted(&format!("{scheme}://ADDRESS:{port}{path}")));
    Some(words.join(" "))
}

impl Example {
    fn meet(&mut self, condition: &Condition) -> Option<()> {
        match condition {
            Condition::Header(header) => {
                self.headers.push((header.name().to_owned(), header.value().to_owned()));
            }
            Condition::Baggage(member) => self.lists.entry("baggage").or_default().push(member.member()),
            Condition::Tracestate(member) => {
                self.lists.entry("tracestate").or_default().push(member.to_string());
            }
            Condition::Path(path) => self.path = Some(path.as_str().to_owned()),
            Condition::PathPrefix(prefix) => {
                self.path.get_or_insert_with(|| prefix.as_str().to_owned());
            }
            Condition::Methods(methods) => {
                let get = methods.methods().iter().find(|method| **method == Method::GET);
                self.method = get.or(methods.methods().first()).cloned();
            }
            Condition::HeaderRegex(_) | Condition::PathRegex(_) | Condition::AnyKey => return None,
            // Replaced by their forms.
            Condition::Preset(_) | Condition::Key(_) => return None,
        }
        Some(())
    }

    fn into_parts(self) -> (String, Method, Vec<(String, String)>) {
        let mut headers = self.headers;
        if self.lists.contains_key("tracestate") && !headers.iter().any(|(name, _)| name == TRACEPARENT.0) {
            headers.push((TRACEPARENT.0.to_owned(), TRACEPARENT.1.to_owned()));
        }
        headers.extend(self.lists.into_iter().map(|(name, members)| (name.to_owned(), members.join(","))));
        (self.path.unwrap_or_else(|| "/".to_owned()), self.method.unwrap_or_default(), headers)
    }
}

/// A word of a shell's command line.
fn quoted(word: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:=@%+".contains(&byte);
    if word.bytes().all(is_plain) { word.to_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(conditions: Vec<Condition>) -> Option<String> {
        curl_line(&Matcher { conditions }, "http", 8080)
    }

    #[test]
    fn the_line_survives_a_shell() {
        let header = Condition::Header("x-dev=it's".parse().unwrap());
        assert_eq!(line(vec![header]).unwrap(), r"curl -H 'x-dev: it'\''s' http://ADDRESS:8080/");
        let path = Condition::Path("/it's;{a,b}".parse().unwrap());
        assert_eq!(line(vec![path]).unwrap(), r"curl 'http://ADDRESS:8080/it'\''s;%7Ba,b%7D'");
    }

    #[test]
    fn every_kind_of_condition_has_its_place_in_the_line() {
        let conditions = vec![
            Condition::Header("x-dev=alice".parse().unwrap()),
            Condition::Baggage("user=Am\u{e9}lie, 100%".parse().unwrap()),
            Condition::Baggage("team=red".parse().unwrap()),
            Condition::Tracestate("vendor=a b".parse().unwrap()),
            Condition::Preset("signadot=k1".parse().unwrap()),
            Condition::PathPrefix("/api".parse().unwrap()),
            Condition::Path("/api/cart".parse().unwrap()),
            Condition::Methods(vec!["PUT".to_owned(), "POST".to_owned()].try_into().unwrap()),
        ];
        assert_eq!(
            line(conditions).unwrap(),
            format!(
                "curl -X POST -H 'x-dev: alice' -H 'traceparent: {}' \
                 -H 'baggage: user=Am%C3%A9lie%2C%20100%25,team=red,sd-routing-key=k1' \
                 -H 'tracestate: vendor=a b' http://ADDRESS:8080/api/cart",
                TRACEPARENT.1
            )
        );
        let methods = |methods: &[&str]| {
            let methods: Vec<String> = methods.iter().map(|&method| method.to_owned()).collect();
            Condition::Methods(methods.try_into().unwrap())
        };
        assert_eq!(line(vec![methods(&["HEAD"])]).unwrap(), "curl --head http://ADDRESS:8080/");
        assert_eq!(line(vec![methods(&["DELETE", "GET"])]).unwrap(), "curl http://ADDRESS:8080/");
        let lapdev = Condition::Preset("lapdev=u-1".parse().unwrap());
        assert_eq!(
            line(vec![lapdev]).unwrap(),
            format!(
                "curl -H 'traceparent: {}' -H 'tracestate: lapdev-env-id=u-1' http://ADDRESS:8080/",
                TRACEPARENT.1
            )
        );
        assert_eq!(line(Vec::new()).unwrap(), "curl http://ADDRESS:8080/");
    }

    #[test]
    fn there_is_no_line_where_none_can_be_right() {
        let path = |path: &str| Condition::Path(path.parse().unwrap());
        assert_eq!(line(vec![Condition::HeaderRegex("a=b+".parse().unwrap())]), None);
        assert_eq!(line(vec![path("/a"), Condition::PathRegex("/.*".parse().unwrap())]), None);
        assert_eq!(line(vec![path("/a"), path("/b")]), None);
        assert_eq!(line(vec![path("/a"), Condition::PathPrefix("/b".parse().unwrap())]), None);
        assert_eq!(line(vec![Condition::Methods(vec!["CONNECT".to_owned()].try_into().unwrap())]), None);
    }
}
