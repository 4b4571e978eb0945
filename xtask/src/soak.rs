//! Runs the tests of `tests/tests/soak` with their full numbers.

use std::time::Instant;

use anyhow::Result;
use clap::Args;

use crate::{build, cargo, process, step::step, test, workspace::Workspace};

#[derive(Args, Debug)]
pub struct SoakOptions {
    /// Decides all that is left to chance; each run says which seed it had
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// The datapath of the intercepts
    #[arg(long, value_name = "DATAPATH", default_value = "inspect")]
    datapath: String,
    /// Only tests whose name contains TEXT, such as `agent_dies`
    #[arg(value_name = "TEXT")]
    filter: Vec<String>,
}

/// Installs what the tests need, builds, runs them one after the other, and shows their figures. As root.
pub fn soak(workspace: &Workspace, options: &SoakOptions) -> Result<()> {
    let start = Instant::now();
    let tools = test::prepare(workspace)?;
    build::build(workspace)?;
    step("soak", || {
        let mut cargo = cargo::host(workspace);
        cargo.args(["test", "--locked", "--package", "redirector-tests", "--test", "soak", "--"]);
        cargo.args(["--nocapture", "--test-threads", "1"]).args(&options.filter);
        cargo.env("REDIRECTOR_BIN", workspace.release_binary()).env("REDIRECTOR_TEST_TOOLS", &tools);
        cargo.env("REDIRECTOR_SOAK", "full").env("REDIRECTOR_SOAK_DATAPATH", &options.datapath);
        if let Some(seed) = options.seed {
            cargo.env("REDIRECTOR_SOAK_SEED", seed.to_string());
        }
        process::run(&mut cargo)
    })?;
    println!("cargo xtask soak: passed in {:.0} s", start.elapsed().as_secs_f64());
    Ok(())
}
