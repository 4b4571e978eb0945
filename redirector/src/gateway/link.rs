//! Links to previews, and the cookie that a share link sets.

use super::preview::PreviewId;
use http::{HeaderMap, HeaderValue, Uri, header::COOKIE};
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};
use std::fmt;
use std::str::FromStr;

/// Paths below it are the gateway's own, on every host.
pub const OWN_PATHS: &str = "/_p/";

/// The cookie's name.
pub const COOKIE_NAME: &str = "redirector-preview";

/// What a URI's path and query may not have as it is (RFC 3986 §3.3 and §3.4); `%` stays, it is encoded already.
const NOT_IN_PATH: AsciiSet =
    CONTROLS.add(b' ').add(b'"').add(b'<').add(b'>').add(b'`').add(b'{').add(b'}').add(b'|').add(b'^');

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

/// What a visitor's cookie holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ticket {
    /// The preview itself, where its link is enough.
    Id(PreviewId),
    /// A visit that a password has opened.
    Session(PreviewId),
}

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

impl Ticket {
    const SESSION: &str = "s.";

    /// `Set-Cookie` with the ticket. `seconds`: as long as the preview lives.
    #[must_use]
    pub fn set_cookie(&self, secure: bool, seconds: i64) -> HeaderValue {
        let text = match self {
            Self::Id(id) => id.as_str().to_owned(),
            Self::Session(secret) => format!("{}{}", Self::SESSION, secret.as_str()),
        };
        cookie(&text, secure, seconds)
    }

    fn parse(text: &str) -> Option<Self> {
        match text.strip_prefix(Self::SESSION) {
            Some(secret) => secret.parse().ok().map(Self::Session),
            None => text.parse().ok().map(Self::Id),
        }
    }
}

/// `Set-Cookie` that takes the cookie away.
#[must_use]
pub fn clear_cookie(secure: bool) -> HeaderValue {
    cookie("", secure, 0)
}

fn cookie(value: &str, secure: bool, seconds: i64) -> HeaderValue {
    let secure = if secure { "; Secure" } else { "" };
    let text = format!("{COOKIE_NAME}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}");
    // All of it is ASCII.
    HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// What our cookies hold; `None` for one that holds nothing of ours.
#[must_use]
pub fn tickets(headers: &HeaderMap) -> Vec<Option<Ticket>> {
    // Other cookies of the same line may hold anything.
    let lines: Vec<_> =
        headers.get_all(COOKIE).iter().map(|line| String::from_utf8_lossy(line.as_bytes())).collect();
    let pairs = lines.iter().flat_map(|line| line.split(';')).filter(|pair| is_ours(pair));
    pairs.map(|pair| Ticket::parse(pair.split_once('=')?.1.trim())).collect()
}

/// Takes our cookies away and leaves the others: the ingress has no use for what opens a preview.
pub fn remove_cookies(headers: &mut HeaderMap) {
    let lines: Vec<HeaderValue> = headers.get_all(COOKIE).iter().cloned().collect();
    let has_ours = |line: &HeaderValue| String::from_utf8_lossy(line.as_bytes()).split(';').any(is_ours);
    if !lines.iter().any(has_ours) {
        return;
    }
    headers.remove(COOKIE);
    for line in lines {
        let others: Vec<&[u8]> = line
            .as_bytes()
            .split(|&byte| byte == b';')
            .map(<[u8]>::trim_ascii)
            .filter(|pair| !pair.is_empty() && !is_ours(&String::from_utf8_lossy(pair)))
            .collect();
        if !others.is_empty()
            && let Ok(value) = HeaderValue::from_bytes(&others.join(&b"; "[..]))
        {
            headers.append(COOKIE, value);
        }
    }
}

/// One line of all: HTTP/2 may have one for each cookie, HTTP/1.1 may not (RFC 9113 §8.2.3).
pub fn join_cookies(headers: &mut HeaderMap) {
    let lines: Vec<Vec<u8>> = headers.get_all(COOKIE).iter().map(|line| line.as_bytes().to_vec()).collect();
    if lines.len() > 1
        && let Ok(value) = HeaderValue::from_bytes(&lines.join(&b"; "[..]))
    {
        headers.insert(COOKIE, value);
    }
}

fn is_ours(pair: &str) -> bool {
    pair.split('=').next().unwrap_or_default().trim().eq_ignore_ascii_case(COOKIE_NAME)
}

/// The path, with its query, that a share link leads to: the one in `?to=`, if it is one of this very host, else `/`.
///
/// Browsers take `//host`, and `/\host`, for another host, and drop tabs and line breaks before they look. Who decodes
/// once more than was encoded sees what is inside. None of these is a path here, whatever it is wrapped in.
#[must_use]
pub fn destination(query: Option<&str>) -> String {
    let given =
        query.and_then(|query| form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "to"));
    let Some((_, to)) = given else { return "/".to_owned() };
    local_path(&to).unwrap_or_else(|| "/".to_owned())
}

