//! Is the developer of a preview there? The agents know.

use super::context::PreviewContext;
use crate::{api::InterceptInfo, client::ApiAddress};
use http::Method;
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::Mutex,
    task::JoinSet,
    time::{Instant, timeout},
};

/// How long an agent's answer is taken for the present.
const FRESH: Duration = Duration::from_secs(1);

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
    until: Instant,
    intercepts: Arc<Vec<InterceptInfo>>,
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
        if self.0.is_empty() {
            return None;
        }
        let mut asked = JoinSet::new();
        for agent in &self.0 {
            let agent = Arc::clone(agent);
            asked.spawn(async move { agent.intercepts().await });
        }
        let mut is_there = false;
        while let Some(intercepts) = asked.join_next().await {
            is_there |= intercepts.is_ok_and(|intercepts| {
                intercepts.iter().any(|intercept| intercept.connected && takes(intercept, context))
            });
        }
        Some(is_there)
    }
}

impl Agent {
    async fn intercepts(&self) -> Arc<Vec<InterceptInfo>> {
        let mut last = self.last.lock().await;
        if let Some(answer) = &*last
            && Instant::now() < answer.until
        {
            return Arc::clone(&answer.intercepts);
        }
        let answer = timeout(PATIENCE, self.address.call(Method::GET, "/v1/intercepts")).await;
        let (intercepts, valid) = match answer {
            Ok(Ok(intercepts)) => (intercepts, FRESH),
            Ok(Err(error)) => {
                tracing::warn!(%error, "an agent does not say who is there");
                (Vec::new(), PAUSE)
            }
            Err(_) => {
                tracing::warn!(agent = %self.address, "an agent does not answer");
                (Vec::new(), PAUSE)
            }
        };
        let intercepts = Arc::new(intercepts);
        *last = Some(Answer { until: Instant::now() + valid, intercepts: Arc::clone(&intercepts) });
        intercepts
    }
}

/// All that it looks for in headers is put into requests; paths and methods are up to the visitor.
fn takes(intercept: &InterceptInfo, context: &PreviewContext) -> bool {
    let Ok(wanted) = PreviewContext::of(&intercept.matcher) else { return false };
    wanted.headers.iter().all(|header| context.headers.contains(header))
        && wanted.baggage.iter().all(|member| context.baggage.contains(member))
        && wanted.tracestate.iter().all(|member| context.tracestate.contains(member))
}
