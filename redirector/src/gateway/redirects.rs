//! Redirects that an app makes to itself, by the name it was called by.

use http::{HeaderMap, HeaderValue, Uri, header::LOCATION, uri::Authority};

/// Makes a `Location` at the host that the ingress was told, in `scheme`, one at the host that the visitor asked, as
/// reverse proxies do: else the first redirect would lead out of the preview. Others stay.
pub fn keep_visitor(headers: &mut HeaderMap, told: (&str, &Authority), asked: (&str, &Authority)) {
    let Some(location) = headers.get(LOCATION).and_then(|location| location.to_str().ok()) else { return };
    let Ok(uri) = location.parse::<Uri>() else { return };
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else { return };
    let is_told =
        authority.as_str().eq_ignore_ascii_case(told.1.as_str()) && ["http", "https"].contains(&scheme);
    if !is_told || told == asked {
        return;
    }
    // The fragment, which a `Uri` has not, stays with what follows the authority.
    let Some((_, rest)) = location.split_once("://") else { return };
    let path = &rest[authority.as_str().len()..];
    if let Ok(value) = HeaderValue::from_str(&format!("{}://{}{path}", asked.0, asked.1)) {
        headers.insert(LOCATION, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(location: &str) -> String {
        let mut headers = HeaderMap::new();
        headers.insert(LOCATION, location.parse().unwrap());
        let (told, asked) = ("shop.test:8080".parse().unwrap(), "id.preview.test".parse().unwrap());
        keep_visitor(&mut headers, ("http", &told), ("https", &asked));
        headers[LOCATION].to_str().unwrap().to_owned()
    }

    #[test]
    fn a_redirect_to_the_site_itself_stays_in_the_preview() {
        assert_eq!(kept("http://shop.test:8080/cart?a=b#c"), "https://id.preview.test/cart?a=b#c");
        assert_eq!(kept("https://SHOP.test:8080"), "https://id.preview.test");
        for location in [
            "/cart",
            "//shop.test:8080/",
            "http://shop.test/",
            "https://pay.test/",
            "not a uri",
            "ftp://shop.test:8080/",
        ] {
            assert_eq!(kept(location), location);
        }
    }
}
