//! Hands the eBPF object to the agent, which embeds it: `$REDIRECTOR_EBPF_OBJECT`, or what
//! `cargo xtask build` has left in the target directory.

use std::{env, path::PathBuf};

const VARIABLE: &str = "REDIRECTOR_EBPF_OBJECT";

fn main() {
    // Not std's `cfg!`, which here tells of the machine that builds.
    if env::var("CARGO_CFG_TARGET_OS").is_ok_and(|system| system != "linux") {
        return;
    }
    println!("cargo::rerun-if-env-changed={VARIABLE}");
    let object = env::var_os(VARIABLE).map(PathBuf::from).or_else(in_target_directory);
    if let Some(object) = object.filter(|object| object.is_file()) {
        println!("cargo::rerun-if-changed={}", object.display());
        println!("cargo::rustc-env={VARIABLE}={}", object.display());
    } else {
        println!(
            "cargo::error=no eBPF object in {VARIABLE} or at ebpf/redirector.o in the target directory: \
             run `cargo xtask build` once (it builds the eBPF half first)"
        );
    }
}

/// `ebpf/redirector.o` of the target directory. Cargo does not tell where that is, but this script's own output
/// is below it.
fn in_target_directory() -> Option<PathBuf> {
    let output = PathBuf::from(env::var_os("OUT_DIR")?);
    output.ancestors().map(|directory| directory.join("ebpf/redirector.o")).find(|object| object.is_file())
}
