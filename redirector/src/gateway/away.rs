//! Is the developer of a preview there? The agents know.

use super::context::PreviewContext;
use crate::{api::InterceptInfo, client::ApiAddress};
use http::Method;
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::Mutex,
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};

/// How long a developer whom an agent has seen is taken to be there. One who was not may have come meanwhile.
const FRESH: Duration = Duration::from_secs(1);

/// An agent is not asked more often than this, however many visitors there are.
const SPACING: Duration = Duration::from_millis(100);

/// How long an agent may take; one that does not answer is not asked again for some time, for visitors wait for it.
const PATIENCE: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_secs(5);

/// The agents that the gateway may ask.
#[derive(Clone)]
pub struct Agents(Vec<Arc<Agent>>);

struct Agent {
    address: ApiAddress,
    /// Whoever holds it asks for all who wait.
    last: Mutex<Option<Answer>>,
}

#[derive(Clone)]
struct Answer {
    asked: Instant,
    /// `None`: it did not answer.
    intercepts: Option<Arc<Vec<InterceptInfo>>>,
}

impl Agents {
    #[must_use]
    pub fn new(addresses: Vec<ApiAddress>) -> Self {
        let agent = |address| Arc::new(Agent { address, last: Mutex::new(None) });
        Self(addresses.into_iter().map(agent).collect())
    }

    /// Whether some agent has an intercept, with its developer there, that takes requests with this context. `None`:
    /// there is no agent to ask. One that does not answer has no developer: what it would have taken goes to the live
    /// service.
    pub async fn developer_is_there(&self, context: &PreviewContext) -> Option<bool> {
        Some(self.has_seen(context, lately()).await? || self.has_seen(context, Instant::now()).await?)
    }

    /// The same, give or take a second.
    pub async fn developer_was_there(&self, context: &PreviewContext) -> Option<bool> {
        self.has_seen(context, lately()).await
    }

    /// By answers that were asked for at that time or later.
    async fn has_seen(&self, context: &PreviewContext, not_before: Instant) -> Option<bool> {
        if self.0.is_empty() {
            return None;
        }
        let mut asked = JoinSet::new();
        for agent in &self.0 {
            let agent = Arc::clone(agent);
            asked.spawn(async move { agent.intercepts(not_before).await });
        }
        let mut is_there = false;
        while let Some(answer) = asked.join_next().await {
            let intercepts = answer.ok().flatten();
            is_there |= intercepts.is_some_and(|intercepts| {
                intercepts.iter().any(|intercept| intercept.connected && takes(intercept, context))
            });
        }
        Some(is_there)
    }
}

impl Agent {
    /// Those who come while it is asked share the next answer.
    async fn intercepts(&self, not_before: Instant) -> Option<Arc<Vec<InterceptInfo>>> {
        let mut last = self.last.lock().await;
        if let Some(Answer { asked, intercepts }) = &*last
            && (*asked >= not_before || intercepts.is_none() && asked.elapsed() < PAUSE)
        {
            return intercepts.clone();
        }
        if let Some(Answer { asked, .. }) = &*last {
            sleep_until(*asked + SPACING).await;
        }
        let asked = Instant::now();
        let intercepts = match timeout(PATIENCE, self.address.call(Method::GET, "/v1/intercepts")).await {
            Ok(Ok(intercepts)) => Some(Arc::new(intercepts)),
            Ok(Err(error)) => {
                tracing::warn!(%error, "an agent does not say who is there");
                None
            }
            Err(_) => {
                tracing::warn!(agent = %self.address, "an agent does not answer");
                None
            }
        };
        *last = Some(Answer { asked, intercepts: intercepts.clone() });
        intercepts
    }
}

fn lately() -> Instant {
    let now = Instant::now();
    now.checked_sub(FRESH).unwrap_or(now)
}

/// All that it looks for in headers is put into requests; paths and methods are up to the visitor.
fn takes(intercept: &InterceptInfo, context: &PreviewContext) -> bool {
    let Ok(wanted) = PreviewContext::of(&intercept.matcher) else { return false };
    wanted.headers.iter().all(|header| context.headers.contains(header))
        && wanted.baggage.iter().all(|member| context.baggage.contains(member))
        && wanted.tracestate.iter().all(|member| context.tracestate.contains(member))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::Matcher;
    use serde_json::{Value, json};

    fn is_taken(intercept: &Value, preview: &Value) -> bool {
        let intercept = json!({
            "name": "a", "target": "netns:shop", "port": 80, "matcher": { "conditions": intercept }, "when_away": "live",
            "owner": "o", "token": "t", "to": "127.0.0.1:3000", "connected": true, "tunnel_since": "", "created": "",
            "counts": { "matched": 0, "answered": 0, "away": 0, "failed": 0 },
        });
        let preview: Matcher = serde_json::from_value(json!({ "conditions": preview })).unwrap();
        takes(&serde_json::from_value(intercept).unwrap(), &PreviewContext::of(&preview).unwrap())
    }

    #[test]
    fn an_intercept_takes_what_has_all_that_it_looks_for() {
        let (dev, team) = (
            json!({ "header": { "name": "x-dev", "value": "alice" } }),
            json!({ "baggage": { "key": "team", "value": "a" } }),
        );
        let path = json!({ "path_prefix": "/api" });
        assert!(is_taken(&json!([dev]), &json!([dev])));
        assert!(is_taken(&json!([dev]), &json!([dev, team])));
        assert!(is_taken(&json!([dev, path]), &json!([dev])), "some of the requests");
        assert!(!is_taken(&json!([dev, team]), &json!([dev])));
        assert!(!is_taken(&json!([path]), &json!([dev])), "everybody's requests are nobody's preview");
        let other = json!({ "header": { "name": "x-dev", "value": "bob" } });
        assert!(!is_taken(&json!([other]), &json!([dev])));
    }
}
