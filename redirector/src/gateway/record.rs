//! Requests of previews are remembered: the gateway is where their path begins.

use super::{
    preview::{LivePreview, PreviewHash},
    proxy::Connection,
};
use crate::{
    api_server::Caller,
    http1::RequestView,
    protocol::Protocol,
    trace::{
        log::RequestLog,
        observation::{Observation, Taken},
        recording::Recording,
        traceparent::TraceIds,
    },
};
use http::{Version, request::Parts};
use httparse::Header;
use jiff::Timestamp;
use std::{collections::HashSet, sync::Arc};

/// The gateway, as a hop.
pub const HOP: &str = "gateway";

/// Of a request as it goes to the ingress, in the version that the visitor speaks. `made`: the ids of the trace that was begun
/// for it; then the gateway's own span is the parent of all that follow.
pub fn recording(
    log: &Arc<RequestLog>,
    port: u16,
    parts: &Parts,
    live: &LivePreview,
    connection: Connection,
    made: Option<TraceIds>,
) -> Recording {
    let headers: Vec<Header<'_>> = (parts.headers.iter())
        .map(|(name, value)| Header { name: name.as_str(), value: value.as_bytes() })
        .collect();
    let request = RequestView::new(parts.method.as_str(), parts.uri.path(), &headers);
    let protocol = if parts.version == Version::HTTP_2 { Protocol::Http2 } else { Protocol::Http1 };
    let (at, now) = ((HOP, port), Timestamp::now());
    let seen = Observation::of(&request, protocol, connection.peer, at, &live.sought, now);
    let seen = Observation {
        parent: seen.parent.filter(|_| made.is_none()),
        span: made.map(|ids| ids.parent),
        met: vec![live.preview.name.clone()],
        preview: Some(live.hash),
        route: Taken::Ingress,
        ..seen
    };
    Recording::begin(log, seen)
}

/// Leaves those that were for the caller's own previews, as long as these live.
pub fn retain_own(remembered: &mut Vec<Arc<Observation>>, previews: &[Arc<LivePreview>], caller: &Caller) {
    if matches!(caller, Caller::Root) {
        return;
    }
    let own = previews.iter().filter(|live| caller.owns(live.preview.token.as_ref()));
    let own: HashSet<PreviewHash> = own.map(|live| live.hash).collect();
    remembered.retain(|seen| seen.preview.is_some_and(|preview| own.contains(&preview)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        context::{Condition, Matcher},
        gateway::preview::{Access, Preview, PreviewId, PreviewWhenAway},
        tunnel::store::TokenGrant,
    };
    use http::Request;

    /// A preview called `shop`, made with a token.
    fn preview(token: &str) -> Arc<LivePreview> {
        let preview = Preview {
            name: "shop".to_owned(),
            owner: String::new(),
            token: Some(token.parse().unwrap()),
            token_name: token.to_owned(),
            matcher: Matcher { conditions: vec![Condition::Header("x-dev=alice".parse().unwrap())] },
            created: Timestamp::UNIX_EPOCH,
            expires: Timestamp::MAX,
            access: Access::Link,
            password: None,
            id: None,
            when_away: PreviewWhenAway::Page,
        };
        Arc::new(LivePreview::new(PreviewId::random().unwrap().hash(), preview).unwrap())
    }

    #[test]
    fn who_takes_over_the_name_of_a_preview_does_not_see_its_requests() {
        let log = Arc::new(RequestLog::default());
        let (old, new) = (preview("abcdefgh"), preview("ijklmnop"));
        let connection = Connection { peer: "192.0.2.1:40000".parse().unwrap(), tls: false };
        let visit = |live: &LivePreview| {
            let (parts, ()) = Request::new(()).into_parts();
            drop(recording(&log, 80, &parts, live, connection, None));
        };
        visit(&old);
        let caller = |live: &LivePreview| {
            let id = live.preview.token.clone().unwrap();
            Caller::Token(TokenGrant { id, name: String::new(), targets: None })
        };
        let seen_by = |caller: &Caller, previews: &[Arc<LivePreview>]| {
            let mut remembered = log.read();
            retain_own(&mut remembered, previews, caller);
            remembered.len()
        };
        assert_eq!(seen_by(&caller(&old), &[Arc::clone(&old)]), 1);
        // The old one has ended, and there is a new one with its name.
        assert_eq!(seen_by(&caller(&new), &[Arc::clone(&new)]), 0);
        assert_eq!(seen_by(&caller(&old), &[Arc::clone(&new)]), 0);
        visit(&new);
        assert_eq!(seen_by(&caller(&new), &[Arc::clone(&new)]), 1);
        assert_eq!(seen_by(&Caller::Root, &[new]), 2);
    }
}
