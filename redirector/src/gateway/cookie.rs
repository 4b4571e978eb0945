//! The cookie that opens a preview on a host which shows the live version to others.

use super::preview::PreviewId;
use http::{HeaderMap, HeaderValue, header::COOKIE};

/// The cookie's name.
pub const COOKIE_NAME: &str = "redirector-preview";

/// What a visitor's cookie holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ticket {
    /// The preview itself, where its link is enough.
    Id(PreviewId),
    /// A visit that a password has opened.
    Session(PreviewId),
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
    let lines: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if lines.len() > 1
        && let Ok(value) = HeaderValue::from_bytes(&lines.join(&b"; "[..]))
    {
        headers.insert(COOKIE, value);
    }
}

fn is_ours(pair: &str) -> bool {
    pair.split('=').next().unwrap_or_default().trim().eq_ignore_ascii_case(COOKIE_NAME)
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

    proptest! {
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
