//! What an agent that was killed may have left on the node, removed at the next start.

use crate::{
    datapath,
    target::{discover::discover, resolve::resolve},
};

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
    for info in discovery.targets {
        // Namespaces come and go while we look.
        let Ok(resolved) = resolve(&info.target) else { continue };
        match resolved.netns.run_inside(datapath::sweep) {
            Ok(Ok(interfaces)) if interfaces.is_empty() => {}
            Ok(Ok(interfaces)) => {
                tracing::info!(target = %info.target, ?interfaces, "removed leftovers of an earlier agent");
            }
            Ok(Err(error)) | Err(error) => {
                tracing::warn!(target = %info.target, %error, "cannot remove leftovers of an earlier agent");
            }
        }
    }
}
