//! What a request asks for, by its host and its path: a preview by its own host, a share link, or a page of the site.

use super::link::{OWN_PATHS, PreviewDomain};
use http::{HeaderMap, Uri, header::HOST, uri::Authority};

/// The names under which the gateway is reached.
#[derive(Clone, Debug, Default)]
pub struct Site {
    pub preview_domain: Option<PreviewDomain>,
    /// Host names, in lower case; empty: any.
    pub hosts: Vec<String>,
}

/// What a request asks for. Ids are texts from outside, not yet known to be ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked<'a> {
    /// `ID.PREVIEW-DOMAIN`
    Preview { id: String },
    /// `/_p/ID` on the gateway's own host, or on the preview's.
    ShareLink { id: &'a str, on_preview_host: bool },
    /// Anything else on a host of the gateway: the cookie says which preview, if any.
    Site,
    /// A host that is not one of the gateway's.
    OtherHost,
}

/// Why nobody can say which host a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    #[error("the request names no host")]
    Missing,
    #[error("the request names more than one host")]
    Several,
    #[error("the request's host is not understood")]
    Malformed,
}

impl Site {
    #[must_use]
    pub fn asked<'a>(&self, authority: &Authority, path: &'a str) -> Asked<'a> {
        let host = host_name(authority);
        let label = self
            .preview_domain
            .as_ref()
            .and_then(|domain| host.strip_suffix(domain.as_str())?.strip_suffix('.').map(str::to_owned));
        if let Some(id) = path.strip_prefix(OWN_PATHS) {
            let on_preview_host = label.is_some();
            return match label {
                // Another preview's link would have to set its cookie on this one's host.
                Some(label) if !label.eq_ignore_ascii_case(id) => Asked::Preview { id: String::new() },
                _ if on_preview_host || self.serves(&host) => Asked::ShareLink { id, on_preview_host },
                _ => Asked::OtherHost,
            };
        }
        match label {
            Some(id) => Asked::Preview { id },
            None if self.serves(&host) => Asked::Site,
            None => Asked::OtherHost,
        }
    }

    fn serves(&self, host: &str) -> bool {
        self.hosts.is_empty() || self.hosts.iter().any(|name| name == host)
    }
}

/// The one host that a request is for. HTTP/1.1 has it in `Host`, or in the target as well; HTTP/2 in `:authority`, or
/// in `Host`. Where both are there they must agree: who is behind the gateway may look at the other one (RFC 9112 §3.2,
/// RFC 9113 §8.3.1).
pub fn authority(uri: &Uri, headers: &HeaderMap) -> Result<Authority, HostError> {
    let mut lines = headers.get_all(HOST).iter();
    let host = match (lines.next(), lines.next()) {
        (_, Some(_)) => return Err(HostError::Several),
        (Some(line), None) => {
            let text = line.to_str().map_err(|_| HostError::Malformed)?;
            Some(text.parse::<Authority>().map_err(|_| HostError::Malformed)?)
        }
        (None, None) => None,
    };
    let authority = match (uri.authority().cloned(), host) {
        (Some(target), Some(host)) if target.as_str().eq_ignore_ascii_case(host.as_str()) => target,
        (Some(_), Some(_)) => return Err(HostError::Several),
        (Some(one), None) | (None, Some(one)) => one,
        (None, None) => return Err(HostError::Missing),
    };
    let text = authority.as_str();
    let has_port_or_none = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => !host.is_empty() && port.parse::<u16>().is_ok(),
        _ => true,
    };
    let is_host_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]~".contains(&byte);
    if has_port_or_none && !authority.host().is_empty() && text.bytes().all(is_host_byte) {
        Ok(authority)
    } else {
        Err(HostError::Malformed)
    }
}

