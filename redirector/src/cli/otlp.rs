//! The flag of agent and gateway by which spans are exported.

use crate::otlp::Endpoint;
use clap::Args;

#[derive(Args, Clone, Debug)]
pub struct OtlpArgs {
    /// Export the requests that carry a context, or that an intercept takes, as OpenTelemetry spans, by OTLP over HTTP:
    /// http[s]://HOST[:4318]. Their parents are those in the requests' `traceparent`. A collector that is slow, or away,
    /// delays nothing, but misses some
    #[arg(long = "otlp", value_name = "ENDPOINT")]
    pub endpoint: Option<Endpoint>,
}
