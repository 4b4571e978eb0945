//! What an agent that was killed may have left on the node, removed at the next start.

use crate::{
    datapath,
    target::{
        Target,
        discover::{TargetInfo, discover},
        resolve::resolve,
    },
};
use std::{
    sync::{Mutex, PoisonError},
    thread,
};

/// So many namespaces are looked into at once: where there are leftovers, it has to be waited whether their agent beats.
const AT_ONCE: usize = 8;

/// Sweeps all network namespaces of the node but the host's. What can't be swept is inert, so failures are
/// only logged.
pub fn sweep() {
    let discovery = match discover() {
        Ok(discovery) => discovery,
        Err(error) => {
            tracing::warn!(%error, "cannot look for leftovers of an earlier agent");
            return;
        }
    };
    let targets = Mutex::new(discovery.targets.into_iter());
    let next = || targets.lock().unwrap_or_else(PoisonError::into_inner).next();
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(TargetInfo { target, .. }) = next() {
                    sweep_target(&target);
                }
            });
        }
    });
}

fn sweep_target(target: &Target) {
    // Namespaces come and go while we look.
    let Ok(resolved) = resolve(target) else { return };
    match resolved.netns.run_inside(datapath::sweep) {
        Ok(Ok(interfaces)) if interfaces.is_empty() => {}
        Ok(Ok(interfaces)) => {
            tracing::info!(%target, ?interfaces, "removed leftovers of an earlier agent");
        }
        Ok(Err(error)) | Err(error) => {
            tracing::warn!(%target, %error, "cannot remove leftovers of an earlier agent");
        }
    }
}
