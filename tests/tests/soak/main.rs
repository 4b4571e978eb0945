//! What redirector promises, in large numbers: under load, when the agent dies at any moment, on a bad wire. `cargo xtask test`
//! runs each with small numbers, `cargo xtask soak` with large ones.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests")]

mod exchange;
mod live_load;
mod scale;
mod scene;

mod agent_dies;
mod agent_dies_at_each_step;
mod bad_wire;
mod every_answer;
