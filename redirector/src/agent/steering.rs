//! Which doors an intercept uses, and what all intercepts of a port together ask of the eBPF programs.

use crate::{
    api::{Datapath, Uncovered},
    context::{Matcher, Needle},
    engine::PortStats,
    protocol::Protocol,
};
use redirector_common::{PORT_HTTP2, PORT_TLS};
use std::{collections::BTreeSet, sync::atomic::Ordering::Relaxed};

/// What becomes of connections where the agent needs new ones, and inspection is possible.
pub const THROUGH: &str = "new connections pass through the agent, older ones are inspected";

/// The doors that an intercept has, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    /// New connections pass through the agent, as was asked for.
    Proxy,
    /// They do because nothing else is possible.
    ProxyFor(String),
    /// Connections stay with the app, as was asked for.
    Inspect,
    /// They do as long as their requests can be seen there.
    Auto,
    /// New connections pass through the agent, so that requests are seen that have no context; older ones stay with the
    /// app, where those are seen that have.
    Observe,
}

/// What clients of a port were seen to speak, since the agent started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spoken {
    pub http1: bool,
    pub http2: bool,
    pub tls: bool,
}

/// What a port needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Steering {
    /// New connections go to the agent.
    pub assign: bool,
    /// They do unless inspection sees all their requests: see [`Spoken::needs_agent`].
    pub assign_if_needed: bool,
    /// Heads with one of these are looked at, on connections that the app has. Without any nothing is looked at.
    pub needles: BTreeSet<Needle>,
}

impl Choice {
    /// `inspection`: why connections of the target can't be inspected, if they can't. `inside_tls`: the requests are.
    ///
    /// # Errors
    /// Why `inspect` is impossible; `auto` falls back to what is possible.
    pub fn new(
        asked: Datapath,
        matcher: &Matcher,
        inside_tls: bool,
        inspection: Result<(), &str>,
    ) -> Result<Self, String> {
        let kind = match (asked, can_inspect(matcher, inside_tls, inspection)) {
            (Datapath::Proxy, _) => Kind::Proxy,
            (Datapath::Inspect, Ok(())) => Kind::Inspect,
            (Datapath::Inspect, Err(reason)) => return Err(reason),
            (Datapath::Auto, Ok(())) => Kind::Auto,
            (Datapath::Auto, Err(reason)) => Kind::ProxyFor(reason),
        };
        Ok(Self { kind })
    }

    /// The same for an observer.
    ///
    /// # Errors
    /// As for [`Self::new`].
    pub fn observing(
        asked: Datapath,
        matcher: &Matcher,
        inside_tls: bool,
        inspection: Result<(), &str>,
    ) -> Result<Self, String> {
        match (asked, can_inspect(matcher, inside_tls, inspection)) {
            (Datapath::Auto, Ok(())) => Ok(Self { kind: Kind::Observe }),
            _ => Self::new(asked, matcher, inside_tls, inspection),
        }
    }

    /// Connections that the app has are inspected.
    pub fn inspects(&self) -> bool {
        matches!(self.kind, Kind::Inspect | Kind::Auto | Kind::Observe)
    }

    /// New connections are the agent's, whatever clients speak.
    pub fn needs_agent(&self) -> bool {
        !matches!(self.kind, Kind::Inspect | Kind::Auto)
    }

    /// What becomes of new connections now, and why.
    pub fn now(&self, spoken: Spoken) -> (Datapath, String) {
        match &self.kind {
            Kind::Proxy => (Datapath::Proxy, "as asked for".to_owned()),
            Kind::ProxyFor(reason) => {
                (Datapath::Proxy, format!("connections that existed before stay with the app: {reason}"))
            }
            Kind::Inspect => {
                let others = match spoken.other_protocol() {
                    Some(name) => format!("; clients speak {name} on this port, which `auto` covers better"),
                    None => String::new(),
                };
                (Datapath::Inspect, format!("as asked for{others}"))
            }
            Kind::Observe => (Datapath::Proxy, format!("to see requests without context as well, {THROUGH}")),
            Kind::Auto if !spoken.needs_agent() => {
                (Datapath::Inspect, "connections stay with the app, and are inspected".to_owned())
            }
            Kind::Auto => match spoken.other_protocol() {
                Some(name) => (Datapath::Proxy, format!("clients speak {name} on this port: {THROUGH}")),
                None => {
                    (Datapath::Proxy, format!("until one of them has made an HTTP/1.x request, {THROUGH}"))
                }
            },
        }
    }
}

