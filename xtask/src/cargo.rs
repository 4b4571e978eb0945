//! The cargo of the host side, and an environment in which another cargo can work.

use std::{env, path::PathBuf, process::Command};

use crate::{process, workspace::Workspace};

/// The cargo that runs xtask, for work in `workspace`.
///
/// `cargo run` describes the xtask package in the environment. Build scripts of other packages would take
/// a change of these variables for a reason to run again, so they go.
pub fn host(workspace: &Workspace) -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    process::without_variables(&mut cargo, describes_a_package);
    cargo.current_dir(workspace.root());
    cargo
}

/// Where cargo keeps what it downloads and installs.
pub fn home() -> Option<PathBuf> {
    env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| Some(env::home_dir()?.join(".cargo")))
}

/// Removes what one cargo and rustup hand down to the programs they start, and what tunes host builds.
/// What says where things are and how to reach registries stays.
pub fn without_cargo_environment(command: &mut Command) -> &mut Command {
    process::without_variables(command, configures_a_build)
}

fn describes_a_package(name: &str) -> bool {
    ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_"].iter().any(|prefix| name.starts_with(prefix))
}

fn configures_a_build(name: &str) -> bool {
    const KEPT: [&str; 10] = [
        "CARGO_HOME",
        "CARGO_HTTP_",
        "CARGO_NET_",
        "CARGO_REGISTR",
        "CARGO_SOURCE_",
        "CARGO_TERM_",
        "RUSTUP_AUTO_INSTALL",
        "RUSTUP_DIST_",
        "RUSTUP_HOME",
        "RUSTUP_UPDATE_ROOT",
    ];
    let of_cargo = name.starts_with("CARGO") || (name.starts_with("RUST") && !name.starts_with("RUST_"));
    of_cargo && !KEPT.iter().any(|kept| name.starts_with(kept))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_cargo_keeps_its_home_and_registries_but_no_build_settings() {
        for kept in ["CARGO_HOME", "CARGO_REGISTRIES_MINE_INDEX", "RUSTUP_HOME", "RUST_BACKTRACE", "PATH"] {
            assert!(!configures_a_build(kept), "{kept}");
        }
        for removed in ["CARGO", "CARGO_TARGET_DIR", "CARGO_ENCODED_RUSTFLAGS", "RUSTFLAGS", "RUSTC_WRAPPER"]
        {
            assert!(configures_a_build(removed), "{removed}");
        }
        assert!(configures_a_build("RUSTUP_TOOLCHAIN"));
    }
}
