//! What redirector promises, tried with real servers and clients in network namespaces. One module per theme; each
//! test is named after its promise. Needs root, `$REDIRECTOR_BIN` and `lab::PACKAGES`: `cargo xtask test` sees to it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests")]

mod scene;

mod the_lab;
