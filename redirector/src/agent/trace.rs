//! What is remembered of requests, for those who may use their targets.

use super::registry::Registry;
use crate::{
    api_server::Caller,
    trace::query::{TraceQuery, Traced},
};
use jiff::Timestamp;

/// The requests that a question is about.
pub async fn trace(registry: &Registry, query: &TraceQuery, caller: &Caller) -> Traced {
    let hops = registry.hops(caller).await;
    let remembered = registry.log().read().into_iter();
    // Whoever came first has named the target.
    let permitted = remembered.filter(|seen| seen.names.any(|name| caller.may_use(name))).collect();
    Traced { now: Timestamp::now(), hops, observations: query.select(permitted) }
}
