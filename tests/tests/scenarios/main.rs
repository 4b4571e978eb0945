//! What redirector promises, tried with real servers and clients in network namespaces. One module per theme; each
//! test is named after its promise. Needs root, `$REDIRECTOR_BIN` and `lab::PACKAGES`: `cargo xtask test` sees to it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests")]

mod scene;

mod addresses;
mod app_lifecycle;
mod attach;
mod bad_input;
mod big_packets;
mod bodies;
mod busy_apps;
mod cli;
mod conflicts;
mod curl_line;
mod developer_gone;
mod explain;
mod fail_open;
mod framing;
mod gateway;
mod gateway_crash;
mod gateway_password;
mod gateway_security;
mod gateway_tls;
mod gateway_to_developer;
mod grpc;
mod half_close;
mod http2;
mod http2_conformance;
mod http2_routes;
mod http2_streams;
mod intercept_events;
mod keep_alive;
mod late_sockets;
mod matching;
mod metrics;
mod no_ethernet;
mod packets;
mod parking;
mod parking_limits;
mod path_mtu;
mod port_reuse;
mod presets;
mod raw_protocols;
mod status;
mod targets;
mod the_lab;
mod tls;
mod tls_ends;
mod tls_http2;
mod tls_keys;
mod tls_passed_on;
mod tls_to_developer;
mod tokens;
mod two_developers;
mod uncovered;
mod upgrade;
