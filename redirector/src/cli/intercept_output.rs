//! What `redirector intercept` prints: lines for people, or one JSON object per line for programs.

use super::{curl_line::curl_line, output::Format, qr_code::qr_code};
use crate::{
    api::WhenAway,
    context::Matcher,
    gateway::api::PreviewCreated,
    protocol::Protocol,
    target::Target,
    tunnel::developer_end::{Outcome, RoutedRequest},
};
use jiff::{Timestamp, Zoned};
use serde::Serialize;
use std::{io::Write as _, net::SocketAddr};

/// Prints [`Event`]s. Nobody reading is no reason to end.
#[derive(Clone, Copy, Debug)]
pub struct InterceptOutput {
    format: Format,
}

/// What happens in the life of an intercept.
#[derive(Debug)]
pub enum Event<'a> {
    /// The agent has something to say about it.
    Warning { message: &'a str },
    /// Connections to the app were ended, as was asked for.
    Closed { count: u64 },
    /// It is made; its tunnel is not there yet. For people only: programs wait for [`Event::Ready`].
    Created { route: Route<'a> },
    /// Others can see it by this link.
    Preview { created: &'a PreviewCreated, qr: bool },
    /// Requests come from now on.
    Ready { route: Route<'a> },
    /// One request has come and ended.
    Request { request: &'a RoutedRequest },
    /// Requests do not come for now.
    TunnelLost { reason: &'a str, when_away: WhenAway },
    /// They do again.
    ReadyAgain { route: Route<'a> },
    /// The intercept is no more. `reason`: why, unless we asked for it.
    Removed { reason: Option<&'a str> },
}

/// Which requests go where.
#[derive(Clone, Copy, Debug)]
pub struct Route<'a> {
    pub intercept: &'a str,
    pub target: &'a Target,
    pub port: u16,
    pub to: &'a str,
    pub matcher: &'a Matcher,
    /// In which clients call the service: `http` or `https`.
    pub scheme: &'a str,
}

impl InterceptOutput {
    pub fn new(format: Format) -> Self {
        Self { format }
    }

    pub fn print(self, event: &Event<'_>) {
        let line = match self.format {
            Format::Text => text(event, &Zoned::now()),
            Format::Json => json(event, Timestamp::now()),
        };
        match (line, event, self.format) {
            (None, ..) => {}
            (Some(line), Event::Warning { .. }, Format::Text) => eprintln!("{line}"),
            // One write for each line: requests end at the same time.
            (Some(line), ..) => drop(writeln!(std::io::stdout(), "{line}")),
        }
    }
}

/// For people.
fn text(event: &Event<'_>, now: &Zoned) -> Option<String> {
    let time = now.strftime("%H:%M:%S");
    Some(match event {
        Event::Warning { message } => format!("warning: {message}"),
        Event::Closed { count: 1 } => "closed 1 connection that could not be covered".to_owned(),
        Event::Closed { count } => format!("closed {count} connections that could not be covered"),
        Event::Created { route } => {
            let curl = curl_line(route.matcher, route.scheme, route.port)
                .map(|curl| format!("\n  try: {curl}"))
                .unwrap_or_default();
            format!("intercept \"{}\"{curl}", route.intercept)
        }
        Event::Preview { created, qr } => {
            let code = qr.then(|| qr_code(&created.link)).flatten();
            let code = code.map(|code| format!("\n{}", code.trim_end())).unwrap_or_default();
            format!("  preview: {}{code}", created.link)
        }
        Event::Ready { route } => format!("ready: {}", in_words(route)),
        Event::ReadyAgain { route } => format!("ready again: {}", in_words(route)),
        Event::Request { request } => format!("{time} {}", request_text(request)),
        Event::TunnelLost { reason, when_away } => {
            let meanwhile = match when_away {
                WhenAway::Live => "the live service answers",
                WhenAway::Error => "your requests get an error",
            };
            format!("{time} tunnel lost: {reason}; {meanwhile} until it is back")
        }
        Event::Removed { reason: None } => "intercept removed".to_owned(),
        // The command ends with it as its error.
        Event::Removed { reason: Some(_) } => return None,
    })
}

fn in_words(route: &Route<'_>) -> String {
    let requests = match route.matcher.conditions.is_empty() {
        true => route.matcher.to_string(),
        false => format!("requests with {}", route.matcher),
    };
    format!("{requests} on port {} of {} reach {}", route.port, route.target, route.to)
}

/// Method, path, status, duration, bytes in and out, protocol.
fn request_text(request: &RoutedRequest) -> String {
    let status = match (&request.status, &request.outcome) {
        (_, Outcome::Refused(reason)) => format!("not delivered: {reason}"),
        (Some(status), Outcome::Ok) => status.to_string(),
        (Some(status), Outcome::Reset) => format!("{status} (cut off)"),
        (None, Outcome::Ok) => "-".to_owned(),
        (None, Outcome::Reset) => "cut off".to_owned(),
    };
    format!(
        "{} {} {status} {:.1} ms {} B in {} B out {}",
        request.method,
        request.path,
        request.duration.as_secs_f64() * 1000.0,
        request.request_bytes,
        request.response_bytes,
        request.protocol
    )
}

/// One line of JSON.
#[derive(Serialize)]
struct Line<'a> {
    /// RFC 3339, in UTC. Of a request: when it came.
    time: String,
    #[serde(flatten)]
    event: JsonEvent<'a>,
}

#[derive(Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum JsonEvent<'a> {
    Warning { message: &'a str },
    Closed { count: u64 },
    Preview { name: &'a str, link: &'a str, share_link: &'a str, expires: &'a str },
    Ready(JsonRoute<'a>),
    Request(JsonRequest<'a>),
    TunnelLost { reason: &'a str, when_away: WhenAway },
    ReadyAgain(JsonRoute<'a>),
    Removed { reason: Option<&'a str> },
}

#[derive(Serialize)]
struct JsonRoute<'a> {
    intercept: &'a str,
    target: &'a Target,
    port: u16,
    to: &'a str,
    matcher: &'a Matcher,
    /// The matcher in words.
    matches: String,
    /// `None` where curl can't make such a request, or any request will do.
    curl: Option<String>,
}

#[derive(Serialize)]
struct JsonRequest<'a> {
    intercept: &'a str,
    method: &'a str,
    path: &'a str,
    protocol: Protocol,
    /// As the local server answered; `None` when it did not.
    status: Option<u16>,
    duration_seconds: f64,
    request_bytes: u64,
    response_bytes: u64,
    client: SocketAddr,
    /// `ok`, `refused` (by the local server: it got nothing) or `reset` (broken off).
    outcome: &'static str,
    /// Why the local server could not be reached.
    reason: Option<&'a str>,
}

/// For programs.
fn json(event: &Event<'_>, now: Timestamp) -> Option<String> {
    let mut time = now;
    let event = match event {
        Event::Created { .. } => return None,
        Event::Warning { message } => JsonEvent::Warning { message },
        Event::Closed { count } => JsonEvent::Closed { count: *count },
        Event::Preview { created: PreviewCreated { preview, link, share_link, .. }, .. } => {
            JsonEvent::Preview { name: &preview.name, link, share_link, expires: &preview.expires }
        }
        Event::Ready { route } => JsonEvent::Ready(json_route(route)),
        Event::ReadyAgain { route } => JsonEvent::ReadyAgain(json_route(route)),
        Event::Request { request } => {
            time = request.started.try_into().unwrap_or(now);
            JsonEvent::Request(json_request(request))
        }
        Event::TunnelLost { reason, when_away } => JsonEvent::TunnelLost { reason, when_away: *when_away },
        Event::Removed { reason } => JsonEvent::Removed { reason: *reason },
    };
    // Only maps with keys that are no text can fail.
    serde_json::to_string(&Line { time: time.to_string(), event }).ok()
}

fn json_route<'a>(route: &Route<'a>) -> JsonRoute<'a> {
    let Route { intercept, target, port, to, matcher, scheme } = *route;
    let matches = matcher.to_string();
    JsonRoute { intercept, target, port, to, matcher, matches, curl: curl_line(matcher, scheme, port) }
}

fn json_request(request: &RoutedRequest) -> JsonRequest<'_> {
    let (outcome, reason) = match &request.outcome {
        Outcome::Ok => ("ok", None),
        Outcome::Reset => ("reset", None),
        Outcome::Refused(reason) => ("refused", Some(reason.as_str())),
    };
    JsonRequest {
        intercept: &request.intercept,
        method: &request.method,
        path: &request.path,
        protocol: request.protocol,
        status: request.status,
        duration_seconds: request.duration.as_secs_f64(),
        request_bytes: request.request_bytes,
        response_bytes: request.response_bytes,
        client: request.client,
        outcome,
        reason,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::Condition;
    use jiff::tz::TimeZone;
    use std::time::{Duration, UNIX_EPOCH};

    fn matcher(header: &str) -> Matcher {
        Matcher { conditions: vec![Condition::Header(header.parse().unwrap())] }
    }

    fn request(status: Option<u16>, outcome: Outcome) -> RoutedRequest {
        RoutedRequest {
            intercept: "alice".to_owned(),
            started: UNIX_EPOCH + Duration::from_millis(2500),
            method: "POST".to_owned(),
            path: "/a?b=\"c\"".to_owned(),
            protocol: Protocol::Http2,
            client: "10.0.0.1:4711".parse().unwrap(),
            status,
            request_bytes: 3,
            response_bytes: 17,
            duration: Duration::from_micros(12_340),
            outcome,
        }
    }

    fn epoch() -> Zoned {
        Timestamp::UNIX_EPOCH.to_zoned(TimeZone::UTC)
    }

    fn parsed(event: &Event<'_>) -> serde_json::Value {
        let line = json(event, Timestamp::UNIX_EPOCH).unwrap();
        assert!(!line.contains('\n'), "{line}");
        serde_json::from_str(&line).unwrap()
    }

    #[test]
    fn a_request_is_a_line_with_time_method_path_status_duration_bytes_and_protocol() {
        let request = request(Some(201), Outcome::Ok);
        assert_eq!(
            text(&Event::Request { request: &request }, &epoch()).unwrap(),
            "00:00:00 POST /a?b=\"c\" 201 12.3 ms 3 B in 17 B out h2"
        );
    }

    #[test]
    fn a_request_is_an_object_with_all_that_is_known_of_it() {
        let request = request(Some(201), Outcome::Ok);
        let expected = serde_json::json!({
            "event": "request", "time": "1970-01-01T00:00:02.5Z", "intercept": "alice", "method": "POST",
            "path": "/a?b=\"c\"", "protocol": "h2", "status": 201, "duration_seconds": 0.01234, "request_bytes": 3,
            "response_bytes": 17, "client": "10.0.0.1:4711", "outcome": "ok", "reason": null,
        });
        assert_eq!(parsed(&Event::Request { request: &request }), expected);
    }

    #[test]
    fn a_request_that_was_not_delivered_says_why() {
        let request = request(None, Outcome::Refused("nothing listens".to_owned()));
        let event = Event::Request { request: &request };
        assert!(text(&event, &epoch()).unwrap().contains("not delivered: nothing listens"));
        let object = parsed(&event);
        assert_eq!((&object["outcome"], &object["reason"]), (&"refused".into(), &"nothing listens".into()));
        assert!(object["status"].is_null());
    }

    #[test]
    fn ready_says_all_that_a_tool_needs() {
        let (target, matcher) = ("netns:shop".parse().unwrap(), matcher("x-dev=alice"));
        let route = Route {
            intercept: "alice",
            target: &target,
            port: 80,
            to: "127.0.0.1:3000",
            matcher: &matcher,
            scheme: "http",
        };
        let object = parsed(&Event::Ready { route });
        for (field, value) in [
            ("event", "ready"),
            ("time", "1970-01-01T00:00:00Z"),
            ("intercept", "alice"),
            ("target", "netns:shop"),
            ("to", "127.0.0.1:3000"),
            ("curl", "curl -H 'x-dev: alice' http://ADDRESS:80/"),
        ] {
            assert_eq!(object[field], value, "{field}");
        }
        assert_eq!(object["port"], 80);
        assert!(object["matches"].as_str().unwrap().contains("alice") && object["matcher"].is_object());
        assert_eq!(parsed(&Event::ReadyAgain { route })["event"], "ready_again");
        assert!(text(&Event::Ready { route }, &epoch()).unwrap().starts_with("ready: "));
    }

    #[test]
    fn a_preview_is_its_links() {
        let created: PreviewCreated = serde_json::from_value(serde_json::json!({
            "preview": {
                "name": "alice", "owner": "alice@laptop", "token": "default", "matcher": { "conditions": [] },
                "access": "link", "when_away": "page", "link": null, "created": "", "expires": "2026-01-31T08:00:00Z",
                "developer_there": null,
            },
            "link": "https://x.preview.test/", "share_link": "https://gateway.test/_p/x", "password": null, "warnings": [],
        }))
        .unwrap();
        let object = parsed(&Event::Preview { created: &created, qr: true });
        for (field, value) in [
            ("event", "preview"),
            ("name", "alice"),
            ("link", "https://x.preview.test/"),
            ("share_link", "https://gateway.test/_p/x"),
            ("expires", "2026-01-31T08:00:00Z"),
        ] {
            assert_eq!(object[field], value, "{field}");
        }
        let line = |qr| text(&Event::Preview { created: &created, qr }, &epoch()).unwrap();
        assert_eq!(line(false), "  preview: https://x.preview.test/");
        assert!(line(true).lines().count() > 10);
    }

    #[test]
    fn the_other_events_say_what_happened() {
        let lost = Event::TunnelLost { reason: "reset", when_away: WhenAway::Error };
        assert!(text(&lost, &epoch()).unwrap().contains("tunnel lost: reset; your requests get an error"));
        let (lost, warning) = (parsed(&lost), parsed(&Event::Warning { message: "beware" }));
        assert_eq!((&lost["event"], &lost["reason"]), (&"tunnel_lost".into(), &"reset".into()));
        assert_eq!((&warning["event"], &warning["message"]), (&"warning".into(), &"beware".into()));
        assert_eq!(parsed(&Event::Removed { reason: None })["event"], "removed");
    }
}
