//! What the lab needs and Debian does not have. `cargo xtask test` puts it below `target`.

use std::{env, path::PathBuf};

/// The Python whose packages are those of `tests/requirements.txt`.
#[must_use]
pub fn grpc_python() -> PathBuf {
    tool("grpc/bin/python")
}

/// The HTTP/2 conformance tester of `tests/h2spec`.
#[must_use]
pub fn h2spec() -> PathBuf {
    tool("h2spec/h2spec")
}

/// The server of `tests/answering`, built with Go.
pub(crate) fn answering() -> PathBuf {
    tool("answering/answering")
}

/// The OpenTelemetry receiver of `tests/collector`.
pub(crate) fn collector() -> PathBuf {
    tool("collector/collector")
}

/// In `$REDIRECTOR_TEST_TOOLS`, or where `cargo xtask test` puts it by default.
fn tool(path: &str) -> PathBuf {
    let default = || concat!(env!("CARGO_MANIFEST_DIR"), "/../target/test-tools").into();
    let tools = env::var_os("REDIRECTOR_TEST_TOOLS").map_or_else(default, PathBuf::from);
    let tool = tools.join(path);
    assert!(tool.exists(), "{} is missing: run `cargo xtask test`, which installs it", tool.display());
    tool
}
