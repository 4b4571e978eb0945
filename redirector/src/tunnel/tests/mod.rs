//! Both ends of the tunnel together, over loopback TCP, in-memory pipes and TLS.

mod liveness;
mod scale;
mod streams;
mod support;
mod tls;
