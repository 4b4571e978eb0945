//! Links to previews.

use super::preview::PreviewId;
use http::Uri;
use std::{fmt, str::FromStr};

/// Paths below it are the gateway's own, on every host.
pub const OWN_PATHS: &str = "/_p/";

/// Where browsers reach the gateway: scheme, host, and a port if it is not the scheme's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicUrl {
    secure: bool,
    host: String,
    port: Option<u16>,
}

/// A text that is no public URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("give it as browsers see it, without a path: https://preview.example.com or http://HOST:PORT")]
pub struct NotAPublicUrl;

/// The domain whose subdomains are previews.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreviewDomain(String);

/// A text that is no domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "give a domain name without scheme and port, such as preview.example.com; all its subdomains must lead here"
)]
pub struct NotADomain;

impl PublicUrl {
    #[must_use]
    pub fn new(secure: bool, host: String, port: u16) -> Self {
        let own = if secure { 443 } else { 80 };
        Self { secure, host, port: (port != own).then_some(port) }
    }

    /// Cookies are for TLS only.
    #[must_use]
    pub fn is_secure(&self) -> bool {
        self.secure
    }

    #[must_use]
    pub fn scheme(&self) -> &'static str {
        if self.secure { "https" } else { "http" }
    }

    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// `SCHEME://GATEWAY/_p/ID`
    #[must_use]
    pub fn share_link(&self, id: &PreviewId) -> String {
        format!("{self}{OWN_PATHS}{}", id.as_str())
    }

    /// `SCHEME://ID.PREVIEW-DOMAIN/`
    #[must_use]
    pub fn host_link(&self, id: &PreviewId, domain: &PreviewDomain) -> String {
        let host = format!("{}.{}", id.as_str(), domain.0);
        format!("{}/", Self { host, ..self.clone() })
    }
}

impl fmt::Display for PublicUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme(), self.host)?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

impl FromStr for PublicUrl {
    type Err = NotAPublicUrl;

    fn from_str(text: &str) -> Result<Self, NotAPublicUrl> {
        let uri: Uri = text.parse().map_err(|_| NotAPublicUrl)?;
        let secure = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(NotAPublicUrl),
        };
        let authority = uri.authority().ok_or(NotAPublicUrl)?;
        if authority.as_str().contains('@') || uri.path() != "/" || uri.query().is_some() {
            return Err(NotAPublicUrl);
        }
        let port = authority.port_u16().unwrap_or(if secure { 443 } else { 80 });
        Ok(Self::new(secure, authority.host().to_ascii_lowercase(), port))
    }
}

impl PreviewDomain {
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for PreviewDomain {
    type Err = NotADomain;

    fn from_str(text: &str) -> Result<Self, NotADomain> {
        let text = text.trim_start_matches("*.").trim_end_matches('.').to_ascii_lowercase();
        let is_label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        };
        if text.split('.').all(is_label) && text.len() <= 200 { Ok(Self(text)) } else { Err(NotADomain) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> PreviewId {
        "abcdefghijklmnopqrstuvwxyz".parse().unwrap()
    }

    #[test]
    fn links_are_made_of_what_browsers_see() {
        let url: PublicUrl = "https://gateway.test".parse().unwrap();
        let domain: PreviewDomain = "*.Preview.test.".parse().unwrap();
        assert_eq!(url.share_link(&id()), format!("https://gateway.test/_p/{}", id().as_str()));
        assert_eq!(url.host_link(&id(), &domain), format!("https://{}.preview.test/", id().as_str()));
        let url: PublicUrl = "http://127.0.0.1:8080".parse().unwrap();
        assert_eq!(url.host_link(&id(), &domain), format!("http://{}.preview.test:8080/", id().as_str()));
        for text in [
            "",
            "gateway.test",
            "ftp://gateway.test",
            "https://gateway.test/path",
            "https://a@gateway.test",
            "https://",
        ] {
            assert_eq!(text.parse::<PublicUrl>(), Err(NotAPublicUrl), "{text}");
        }
        for text in ["", ".", "a b", "https://a.test", "a.test:80", "a..test"] {
            assert_eq!(text.parse::<PreviewDomain>(), Err(NotADomain), "{text}");
        }
    }
}
