//! The `redirector` binary. Exit codes: 0 done, 1 failed, 2 wrong usage.

use clap::Parser as _;
use redirector::cli::Cli;
use std::process::ExitCode;

fn main() -> ExitCode {
    Cli::parse().run().unwrap_or_else(|error| {
        eprintln!("redirector: {error:#}");
        ExitCode::FAILURE
    })
}
