//! Runs all tests: unit, property and namespace tests.

use std::time::Instant;

use anyhow::{Result, bail};

use crate::{
    apt, build, cargo, process, reproducible,
    step::{note, step},
    workspace::Workspace,
};

/// A Debian package and what the tests want it for.
struct Package {
    name: &'static str,
    reason: &'static str,
}

const PACKAGES: &[Package] = &[
    Package { name: "curl", reason: "the client of most tests" },
    Package { name: "iproute2", reason: "ip, tc and ss: builds the lab, sees what is left in it" },
    Package { name: "iptables", reason: "a pod whose port a service mesh redirects" },
    Package { name: "nginx", reason: "an app nobody modified; also TLS and HTTP/2" },
    Package { name: "openssl", reason: "certificate of the TLS app" },
    Package { name: "procps", reason: "ps and pgrep: sees what is left running" },
    Package { name: "python3", reason: "the HTTP app that reports what it was sent" },
    Package { name: "util-linux", reason: "nsenter, setpriv and prlimit" },
];

/// Installs what the tests need, builds, proves the build reproducible, runs the tests. With `arguments`, which go to
/// `cargo test`, only the tests they choose.
pub fn test(workspace: &Workspace, arguments: &[String]) -> Result<()> {
    let start = Instant::now();
    if !process::is_root() {
        bail!(
            "the namespace tests need root: run `sudo -E env \"PATH=$PATH\" cargo xtask test`.\n\
             Without root, `cargo xtask build && cargo test --lib` runs the others"
        );
    }
    install_packages()?;
    build::build(workspace)?;
    if arguments.is_empty() {
        reproducible::check(workspace)?;
    }
    step("run the tests", || {
        process::run(
            cargo::host(workspace)
                .args(["test", "--locked", "--workspace", "--exclude", "redirector-ebpf"])
                .args(arguments)
                .env("REDIRECTOR_BIN", workspace.release_binary()),
        )
    })?;
    let what = if arguments.is_empty() { "all".into() } else { format!("`{}`", arguments.join(" ")) };
    println!("cargo xtask test: {what} passed in {:.0} s", start.elapsed().as_secs_f64());
    Ok(())
}

fn install_packages() -> Result<()> {
    if apt::is_debian() {
        let names: Vec<_> = PACKAGES.iter().map(|package| package.name).collect();
        return apt::install(&names);
    }
    note("this is not Debian, so nothing is installed; the tests need what these Debian packages hold:");
    for Package { name, reason } in PACKAGES {
        note(format!("{name}: {reason}"));
    }
    Ok(())
}
