//! Where the collector is.

use http::Uri;
use std::{fmt, str::FromStr};

/// The path of traces, below the collector's own (OTLP 1.x, "OTLP/HTTP Request").
const TRACES: &str = "/v1/traces";

/// `http://HOST[:PORT][/PATH]` or `https://…`. The port is 4318 where none is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint(Uri);

/// The text is no endpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not where a collector can be: write http://HOST:4318 or https://HOST:4318")]
pub struct NotAnEndpoint(String);

impl FromStr for Endpoint {
    type Err = NotAnEndpoint;

    fn from_str(text: &str) -> Result<Self, NotAnEndpoint> {
        let bad = || NotAnEndpoint(text.to_owned());
        let uri: Uri = text.parse().map_err(|_| bad())?;
        let scheme = uri.scheme_str().filter(|scheme| ["http", "https"].contains(scheme)).ok_or_else(bad)?;
        let authority =
            uri.authority().filter(|authority| !authority.as_str().contains('@')).ok_or_else(bad)?;
        let authority = match authority.port() {
            Some(_) => authority.to_string(),
            None => format!("{authority}:4318"),
        };
        let path = uri.path().trim_end_matches('/');
        let path = path.strip_suffix(TRACES).unwrap_or(path);
        format!("{scheme}://{authority}{path}{TRACES}").parse().map(Self).map_err(|_| bad())
    }
}

/// With the path of traces.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_and_path_may_be_left_out() {
        for (given, used) in [
            ("http://collector", "http://collector:4318/v1/traces"),
            ("https://c.test:443/", "https://c.test:443/v1/traces"),
            ("http://[fd00::1]:4318/v1/traces", "http://[fd00::1]:4318/v1/traces"),
            ("https://c.test/otlp/", "https://c.test:4318/otlp/v1/traces"),
        ] {
            assert_eq!(given.parse::<Endpoint>().unwrap().to_string(), used);
        }
        for bad in ["collector:4318", "grpc://c:4317", "http://", "", "http://user:pass@c"] {
            assert!(bad.parse::<Endpoint>().is_err(), "{bad}");
        }
    }
}
