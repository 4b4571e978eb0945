//! Previews with a password: what opens them, and what does not.

use lab::{Curl, Gateway, GatewayOptions, Lab};
use serde_json::Value;

use crate::{
    gateway::{INGRESS, KEY, Site, Visited, visit},
    scene::{in_lab, text},
};

/// A preview with a password; its path, and the password.
fn with_password(lab: &Lab, gateway: &Gateway, arguments: &[&str]) -> (String, Value) {
    let created = gateway.create(&lab.dev, &[&["--key", KEY, "--auth", "password"], arguments].concat());
    let link = text(&created, "share_link");
    (link[link.find("/_p/").expect("a path")..].to_owned(), created)
}

fn enter(lab: &Lab, gateway: &Gateway, path: &str, password: &str, to: &str) -> Visited {
    let (password, to) = (format!("password={password}"), format!("to={to}"));
    let arguments = ["--data-urlencode", &password, "--data-urlencode", &to];
    visit(&lab.client, gateway, &format!("http://shop.test{path}"), &arguments, &[])
}

#[test]
fn the_link_asks_for_the_password_and_the_password_opens_it() {
    in_lab(|lab| {
        let Site { gateway, .. } = &Site::new(lab, &[]);
        let (path, created) = with_password(lab, gateway, &[]);
        let password = text(&created, "password");
        assert!(password.len() >= 16, "{password}");
        let form = visit(&lab.client, gateway, &format!("http://shop.test{path}?to=/cart"), &[], &[]);
        assert!(
            form.status == 403 && form.body.contains("type=\"password\"") && form.body.contains("/cart"),
            "{form:?}"
        );
        assert!(form.all("set-cookie").is_empty());

        let wrong = enter(lab, gateway, &path, "not-it-at-all", "/");
        assert!(wrong.status == 403 && wrong.body.contains("not it") && wrong.all("set-cookie").is_empty());
        let opened = enter(lab, gateway, &path, &password, "/cart");
        assert_eq!((opened.status, &*opened.header("location")), (303, "/cart"));
        let cookie = opened.cookie();
        assert!(!cookie.contains(path.trim_start_matches("/_p/")) && !cookie.contains(&password), "{cookie}");
        let seen = visit(&lab.client, gateway, "http://shop.test/", &[], &[&cookie]).report();
        assert_eq!(seen.header("x-redirector-intercept"), KEY);
        assert!(seen.all("cookie").is_empty());

        // The id alone, as a cookie, opens nothing.
        let id = path.trim_start_matches("/_p/");
        let page = visit(
            &lab.client,
            gateway,
            "http://shop.test/",
            &[],
            &[&format!("cookie: redirector-preview={id}")],
        );
        assert_eq!(page.status, 404, "{page:?}");
        // Nor does a form of elsewhere lead elsewhere.
        assert_eq!(enter(lab, gateway, &path, &password, "//evil.test").header("location"), "/");
    });
}

#[test]
fn a_preview_on_its_own_host_asks_as_well() {
    in_lab(|lab| {
        let Site { gateway, .. } =
            &Site::new(lab, &["--preview-domain", "preview.test", "--public-url", "http://gateway.test"]);
        let file = lab.directory().join("password");
        std::fs::write(&file, "correct horse\n").expect("a file");
        let (path, created) = with_password(lab, gateway, &["--password-file", &file.to_string_lossy()]);
        assert!(created["password"].is_null(), "what was given is not printed");
        let link = text(&created, "link");
        let form = visit(&lab.client, gateway, &format!("{link}cart?id=1"), &[], &[]);
        assert!(
            form.status == 403 && form.body.contains("/cart?id&#61;1") && form.body.contains(&path),
            "{form:?}"
        );
        let host = link.trim_end_matches('/');
        let arguments = ["--data-urlencode", "password=correct horse", "--data-urlencode", "to=/cart"];
        let opened = visit(&lab.client, gateway, &format!("{host}{path}"), &arguments, &[]);
        assert_eq!((opened.status, &*opened.header("location")), (303, "/cart"));
        let seen = visit(&lab.client, gateway, &link, &[], &[&opened.cookie()]).report();
        assert_eq!(seen.header("x-redirector-intercept"), KEY);
        // A visit to one preview opens no other.
        let (_, other) = with_password(lab, gateway, &[]);
        assert_eq!(visit(&lab.client, gateway, &text(&other, "link"), &[], &[&opened.cookie()]).status, 403);
    });
}

#[test]
fn guesses_are_limited_and_who_knows_it_elsewhere_still_gets_in() {
    in_lab(|lab| {
        let Site { gateway, .. } = &Site::new(lab, &[]);
        let (path, created) = with_password(lab, gateway, &[]);
        let password = text(&created, "password");
        for guess in 0..5 {
            assert_eq!(enter(lab, gateway, &path, &format!("guess number {guess}"), "/").status, 403);
        }
        // From here on even the right one is not looked at.
        let refused = enter(lab, gateway, &path, &password, "/");
        assert!(refused.status == 429 && refused.all("set-cookie").is_empty(), "{refused:?}");
        assert!(!refused.header("retry-after").is_empty());
        // What the guesser says of where they come from is not believed.
        let url = format!("http://{}{path}", gateway.address());
        let curl = |host| {
            let body = format!("password={password}");
            Curl::on(host)
                .request(&url, &["--data-urlencode", &body], &["x-forwarded-for: 192.0.2.1"])
                .answer()
                .status
        };
        assert_eq!(curl(&lab.client), 429);
        assert_eq!(curl(&lab.dev), 303);
    });
}

#[test]
fn a_visit_survives_a_restart_of_the_gateway_and_no_secret_is_in_its_files() {
    in_lab(|lab| {
        let site = Site::new(lab, &[]);
        let (path, created) = with_password(lab, &site.gateway, &[]);
        let password = text(&created, "password");
        let cookie = enter(lab, &site.gateway, &path, &password, "/").cookie();
        let state = site.gateway.state_directory().to_owned();
        let Site { gateway, ingress: _ingress, app: _app } = site;
        gateway.kill();
        for entry in std::fs::read_dir(&state).expect("the state directory").flatten() {
            let bytes = std::fs::read(entry.path()).unwrap_or_default();
            for secret in
                [path.trim_start_matches("/_p/"), &password, cookie.rsplit("s.").next().expect("a secret")]
            {
                let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
                assert!(!found, "{} has a secret", entry.path().display());
            }
        }
        let gateway = &Gateway::start(lab, &GatewayOptions::new(lab.node.at(INGRESS)));
        let seen = visit(&lab.client, gateway, "http://shop.test/", &[], &[&cookie]).report();
        assert_eq!(seen.header("x-redirector-intercept"), KEY);
    });
}
