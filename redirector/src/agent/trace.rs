//! What is remembered of requests, for those who may use their targets.

use super::registry::Registry;
use crate::{
    api::TargetStatus,
    api_server::Caller,
    trace::query::{HopAddresses, TraceQuery, Traced},
};
use jiff::Timestamp;

/// The requests that a question is about.
pub async fn trace(registry: &Registry, query: &TraceQuery, caller: &Caller) -> Traced {
    let status = registry.status(false).await;
    let hop =
        |target: TargetStatus| HopAddresses { hop: target.target.to_string(), addresses: target.addresses };
    let hops = status.targets.into_iter().map(hop).filter(|hop| caller.may_use(&hop.hop)).collect();
    let remembered = registry.log().read().into_iter();
    let permitted = remembered.filter(|seen| caller.may_use(&seen.hop)).collect();
    Traced { now: Timestamp::now(), hops, observations: query.select(permitted) }
}
