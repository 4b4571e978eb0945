//! Says what is being done, and how long it took.

use std::{fmt::Display, time::Instant};

use anyhow::{Context, Result};

/// Runs `work` between a line that says `what` it is and one with its duration.
pub fn step<T>(what: impl Display, work: impl FnOnce() -> Result<T>) -> Result<T> {
    eprintln!("==> {what}");
    let start = Instant::now();
    let done = work().with_context(|| format!("{what}: failed"))?;
    eprintln!("    {:.1} s", start.elapsed().as_secs_f64());
    Ok(done)
}

/// A line below a step.
pub fn note(text: impl Display) {
    eprintln!("    {text}");
}
