//! Takes away the context that a request brings from outside, and puts a preview's in.
//!
//! The request is at the edge: nobody before the gateway has a right to any context (W3C Trace Context, section
//! "Privacy"; here: who could bring it would reach a developer's machine). What of `baggage`, `traceparent` and
//! `tracestate` is not context of an intercept stays: browsers and tracers use them too.

use super::context::{ContextNames, Member, PreviewContext};
use crate::trace::traceparent::{TraceIds, is_valid_traceparent};
use http::{HeaderMap, HeaderName, HeaderValue};

const BAGGAGE: HeaderName = HeaderName::from_static("baggage");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Most members of a trace state (W3C Trace Context, section "Tracestate Header").
const MAX_TRACESTATE: usize = 32;

/// Removes all context with one of these names, in every line and spelling; also from a trailer section. Leaves what
/// has none as it is, to the byte.
pub fn strip(headers: &mut HeaderMap, names: &ContextNames) {
    let ours: Vec<HeaderName> =
        headers.keys().filter(|name| names.has_header(name.as_str())).cloned().collect();
    for name in ours {
        headers.remove(name);
    }
    strip_list(headers, &BAGGAGE, |member| names.has_baggage(baggage_key(member)));
    strip_list(headers, &TRACESTATE, |member| names.has_tracestate(tracestate_key(member)));
}

/// Puts the context in, after [`strip`]. `new_trace` is asked for when the request is not part of a trace yet.
pub fn inject(headers: &mut HeaderMap, context: &PreviewContext, new_trace: impl FnOnce() -> TraceIds) {
    for (name, value) in &context.headers {
        headers.insert(name.clone(), value.clone());
    }
    if !context.baggage.is_empty() {
        merge_baggage(headers, &context.baggage);
    }
    // Without a trace context tracers drop the state; with one, everything that was made for this request shows up as
    // one trace.
    let is_traced = is_traced(headers);
    if !is_traced {
        headers.insert(TRACEPARENT, new_trace().traceparent());
        // Of a trace that is not to be understood, the state means nothing (section "Processing Model").
        headers.remove(TRACESTATE);
    }
    if !context.tracestate.is_empty() {
        merge_tracestate(headers, &context.tracestate);
    }
}

/// Exactly one line, and a valid one.
fn is_traced(headers: &HeaderMap) -> bool {
    let mut lines = headers.get_all(TRACEPARENT).iter();
    match (lines.next(), lines.next()) {
        (Some(line), None) => is_valid_traceparent(line.as_bytes()),
        _ => false,
    }
}

/// Ours first: whoever cuts the list at its limits (64 members, 8192 bytes) cuts at its end. The others follow as they
/// are, in their order.
fn merge_baggage(headers: &mut HeaderMap, ours: &[Member]) {
    let ours = ours.iter().map(|member| member.text.as_bytes());
    let others = members(headers, &BAGGAGE).filter(|member| !member.is_empty());
    let list: Vec<&[u8]> = ours.chain(others).collect();
    if let Ok(value) = HeaderValue::from_bytes(&list.join(&b","[..])) {
        headers.insert(BAGGAGE, value);
    }
}

/// Ours left-most, as the last one who wrote (section "Mutating the tracestate Field"). A member that is invalid or a
/// duplicate would make strict readers drop the whole list, and ours with it: it goes. So does what is too much, from
/// the right.
fn merge_tracestate(headers: &mut HeaderMap, ours: &[Member]) {
    let mut list: Vec<&[u8]> = ours.iter().map(|member| member.text.as_bytes()).collect();
    for member in members(headers, &TRACESTATE) {
        let known = list.iter().any(|other| tracestate_key(other) == tracestate_key(member));
        if list.len() < MAX_TRACESTATE && !known && is_tracestate_member(member) {
            list.push(member);
        }
    }
    list.truncate(MAX_TRACESTATE);
    if let Ok(value) = HeaderValue::from_bytes(&list.join(&b","[..])) {
        headers.insert(TRACESTATE, value);
    }
}

fn is_tracestate_member(member: &[u8]) -> bool {
    std::str::from_utf8(member).is_ok_and(|text| text.parse::<crate::context::TracestateCondition>().is_ok())
}