/// In lower case, without port and without the dot at the end of a full name.
#[must_use]
pub fn host_name(authority: &Authority) -> String {
    let host = authority.host();
    host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    const ID: &str = "abcdefghijklmnopqrstuvwxyz";

    fn site() -> Site {
        Site { preview_domain: Some("preview.test".parse().unwrap()), hosts: vec!["shop.test".to_owned()] }
    }

    fn host_of(target: &str, hosts: &[&str]) -> Result<String, HostError> {
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(HOST, HeaderValue::from_str(host).unwrap());
        }
        authority(&target.parse().unwrap(), &headers).map(|authority| authority.to_string())
    }

    fn asked<'a>(host: &str, path: &'a str) -> Asked<'a> {
        site().asked(&host.parse().unwrap(), path)
    }

    #[test]
    fn a_subdomain_of_the_preview_domain_is_a_preview() {
        for host in [format!("{ID}.preview.test"), format!("{}.PREVIEW.test.:8443", ID.to_uppercase())] {
            assert_eq!(asked(&host, "/any"), Asked::Preview { id: ID.to_owned() }, "{host}");
        }
        assert_eq!(asked("a.b.preview.test", "/"), Asked::Preview { id: "a.b".to_owned() });
        assert_eq!(asked("preview.test", "/"), Asked::OtherHost);
        assert_eq!(asked("evilpreview.test", "/"), Asked::OtherHost);
    }

    #[test]
    fn a_share_link_is_one_on_the_gateways_own_host() {
        let path = format!("/_p/{ID}");
        assert_eq!(asked("shop.test", &path), Asked::ShareLink { id: ID, on_preview_host: false });
        assert_eq!(asked("other.test", &path), Asked::OtherHost);
        let own = format!("{ID}.preview.test");
        assert_eq!(asked(&own, &path), Asked::ShareLink { id: ID, on_preview_host: true });
        assert_eq!(asked(&own, "/_p/another"), Asked::Preview { id: String::new() });
        assert_eq!(asked("shop.test", "/_p"), Asked::Site);
    }

    #[test]
    fn without_names_any_host_is_the_sites() {
        assert_eq!(Site::default().asked(&"anything".parse().unwrap(), "/"), Asked::Site);
        assert_eq!(asked("shop.test:8080", "/"), Asked::Site);
        assert_eq!(asked("other.test", "/"), Asked::OtherHost);
    }

    #[test]
    fn there_is_exactly_one_host_or_none() {
        assert_eq!(host_of("/", &["shop.test"]), Ok("shop.test".to_owned()));
        assert_eq!(host_of("http://shop.test/", &["SHOP.test"]), Ok("shop.test".to_owned()));
        assert_eq!(host_of("https://shop.test/", &[]), Ok("shop.test".to_owned()));
        assert_eq!(host_of("http://shop.test/", &["evil.test"]), Err(HostError::Several));
        assert_eq!(host_of("http://shop.test/", &["shop.test:81"]), Err(HostError::Several));
        assert_eq!(host_of("/", &["shop.test", "shop.test"]), Err(HostError::Several));
        assert_eq!(host_of("/", &[]), Err(HostError::Missing));
        for host in [
            "",
            "a b",
            "user@shop.test",
            "shop.test:",
            "shop.test:x",
            "shop.test:99999",
            ":80",
            "shop.test/",
            "a,b",
        ] {
            assert_eq!(host_of("/", &[host]), Err(HostError::Malformed), "{host}");
        }
        assert_eq!(host_of("/", &["[::1]:80"]), Ok("[::1]:80".to_owned()));
    }

    proptest! {
        #[test]
        fn no_host_is_a_preview_without_its_domain(host in "[a-z.]{1,20}") {
            prop_assume!(!host.ends_with("preview.test") && host.parse::<Authority>().is_ok());
            let is_preview = matches!(asked(&host, "/"), Asked::Preview { .. });
            prop_assert!(!is_preview);
        }

        #[test]
        fn any_host_is_judged(inside in "[ -~]{0,12}", host in "[ -~]{0,16}", absolute in any::<bool>()) {
            let target = if absolute { format!("http://{inside}/") } else { "/".to_owned() };
            if let (Ok(uri), Ok(value)) = (target.parse::<Uri>(), HeaderValue::from_str(&host)) {
                let mut headers = HeaderMap::new();
                headers.append(HOST, value);
                if let Ok(authority) = authority(&uri, &headers) {
                    prop_assert!(!authority.as_str().contains('@'));
                    let _ = site().asked(&authority, "/_p/x");
                }
            }
        }
    }
}