/// The text as a path of this host, or nothing.
#[must_use]
pub fn local_path(text: &str) -> Option<String> {
    const MOST_WRAPPINGS: usize = 8;
    let mut layer = text.to_owned();
    for _ in 0..MOST_WRAPPINGS {
        if !is_local(&layer) {
            return None;
        }
        let decoded = percent_decode_str(&layer).decode_utf8_lossy().into_owned();
        if decoded == layer {
            return Some(utf8_percent_encode(text, &NOT_IN_PATH).to_string());
        }
        layer = decoded;
    }
    None
}

fn is_local(text: &str) -> bool {
    let path = text.split(['?', '#']).next().unwrap_or_default();
    path.starts_with('/')
        && !path.contains("//")
        && !text.contains('\\')
        && !text.chars().any(|character| character.is_control() || character == '\u{fffd}')
        && !path.starts_with(OWN_PATHS)
        && text.len() <= 4096
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id() -> PreviewId {
        "abcdefghijklmnopqrstuvwxyz".parse().unwrap()
    }

    fn cookies(lines: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(COOKIE, HeaderValue::from_bytes(line.as_bytes()).unwrap());
        }
        headers
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

    #[test]
    fn cookies_are_not_for_scripts_nor_other_sites() {
        let set = Ticket::Id(id()).set_cookie(true, 60);
        assert_eq!(
            set.to_str().unwrap(),
            format!(
                "redirector-preview={}; Path=/; Max-Age=60; HttpOnly; SameSite=Lax; Secure",
                id().as_str()
            )
        );
        assert!(!Ticket::Id(id()).set_cookie(false, 60).to_str().unwrap().contains("Secure"));
        assert_eq!(clear_cookie(false), "redirector-preview=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax");
    }

    #[test]
    fn tickets_are_read_from_all_lines_and_removed_without_a_trace() {
        let own = format!("redirector-preview={}", id().as_str());
        let session = format!("redirector-preview=s.{}", id().as_str());
        let mut headers =
            cookies(&[&format!("a=1; {own};b=2"), &session, "redirector-preview=junk", "c=\u{e9}"]);
        let expected = [Some(Ticket::Id(id())), Some(Ticket::Session(id())), None];
        assert_eq!(tickets(&headers), expected);
        remove_cookies(&mut headers);
        assert_eq!(headers, cookies(&["a=1; b=2", "c=\u{e9}"]));
        assert!(tickets(&headers).is_empty());
    }

    #[test]
    fn crumbs_of_http2_become_one_line() {
        let mut headers = cookies(&["a=1", "b=2; c=3"]);
        join_cookies(&mut headers);
        assert_eq!(headers, cookies(&["a=1; b=2; c=3"]));
    }

    #[test]
    fn cookies_that_are_not_ours_stay_to_the_byte() {
        let mut headers = cookies(&["a=1;b=2 ;; redirector-previews=x"]);
        let before = headers.clone();
        remove_cookies(&mut headers);
        assert_eq!(headers, before);
    }

    #[test]
    fn a_share_link_leads_to_a_path_of_its_own_host_only() {
        for (query, path) in [
            (None, "/"),
            (Some(""), "/"),
            (Some("to="), "/"),
            (Some("to=%2Fcart%3Fid%3D1"), "/cart?id=1"),
            (Some("to=/a%20b/%C3%BC"), "/a%20b/%C3%BC"),
            (Some("to=/login?next=https://shop.test/"), "/login?next=https://shop.test/"),
            (Some("to=/a#b"), "/a#b"),
            (Some("from=x&to=/a&to=//evil.test"), "/a"),
        ] {
            assert_eq!(destination(query), path, "{query:?}");
        }
        for to in [
            "//evil.test",
            "/\\evil.test",
            "\\\\evil.test",
            "https://evil.test",
            "evil.test",
            "javascript:alert(1)",
            "/%2Fevil.test",
            "/%252Fevil.test",
            "/%25255Cevil.test",
            "/%5Cevil.test",
            "/\t/evil.test",
            "/%09/evil.test",
            "/a\r\nSet-Cookie: x=y",
            "/%0D%0Ax",
            "/a//b",
            "/./%2F/evil.test",
            "/_p/abc",
            "/%5f%70/abc",
            "%2F%2Fevil.test",
            "/\u{0}",
        ] {
            let query: String =
                form_urlencoded::Serializer::new(String::new()).append_pair("to", to).finish();
            assert_eq!(destination(Some(&query)), "/", "{to:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_a_link_says_the_browser_stays_here(to in "[/\\\\%25fFcC\t .:a]{0,12}") {
            if let Some(path) = local_path(&to) {
                prop_assert!(path.starts_with('/') && !path.starts_with("//") && !path.contains('\\'), "{path}");
                prop_assert!(HeaderValue::from_str(&path).is_ok() && path.is_ascii());
            }
        }

        #[test]
        fn cookies_survive_the_removal_of_ours(others in prop::collection::vec("[a-q]{1,3}=[a-z0-9]{0,4}", 0..5), at in 0usize..6) {
            let mut pairs = others.clone();
            pairs.insert(at.min(pairs.len()), format!("redirector-preview={}", id().as_str()));
            let mut headers = cookies(&[&pairs.join("; ")]);
            remove_cookies(&mut headers);
            let expected = if others.is_empty() { cookies(&[]) } else { cookies(&[&others.join("; ")]) };
            prop_assert_eq!(headers, expected);
        }
    }
}
