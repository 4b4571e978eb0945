//! Which datapath this kernel gets: the programs that inspect are loaded, and attached to nothing.

use std::io;

use super::report::Item;
use crate::datapath::{NO_TCX, inspection_loads};

/// `tcx`: whether a TCX link could be attached.
pub fn item(tcx: &io::Result<()>) -> Item {
    judged(if tcx.is_ok() { inspection_loads() } else { Err(NO_TCX.to_owned()) })
}

fn judged(loaded: Result<(), String>) -> Item {
    const NAME: &str = "inspection";
    const NEEDED_FOR: &str = "keeping live connections with the app, and covering those that exist already (--datapath auto and inspect)";
    match loaded {
        Ok(()) => Item::ok(NAME, NEEDED_FOR, "this kernel gets --datapath auto, inspect and proxy"),
        Err(reason) => {
            let detail = format!("this kernel gets --datapath proxy only (auto is the same): {reason}");
            let remedy = "nothing: new connections pass through the agent, older ones stay with the app until they end; \
                          or use Linux 6.12, the oldest on which inspection is tested, or newer";
            Item::no(NAME, NEEDED_FOR, detail, remedy)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::Status;
    use super::*;

    #[test]
    fn a_kernel_that_can_not_inspect_gets_the_proxy_and_says_why() {
        let item = item(&Err(io::Error::from_raw_os_error(libc::EINVAL)));
        assert_eq!((item.status, item.fatal), (Status::No, false));
        assert!(
            item.detail.contains("--datapath proxy only") && item.detail.contains("TCX links (kernel 6.6)"),
            "{item}"
        );
        let item = judged(Err("the verifier's words".to_owned()));
        assert!(
            item.detail.contains("--datapath proxy only") && item.detail.ends_with("the verifier's words"),
            "{item}"
        );
    }
}
