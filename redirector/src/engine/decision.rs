//! Where a request goes, decided by its head.

use super::{addresses::ClientAddr, connection::PortContext, intercept::Intercept};
use crate::{
    api::WhenAway,
    http1::RequestView,
    protocol::Protocol,
    trace::{observation::Taken, recording::Recording},
};
use std::sync::Arc;

pub(super) enum Decision {
    Live,
    Developer { intercept: Arc<Intercept>, method: String, target: String },
}

/// Where a request goes, and what is remembered of it.
pub(super) struct Decided {
    pub decision: Decision,
    pub recording: Option<Recording>,
}

pub(super) fn decide(
    request: &RequestView<'_>,
    protocol: Protocol,
    client: ClientAddr,
    context: &PortContext,
) -> Decided {
    let intercept = context.routes.decide(request);
    let mut recording = context.recording(request, protocol, client, intercept.as_deref());
    let Some(intercept) = intercept else { return Decided { decision: Decision::Live, recording } };
    intercept.stats.matched(protocol);
    let is_away = intercept.tunnel().is_none() && intercept.when_away == WhenAway::Live;
    if let Some(recording) = &mut recording {
        let name = intercept.name.clone();
        recording.took(if is_away { Taken::Away(name) } else { Taken::Developer(name) });
    }
    if is_away {
        intercept.stats.away(protocol);
        return Decided { decision: Decision::Live, recording };
    }
    let (method, target) = (request.method.to_owned(), request.target.to_owned());
    Decided { decision: Decision::Developer { intercept, method, target }, recording }
}
