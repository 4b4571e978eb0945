//! The gateway's own pages: plain HTML, nothing loaded from elsewhere, nothing kept.

use super::preview::Ended;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderValue, Response, StatusCode, header};
use ring::digest::{SHA256, digest};
use std::{fmt::Write as _, time::Duration};

const STYLE: &str = "body{font:1.1rem/1.5 system-ui,sans-serif;max-width:34rem;margin:15vh auto;padding:0 1rem;color:#222;background:#fff}\
h1{font-size:1.5rem}input,button{font:inherit;padding:.4rem .6rem}label{display:block;margin-bottom:.4rem}\
.problem{color:#a00}@media(prefers-color-scheme:dark){body{color:#ddd;background:#1b1b1b}.problem{color:#f88}}";

/// What a visitor is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Page<'a> {
    /// There is no such preview, and nobody can tell whether there was.
    Unknown,
    Ended(Ended),
    /// The developer's machine does not take requests now.
    Away {
        owner: &'a str,
    },
    /// Asks for the password. `action` is a path, `to` the one it leads to.
    Password {
        action: &'a str,
        to: &'a str,
        problem: Option<PasswordProblem>,
    },
    /// Not one of the gateway's hosts.
    OtherHost,
    /// On a gateway that has previews only.
    NoLiveVersion,
    /// The request is not to be passed on.
    BadRequest {
        reason: &'a str,
    },
    MethodNotAllowed,
    /// The ingress does not answer.
    NoIngress,
    /// The gateway itself has a problem, which is in its log.
    Failed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PasswordProblem {
    Wrong,
    TooMany { wait: Duration },
}

impl Page<'_> {
    /// The whole answer.
    #[must_use]
    pub fn response(&self) -> Response<String> {
        let mut response = Response::new(self.html());
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        let policy = format!(
            "default-src 'none'; style-src 'sha256-{}'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
            STANDARD.encode(digest(&SHA256, STYLE.as_bytes()))
        );
        for (name, value) in [
            (header::CONTENT_TYPE, "text/html; charset=utf-8"),
            (header::CACHE_CONTROL, "no-store"),
            (header::CONTENT_SECURITY_POLICY, &policy),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::REFERRER_POLICY, "no-referrer"),
            (header::HeaderName::from_static("x-robots-tag"), "noindex"),
        ] {
            // All of it is ASCII.
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(name, value);
            }
        }
        if let Some(wait) = self.retry_after() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs()));
        }
        if self == &Self::MethodNotAllowed {
            headers.insert(
                header::ALLOW,
                HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),
            );
        }
        response
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::Unknown | Self::NoLiveVersion => StatusCode::NOT_FOUND,
            Self::Ended(_) => StatusCode::GONE,
            Self::Away { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Self::Password { problem: Some(PasswordProblem::TooMany { .. }), .. } => {
                StatusCode::TOO_MANY_REQUESTS
            }
            Self::Password { .. } => StatusCode::FORBIDDEN,
            Self::OtherHost => StatusCode::MISDIRECTED_REQUEST,
            Self::BadRequest { .. } => StatusCode::BAD_REQUEST,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::NoIngress => StatusCode::BAD_GATEWAY,
            Self::Failed => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Away { .. } => Some(Duration::from_secs(5)),
            Self::Password { problem: Some(PasswordProblem::TooMany { wait }), .. } => Some(*wait),
            _ => None,
        }
    }

    fn html(&self) -> String {
        let (title, text) = match self {
            Self::Unknown => (
                "There is no such preview",
                "The link may be incomplete, or its preview may have ended long ago. Ask for it again where you got it.".to_owned(),
            ),
            Self::Ended(Ended::Expired) => (
                "This preview has expired",
                "Ask whoever sent you the link for a new one. If you reload a page of this site, you see its live version.".to_owned(),
            ),
            Self::Ended(Ended::Removed) => (
                "This preview has ended",
                "Its developer has finished with it. If you reload a page of this site, you see its live version.".to_owned(),
            ),
            Self::Away { owner } => (
                "The developer is away",
                format!(
                    "This preview runs on the machine of {}, which can't be reached at the moment. What you would see \
                     here now is the live version, so nothing is shown. Try again in a while.",
                    escaped(owner)
                ),
            ),
            Self::Password { action, to, problem } => ("This preview has a password", form(action, to, *problem)),
            Self::OtherHost => ("Not served here", "This gateway does not serve the host you asked for.".to_owned()),
            Self::NoLiveVersion => ("There is nothing here", "Open this site by the link of a preview.".to_owned()),
            Self::BadRequest { reason } => ("The request can't be passed on", format!("{}.", escaped(reason))),
            Self::MethodNotAllowed => ("Not allowed", "Requests with this method are not passed on.".to_owned()),
            Self::NoIngress => ("The site can't be reached", "Nothing answers behind this gateway. Try again in a while.".to_owned()),
            Self::Failed => ("Something went wrong", "The gateway has a problem of its own; its log says which.".to_owned()),
        };
        format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
             content=\"width=device-width\"><title>{title}</title><style>{STYLE}</style></head>\n\
             <body><main><h1>{title}</h1>\n<p>{text}</p></main></body></html>\n"
        )
    }
}