/// Takes the members away that are `ours`. A line without any stays as it came; one with no others goes.
fn strip_list(headers: &mut HeaderMap, name: &HeaderName, ours: impl Fn(&[u8]) -> bool) {
    if !members(headers, name).any(&ours) {
        return;
    }
    let lines: Vec<HeaderValue> = headers.get_all(name).iter().cloned().collect();
    headers.remove(name);
    for line in lines {
        let others: Vec<&[u8]> = split(&line).filter(|member| !ours(member)).collect();
        let value = match others.len() == split(&line).count() {
            true => Some(line.clone()),
            false if others.is_empty() => None,
            false => HeaderValue::from_bytes(&others.join(&b","[..])).ok(),
        };
        if let Some(value) = value {
            headers.append(name.clone(), value);
        }
    }
}

/// All members of a list that spans several lines.
fn members<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> + use<'a> {
    headers.get_all(name).iter().flat_map(split)
}

fn split(line: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    line.as_bytes().split(|&byte| byte == b',').map(<[u8]>::trim_ascii)
}

/// `key OWS = OWS value *( ; property )`, or what stands where a key should be.
fn baggage_key(member: &[u8]) -> &[u8] {
    let end = member.iter().position(|byte| matches!(byte, b'=' | b';')).unwrap_or(member.len());
    member[..end].trim_ascii()
}