fn can_inspect(matcher: &Matcher, inside_tls: bool, inspection: Result<(), &str>) -> Result<(), String> {
    match (inspection, matcher.needles()) {
        (Err(reason), _) => Err(reason.to_owned()),
        _ if inside_tls => Err("requests are inside TLS, which only the agent can look into".to_owned()),
        (Ok(()), None) => Err("there is no header to look for in what it matches".to_owned()),
        (Ok(()), Some(_)) => Ok(()),
    }
}

impl Spoken {
    /// `stats`: those of the port.
    pub fn of(stats: &PortStats) -> Self {
        let began_with = stats.began_with.load(Relaxed);
        let unseen = |reason| stats.uncovered.read(reason) > 0;
        Self {
            http1: stats.requests.read(Protocol::Http1) > 0,
            http2: began_with & PORT_HTTP2 != 0
                || stats.requests.read(Protocol::Http2) > 0
                || unseen(Uncovered::Http2),
            tls: began_with & PORT_TLS != 0 || unseen(Uncovered::Tls),
        }
    }

    /// Not all new connections can be left to the app: what they speak is not known yet, or only the agent can read it.
    /// Servers of HTTP/2 may speak first, and a connection on which the app has spoken can't be moved.
    pub fn needs_agent(self) -> bool {
        self.http2 || !self.http1
    }

    fn other_protocol(self) -> Option<&'static str> {
        match self {
            Self { http2: true, .. } => Some("HTTP/2"),
            Self { tls: true, .. } => Some("TLS"),
            _ => None,
        }
    }
}