fn form(action: &str, to: &str, problem: Option<PasswordProblem>) -> String {
    let problem = match problem {
        None => String::new(),
        Some(PasswordProblem::Wrong) => "<span class=\"problem\">That was not it.</span></p>\n<p>".to_owned(),
        Some(PasswordProblem::TooMany { wait }) => format!(
            "<span class=\"problem\">That was too often. Try again in {} seconds.</span></p>\n<p>",
            wait.as_secs()
        ),
    };
    format!(
        "{problem}Whoever sent you the link knows it.</p>\n<form method=\"post\" action=\"{}\">\
         <input type=\"hidden\" name=\"to\" value=\"{}\"><label for=\"password\">Password</label>\
         <input type=\"password\" id=\"password\" name=\"password\" autocomplete=\"current-password\" required autofocus> \
         <button>Open</button></form><p>",
        escaped(action),
        escaped(to)
    )
}

/// As text or as the value of a quoted attribute.
#[must_use]
pub fn escaped(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut safe, character| {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            // Writing to a string can't fail.
            '"' | '\'' | '`' | '=' => drop(write!(safe, "&#{};", u32::from(character))),
            other => safe.push(other),
        }
        safe
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all() -> Vec<Page<'static>> {
        let password = |problem| Page::Password { action: "/_p/x", to: "/", problem };
        vec![
            Page::Unknown,
            Page::Ended(Ended::Expired),
            Page::Ended(Ended::Removed),
            Page::Away { owner: "alice@laptop" },
            password(None),
            password(Some(PasswordProblem::Wrong)),
            password(Some(PasswordProblem::TooMany { wait: Duration::from_secs(60) })),
            Page::OtherHost,
            Page::NoLiveVersion,
            Page::BadRequest { reason: "the request names no host" },
            Page::MethodNotAllowed,
            Page::NoIngress,
            Page::Failed,
        ]
    }

    #[test]
    fn no_page_loads_anything_or_is_kept() {
        for page in all() {
            let response = page.response();
            let html = response.body();
            for reference in ["src=", "href=", "url(", "@import", "<script", "http:", "https:"] {
                assert!(!html.contains(reference), "{page:?} has {reference}");
            }
            let headers = response.headers();
            assert_eq!(headers["cache-control"], "no-store");
            let policy = headers["content-security-policy"].to_str().unwrap();
            assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
            assert!(
                !response.status().is_success(),
                "{page:?}: a program must see that this is not the site"
            );
        }
    }

    #[test]
    fn what_is_shown_is_escaped() {
        let evil = "\"><script>alert('x')</script>";
        for page in [
            Page::Away { owner: evil },
            Page::Password { action: evil, to: evil, problem: None },
            Page::BadRequest { reason: evil },
        ] {
            let html = page.response().into_body();
            assert!(
                !html.contains("<script") && !html.contains("\">alert") && html.contains("&lt;script&gt;"),
                "{html}"
            );
        }
    }

    #[test]
    fn who_may_come_back_is_told_when() {
        let problem = Some(PasswordProblem::TooMany { wait: Duration::from_secs(60) });
        let response = Page::Password { action: "/", to: "/", problem }.response();
        assert_eq!(
            (response.status().as_u16(), &response.headers()["retry-after"]),
            (429, &"60".parse().unwrap())
        );
        assert_eq!(Page::Away { owner: "" }.response().headers()["retry-after"], "5");
    }

    proptest! {
        #[test]
        fn no_text_breaks_out(text in "[ -~]{0,40}") {
            let safe = escaped(&text);
            prop_assert!(!safe.contains(['<', '>', '"', '\'']));
        }
    }
}