fn tracestate_key(member: &[u8]) -> &[u8] {
    let end = memchr::memchr(b'=', member).unwrap_or(member.len());
    member[..end].trim_ascii()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        context::{Condition, InterceptKey, Matcher},
        http1::RequestView,
    };
    use httparse::Header;
    use proptest::prelude::*;

    const KEY: &str = "abcdefghijklmnop";

    fn matcher() -> Matcher {
        Matcher { conditions: vec![Condition::Key(KEY.parse().unwrap())] }
    }

    fn context() -> PreviewContext {
        PreviewContext::of(&matcher()).unwrap()
    }

    fn ids() -> TraceIds {
        TraceIds::from_bytes([7; 24])
    }

    fn headers(lines: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_bytes(value.as_bytes()).unwrap(),
            );
        }
        headers
    }

    fn stripped(lines: &[(&str, &str)]) -> HeaderMap {
        let mut headers = headers(lines);
        strip(&mut headers, &ContextNames::of([&context()]));
        headers
    }

    fn injected(lines: &[(&str, &str)]) -> HeaderMap {
        let mut headers = stripped(lines);
        inject(&mut headers, &context(), ids);
        headers
    }

    fn line<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
        let lines: Vec<&HeaderValue> = headers.get_all(name).iter().collect();
        assert_eq!(lines.len(), 1, "{name}: {lines:?}");
        lines[0].to_str().unwrap()
    }

    fn matches(headers: &HeaderMap) -> bool {
        let lines: Vec<Header<'_>> = headers
            .iter()
            .map(|(name, value)| Header { name: name.as_str(), value: value.as_bytes() })
            .collect();
        matcher().matches(&RequestView::new("GET", "/", &lines))
    }

    #[test]
    fn a_plain_request_gets_the_context_in_all_places() {
        let headers = injected(&[("accept", "*/*")]);
        assert_eq!(line(&headers, InterceptKey::HEADER), KEY);
        assert_eq!(line(&headers, "baggage"), format!("redirector={KEY}"));
        assert_eq!(line(&headers, "tracestate"), format!("redirector={KEY}"));
        assert_eq!(line(&headers, "traceparent"), "00-07070707070707070707070707070707-0707070707070707-01");
        assert_eq!(line(&headers, "accept"), "*/*");
    }

    #[test]
    fn context_from_outside_is_stripped_in_every_form() {
        for lines in [
            &[("X-Redirector-Intercept", KEY)][..],
            &[("x-redirector-intercept", "a"), ("X-REDIRECTOR-INTERCEPT", KEY)],
            &[("x_redirector_intercept", KEY)],
            &[("X_Redirector-Intercept", KEY)],
            &[("baggage", "redirector=abcdefghijklmnop")],
            &[("baggage", "redirector=abcdefghijklmnop;a=b")],
            &[("baggage", " redirector = abcdefghijklmnop ")],
            &[("baggage", "re%64irector=abcdefghijklmnop")],
            &[("baggage", "redirector=a, redirector=abcdefghijklmnop")],
            &[("baggage", "redirector"), ("baggage", "redirector;x")],
            &[("tracestate", "redirector=abcdefghijklmnop")],
            &[("tracestate", "redirector=a"), ("tracestate", " redirector=b ,")],
        ] {
            let left: HeaderMap = stripped(lines);
            let text = format!("{left:?}");
            assert!(!text.contains("redirector") && !text.contains(KEY), "{lines:?} leaves {text}");
        }
    }

    #[test]
    fn what_is_not_ours_stays_as_it_was() {
        let lines = [
            ("baggage", " user = alice;x=1 ,, b=%2C"),
            ("tracestate", "vendor=1, other=2"),
            ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"),
            ("x-redirector-interceptor", "no"),
        ];
        assert_eq!(stripped(&lines), headers(&lines));
    }

    #[test]
    fn foreign_baggage_is_merged_and_ours_is_replaced() {
        let headers = injected(&[("baggage", "user=alice;p=1,redirector=evil"), ("baggage", "x=%20y")]);
        assert_eq!(line(&headers, "baggage"), format!("redirector={KEY},user=alice;p=1,x=%20y"));
    }

    #[test]
    fn a_valid_trace_goes_on_and_its_state_behind_ours() {
        let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
        let headers =
            injected(&[("traceparent", parent), ("tracestate", "a=1,redirector=evil,bad member,a=2,b=3")]);
        assert_eq!(line(&headers, "traceparent"), parent);
        assert_eq!(line(&headers, "tracestate"), format!("redirector={KEY},a=1,b=3"));
    }

    #[test]
    fn an_invalid_trace_is_replaced_along_with_its_state() {
        for parent in ["", "nonsense", "00-00000000000000000000000000000000-b7ad6b7169203331-00"] {
            let headers = injected(&[("traceparent", parent), ("tracestate", "a=1")]);
            assert!(line(&headers, "traceparent").starts_with("00-0707"), "{parent}");
            assert_eq!(line(&headers, "tracestate"), format!("redirector={KEY}"));
        }
        let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
        let twice = injected(&[("traceparent", parent), ("traceparent", parent)]);
        assert!(line(&twice, "traceparent").starts_with("00-0707"));
    }

    #[test]
    fn trace_state_has_32_members_at_most() {
        let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
        let foreign: Vec<String> = (0..32).map(|number| format!("v{number}=1")).collect();
        let headers = injected(&[("traceparent", parent), ("tracestate", &foreign.join(","))]);
        let members: Vec<&str> = line(&headers, "tracestate").split(',').collect();
        assert_eq!(members.len(), 32);
        assert_eq!(members[0], format!("redirector={KEY}"));
        assert_eq!(members[31], "v30=1");
    }

    fn any_lines() -> impl Strategy<Value = Vec<(String, String)>> {
        let name = prop_oneof![
            Just("baggage".to_owned()),
            Just("tracestate".to_owned()),
            Just("traceparent".to_owned()),
            Just("X-Redirector_Intercept".to_owned()),
            Just("x-redirector-intercept".to_owned()),
            "[a-z]{1,4}",
        ];
        let part = prop_oneof![
            Just(format!("redirector={KEY}")),
            Just(format!("re%64irector = {KEY};a=b")),
            Just("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00".to_owned()),
            "[a-c]{1,2}=[a-z]{1,3}",
            "[ -~]{0,8}",
        ];
        let value = prop::collection::vec(part, 0..5).prop_map(|parts| parts.join(","));
        prop::collection::vec((name, value), 0..8)
    }

    fn borrowed(lines: &[(String, String)]) -> Vec<(&str, &str)> {
        lines.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
    }

    proptest! {
        #[test]
        fn nothing_that_is_stripped_matches(lines in any_lines()) {
            let headers = stripped(&borrowed(&lines));
            prop_assert!(!matches(&headers), "{headers:?}");
        }

        #[test]
        fn stripping_twice_changes_nothing_more(lines in any_lines()) {
            let once = stripped(&borrowed(&lines));
            let mut twice = once.clone();
            strip(&mut twice, &ContextNames::of([&context()]));
            prop_assert_eq!(once, twice);
        }

        #[test]
        fn what_is_injected_is_found_in_each_place_alone(lines in any_lines()) {
            let headers = injected(&borrowed(&lines));
            for name in [InterceptKey::HEADER, "baggage", "tracestate"] {
                let mut alone = HeaderMap::new();
                for value in headers.get_all(name) {
                    alone.append(HeaderName::from_static(name), value.clone());
                }
                prop_assert!(matches(&alone), "{name}: {alone:?}");
            }
            prop_assert!(is_traced(&headers));
        }

        #[test]
        fn foreign_baggage_survives_in_order(members in prop::collection::vec("[a-q]{1,3}=[a-z]{0,3}(;[a-z]=1)?", 0..6)) {
            let headers = injected(&[("baggage", &members.join(" , "))]);
            let expected: Vec<String> = [vec![format!("redirector={KEY}")], members].concat();
            prop_assert_eq!(line(&headers, "baggage"), expected.join(","));
        }
    }
}