impl Steering {
    /// Of the intercepts of one port.
    pub fn of<'a>(intercepts: impl IntoIterator<Item = (&'a Choice, &'a Matcher)>) -> Self {
        let mut steering = Self::default();
        for (choice, matcher) in intercepts {
            steering.assign |= !choice.inspects() || choice.kind == Kind::Observe;
            steering.assign_if_needed |= choice.kind == Kind::Auto;
            if choice.inspects() {
                steering.needles.extend(matcher.needles().unwrap_or_default());
            }
        }
        steering
    }

    /// Whether new connections go to the agent now.
    pub fn assigns(&self, spoken: Spoken) -> bool {
        self.assign || (self.assign_if_needed && spoken.needs_agent())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::Condition;

    const POSSIBLE: Result<(), &str> = Ok(());
    const OLD_KERNEL: Result<(), &str> = Err("this kernel is old");
    const UNKNOWN: Spoken = Spoken { http1: false, http2: false, tls: false };
    const HTTP1: Spoken = Spoken { http1: true, ..UNKNOWN };
    const HTTP2: Spoken = Spoken { http2: true, ..UNKNOWN };
    const TLS: Spoken = Spoken { tls: true, ..UNKNOWN };

    fn header(text: &str) -> Matcher {
        Matcher { conditions: vec![Condition::Header(text.parse().unwrap())] }
    }

    fn choice(asked: Datapath) -> Choice {
        Choice::new(asked, &header("x-dev=a"), false, POSSIBLE).unwrap()
    }

    #[test]
    fn what_was_asked_for_is_what_there_is() {
        for asked in [Datapath::Proxy, Datapath::Inspect] {
            for spoken in [UNKNOWN, HTTP1, HTTP2, TLS] {
                assert_eq!(choice(asked).now(spoken).0, asked);
            }
        }
    }

    #[test]
    fn with_auto_connections_stay_with_the_app_once_clients_were_seen_to_speak_http1_and_nothing_else() {
        let auto = choice(Datapath::Auto);
        let steering = Steering::of([(&auto, &header("x-dev=a"))]);
        let both = Spoken { http1: true, http2: true, tls: false };
        let expected = [
            (UNKNOWN, Datapath::Proxy, "until one of them has made an HTTP/1.x request"),
            (HTTP1, Datapath::Inspect, "stay with the app"),
            (HTTP2, Datapath::Proxy, "clients speak HTTP/2"),
            (both, Datapath::Proxy, "clients speak HTTP/2"),
            (TLS, Datapath::Proxy, "clients speak TLS"),
            (Spoken { http1: true, ..TLS }, Datapath::Inspect, "stay with the app"),
        ];
        for (spoken, datapath, text) in expected {
            let (now, reason) = auto.now(spoken);
            assert!(now == datapath && reason.contains(text), "{spoken:?}: {now} {reason}");
            assert_eq!(steering.assigns(spoken), datapath == Datapath::Proxy, "{spoken:?}");
        }
    }

    #[test]
    fn inspect_says_what_it_does_not_cover() {
        let (_, reason) = choice(Datapath::Inspect).now(HTTP2);
        assert!(reason.contains("HTTP/2"), "{reason}");
    }

    #[test]
    fn auto_falls_back_to_proxy_and_says_why() {
        let cases = [
            (header("x-dev=a"), false, OLD_KERNEL, "this kernel is old"),
            (Matcher::default(), false, POSSIBLE, "no header to look for"),
            (header("x-dev=a"), true, POSSIBLE, "inside TLS"),
        ];
        for (matcher, inside_tls, inspection, text) in cases {
            let choice = Choice::new(Datapath::Auto, &matcher, inside_tls, inspection).unwrap();
            let (datapath, reason) = choice.now(HTTP1);
            assert!(datapath == Datapath::Proxy && reason.contains(text), "{reason}");
            assert!(!choice.inspects());
        }
    }

    #[test]
    fn inspect_is_refused_where_it_is_impossible() {
        let inspect = |matcher: &Matcher, inside_tls, inspection| {
            Choice::new(Datapath::Inspect, matcher, inside_tls, inspection)
        };
        assert!(inspect(&header("x-dev=a"), false, OLD_KERNEL).is_err());
        assert!(inspect(&header("x-dev=a"), true, POSSIBLE).is_err());
        assert!(inspect(&Matcher::default(), false, POSSIBLE).is_err());
        assert!(Choice::new(Datapath::Proxy, &Matcher::default(), true, OLD_KERNEL).is_ok());
    }

    #[test]
    fn a_port_needs_what_any_of_its_intercepts_needs() {
        let [proxy, inspect, auto] = [Datapath::Proxy, Datapath::Inspect, Datapath::Auto].map(choice);
        let (a, b, all) = (header("x-a=1"), header("x-b=1"), Matcher::default());
        let needle = |name: &str| Needle::Header(name.to_owned());
        let steering = Steering::of([(&inspect, &a)]);
        let expected = Steering { assign: false, assign_if_needed: false, needles: [needle("x-a")].into() };
        assert_eq!(steering, expected);
        let steering = Steering::of([(&inspect, &a), (&auto, &b), (&proxy, &all)]);
        let needles = [needle("x-a"), needle("x-b")].into();
        assert_eq!(steering, Steering { assign: true, assign_if_needed: true, needles });
        let steering = Steering::of([(&proxy, &a)]);
        assert_eq!(steering, Steering { assign: true, assign_if_needed: false, needles: [].into() });
        let observe = Choice::observing(Datapath::Auto, &a, false, POSSIBLE).unwrap();
        let needles = [needle("x-a")].into();
        assert_eq!(
            Steering::of([(&observe, &a)]),
            Steering { assign: true, assign_if_needed: false, needles },
            "all new connections, and what has the context on older ones"
        );
    }
}
