//! The path of a request, in the one form in which paths are compared.

use std::borrow::Cow;

/// The path of a request target, without the query, normalised.
pub(super) fn request_path(target: &str) -> Cow<'_, str> {
    normalised(path_of_target(target))
}

/// The path of a request target, without the query, as it was sent.
///
/// | form of the target (RFC 9112 §3.2) | its path |
/// | --- | --- |
/// | origin-form, `/a?b`; in HTTP/2 the `:path` | `/a` |
/// | absolute-form, `http://host/a?b` | `/a`; `/` where there is none (RFC 3986 §6.2.3) |
/// | authority-form, `host:443` of CONNECT | empty (RFC 9112 §3.3) |
/// | asterisk-form, `*` of OPTIONS | empty (RFC 9112 §3.3) |
#[must_use]
pub fn path_of_target(target: &str) -> &str {
    let path = if target.starts_with('/') {
        target
    } else if let Some(authority) = after_scheme(target) {
        match authority.find(['/', '?', '#']) {
            Some(end) if authority[end..].starts_with('/') => &authority[end..],
            _ => "/",
        }
    } else {
        ""
    };
    let end = path.find(['?', '#']).unwrap_or(path.len());
    &path[..end]
}

/// The path in the form of RFC 3986 §6.2.2: the letters of `%2f` large, what need not be encoded (§2.3) decoded,
/// `.` and `..` resolved. What a URI cannot hold as it is (§3.3), such as `é` or `{`, is encoded, also a `%` that
/// encodes nothing. `%2F` stays, being another path than `/`; so do empty segments.
pub(super) fn normalised(path: &str) -> Cow<'_, str> {
    if path.bytes().all(|byte| byte == b'/' || is_pchar(byte)) && !path.contains("/.") {
        return Cow::Borrowed(path);
    }
    Cow::Owned(without_dot_segments(&with_one_encoding(path)))
}

/// The authority and what follows, of `scheme://…`.
fn after_scheme(target: &str) -> Option<&str> {
    let (scheme, rest) = target.split_once("://")?;
    let is_scheme = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    is_scheme.then_some(rest)
}

fn with_one_encoding(path: &str) -> String {
    let bytes = path.as_bytes();
    let mut text = String::with_capacity(path.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let encoded = (byte == b'%').then(|| octet(bytes.get(at + 1), bytes.get(at + 2))).flatten();
        match encoded {
            Some(octet) if is_unreserved(octet) => text.push(char::from(octet)),
            Some(octet) => push_encoded(&mut text, octet),
            None if byte == b'/' || is_pchar(byte) => text.push(char::from(byte)),
            None => push_encoded(&mut text, byte),
        }
        at += if encoded.is_some() { 3 } else { 1 };
    }
    text
}

/// The octet that two hexadecimal digits stand for.
fn octet(high: Option<&u8>, low: Option<&u8>) -> Option<u8> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    Some(digit(high?)? * 16 + digit(low?)?)
}

fn push_encoded(text: &mut String, octet: u8) {
    text.push('%');
    for digit in [octet >> 4, octet & 15] {
        text.push(char::from(b"0123456789ABCDEF"[usize::from(digit)]));
    }
}

/// RFC 3986 §5.2.4, for a path that starts with `/`.
fn without_dot_segments(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.strip_prefix('/').unwrap_or(path).split('/').peekable();
    while let Some(segment) = segments.next() {
        match segment {
            "." | ".." => {
                if segment == ".." {
                    kept.pop();
                }
                if segments.peek().is_none() {
                    kept.push("");
                }
            }
            segment => kept.push(segment),
        }
    }
    format!("/{}", kept.join("/"))
}

/// `unreserved` of RFC 3986 §2.3.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

/// `pchar` of RFC 3986 §3.3 that is no part of an encoded octet.
fn is_pchar(byte: u8) -> bool {
    is_unreserved(byte) || b"!$&'()*+,;=:@".contains(&byte)
}
