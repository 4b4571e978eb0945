//! Which datapaths the kernel has.

use std::env;

/// Those of `wanted` that `$REDIRECTOR_LAB_DATAPATHS` names, separated by commas; without it all, which a kernel that is developed
/// on must have. `cargo xtask vm` sets it for others, by what `redirector check` says there.
#[must_use]
pub fn datapaths(wanted: &[&'static str]) -> Vec<&'static str> {
    match env::var("REDIRECTOR_LAB_DATAPATHS") {
        Ok(there) => {
            wanted.iter().copied().filter(|&datapath| there.split(',').any(|name| name == datapath)).collect()
        }
        Err(_) => wanted.to_vec(),
    }
}
