//! Requests of developers, as spans of OpenTelemetry, to whoever collects them (OTLP over HTTP).
//!
//! | file | purpose |
//! | --- | --- |
//! | `endpoint` | where the collector is |
//! | `span` | what a request is as a span |
//! | `exporter` | the way there: bounded, and never in the way of a request |

mod endpoint;
mod exporter;
mod span;

pub use endpoint::Endpoint;
pub use exporter::Exporter;
