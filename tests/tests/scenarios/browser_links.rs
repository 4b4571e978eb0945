//! The links of previews in a real browser: what is kept of one, what others can do with it, and what is seen when it has
//! come to its end.

use lab::{Browser, Certificate, Forwards, Kind, Lab, eventually};
use serde_json::{Value, json};

use crate::{
    browser::{DIALOG, Visit, dialog, prices},
    gateway::KEY,
    scene::{in_lab, text},
};

const COOKIE: &str = "redirector-preview";

fn id_of(created: &Value) -> String {
    let link = text(created, "share_link");
    link.rsplit('/').next().expect("an id").to_owned()
}

/// A page of the gateway's own, with its style, though its policy lets nothing in but that.
#[track_caller]
fn assert_page(browser: &Browser, title: &str) {
    assert_eq!(browser.title(), title);
    assert_eq!(browser.text("h1"), title);
    let width = browser.run("return getComputedStyle(document.body).maxWidth");
    assert_ne!(width, "none", "without its style");
}

#[test]
fn the_cookie_is_for_this_site_and_not_for_scripts() {
    in_lab(|lab| {
        let visit = Visit::new(lab);
        visit.open_site();
        assert_eq!(visit.browser.cookie(COOKIE), None);
        visit.browser.open(&visit.link());
        let cookie = visit.browser.cookie(COOKIE).expect("the cookie");
        for (attribute, value) in [
            ("value", json!(visit.id)),
            ("domain", json!("shop.test")),
            ("path", json!("/")),
            ("httpOnly", json!(true)),
            ("sameSite", json!("Lax")),
            ("secure", json!(false)),
        ] {
            assert_eq!(cookie[attribute], value, "{attribute}");
        }
        assert!(cookie["expiry"].is_u64(), "it ends with the preview: {cookie}");
        assert_eq!(visit.browser.run("return document.cookie"), "");
    });
}

#[test]
fn other_sites_may_lead_to_a_preview_and_not_act_in_it() {
    in_lab(|lab| {
        let visit = Visit::new(lab);
        visit.browser.open(&visit.link());
        // The same gateway by another name, which has no cookie of the first.
        visit.browser.open("http://other.test/");
        visit.assert_shows("live");
        let _ = visit
            .browser
            .run("const form = document.forms[0]; form.action = 'http://shop.test/api/order'; form.submit()");
        visit.browser.wait_for_text("#order", "live: 1 × Pears");
        assert_eq!(visit.browser.url(), "http://shop.test/api/order");

        visit.browser.open("http://other.test/");
        let _ = visit.browser.run("document.querySelector('#prices').href = 'http://shop.test/?a'");
        visit.browser.click("#prices");
        visit.assert_shows("alice");
        assert_eq!(visit.browser.url(), "http://shop.test/?a");
    });
}

#[test]
fn a_preview_that_has_ended_says_so_once_and_then_the_live_version_is_back() {
    in_lab(|lab| {
        let visit = Visit::new(lab);
        visit.browser.open(&visit.link());
        visit.assert_shows("alice");
        let link = visit.link();
        assert!(visit.alice.interrupt().success());
        let browser = &visit.browser;
        // The page is still there, and its WebSocket is not.
        browser.wait_for_text("#stock", "closed");
        browser.reload();
        assert_page(browser, "This preview has ended");
        assert_eq!(browser.cookie(COOKIE), None);
        browser.reload();
        assert_eq!(browser.text("#offers h2"), "Today’s fruit");
        browser.wait_for_text("#basket", "live: empty");
        browser.open(&link);
        assert_page(browser, "This preview has ended");
    });
}

#[test]
fn an_expired_link_says_so_and_its_cookie_is_cleared() {
    in_lab(|lab| {
        let visit = Visit::new(lab);
        let id = id_of(&visit.gateway.create(&lab.dev, &["--key", KEY, "--expires", "1s"]));
        eventually("it has expired", || visit.gateway.list(&lab.dev).len() == 1);
        for url in [format!("http://shop.test/_p/{id}"), format!("http://{id}.preview.test/")] {
            visit.browser.open(&url);
            assert_page(&visit.browser, "This preview has expired");
        }
        visit.open_site();
        // Its own time has come as well, unless the clock of the machine is wrong.
        visit.browser.set_cookie(&json!({ "name": COOKIE, "value": id, "httpOnly": true }));
        visit.open_site();
        assert_page(&visit.browser, "This preview has expired");
        assert_eq!(visit.browser.cookie(COOKIE), None);
        visit.browser.reload();
        visit.assert_shows("live");
    });
}

#[test]
fn a_link_that_never_was_says_so() {
    in_lab(|lab| {
        let visit = Visit::new(lab);
        for url in ["http://shop.test/_p/nothing", "http://aaaaaaaaaaaaaaaaaaaaaaaaaa.preview.test/cart"] {
            visit.browser.open(url);
            assert_page(&visit.browser, "There is no such preview");
        }
        assert_eq!(visit.browser.cookie(COOKIE), None);
    });
}

#[test]
fn the_form_for_the_password_leads_to_the_page_that_was_asked_for() {
    in_lab(|lab| enter_by_password(&Visit::new(lab), lab));
}

#[test]
fn in_tls_the_form_for_the_password_works_as_well() {
    in_lab(|lab| enter_by_password(&in_tls(lab), lab));
}

fn enter_by_password(visit: &Visit, lab: &Lab) {
    let browser = &visit.browser;
    let (agent, token) = (visit.agent.address().to_string(), visit.agent.token_file().display().to_string());
    let arguments = ["alice", "--name", "secret", "--auth", "password", "--agent", &agent];
    let created = visit.gateway.create(&lab.dev, &[&arguments[..], &["--token-file", &token]].concat());
    let (id, password) = (id_of(&created), text(&created, "password"));
    let (scheme, _) = visit.site.split_once("://").expect("a scheme");
    let own = format!("{scheme}://{id}.preview.test/?a=b");
    let links =
        [(format!("{}/_p/{id}?to=/?a%3Db", visit.site), format!("{}/?a=b", visit.site)), (own.clone(), own)];
    for (link, there) in links {
        browser.open(&link);
        assert_page(browser, "This preview has a password");
        browser.fill("#password", "not this");
        browser.click("button");
        browser.wait_for_text(".problem", "That was not it.");
        assert_eq!(browser.cookie(COOKIE), None);
        browser.fill("#password", &password);
        browser.click("button");
        visit.assert_shows("alice");
        assert_eq!(browser.url(), there);
        let cookie = browser.cookie(COOKIE).expect("the cookie");
        assert!(text(&cookie, "value").starts_with("s."), "{cookie}");
        assert_eq!(cookie["secure"], scheme == "https");
    }
}

#[test]
fn while_the_developer_is_away_visitors_are_told_and_need_no_new_link_afterwards() {
    in_lab(|lab| {
        let visit = Visit::new(lab);
        visit.browser.open(&visit.link());
        visit.assert_shows("alice");
        // The lid of the laptop is closed.
        visit.alice.freeze();
        eventually("the browser is told", || {
            visit.open_site();
            visit.browser.title() == "The developer is away"
        });
        assert_page(&visit.browser, "The developer is away");
        assert!(visit.browser.cookie(COOKIE).is_some());
        visit.alice.thaw();
        eventually("the developer's version is back", || {
            visit.open_site();
            visit.browser.title() == "Corner shop"
        });
        visit.assert_shows("alice");
    });
}

fn in_tls(lab: &mut Lab) -> Visit {
    let certificate = Certificate::new(lab, &["shop.test", "*.preview.test"], Kind::Ecdsa);
    let [file, key] = certificate.files();
    Visit::with(lab, Forwards::W3c, "https", &["--tls-cert", &file, "--tls-key", &key])
}

#[test]
fn in_tls_the_cookie_is_for_tls_only_and_one_http2_connection_carries_all() {
    in_lab(|lab| {
        let visit = in_tls(lab);
        visit.browser.open(&visit.link());
        visit.assert_shows("alice");
        assert_eq!(visit.browser.cookie(COOKIE).expect("the cookie")["secure"], true);
        let protocol =
            visit.browser.run("return performance.getEntriesByType('navigation')[0].nextHopProtocol");
        assert_eq!(protocol, "h2");
        // The WebSocket as well (RFC 8441), which is open all the time.
        assert_eq!(visit.browser.run(DIALOG), dialog("alice"));
        assert_eq!(visit.browser.text("#stock"), "alice: 12 kilos");
        let sockets = lab.client.netns.sh("ss -Htn state established");
        let to = format!("{}", visit.gateway.address());
        let count = sockets.lines().filter(|line| line.contains(&to)).count();
        assert_eq!(count, 1, "{sockets}");
        visit.browser.fill("[name=amount]", "3");
        visit.browser.click("form button");
        visit.browser.wait_for_text("#order", "alice: 3 × Pears");
    });
}

#[test]
fn in_tls_the_previews_own_host_works_as_well() {
    in_lab(|lab| {
        let visit = in_tls(lab);
        visit.browser.open(&format!("https://{}.preview.test/", visit.id));
        visit.assert_shows("alice");
        assert_eq!(visit.browser.run(DIALOG), dialog("alice"));
        visit.browser.click("#prices");
        assert!(visit.browser.downloaded("prices.csv") == prices("alice"), "other bytes");
        visit.open_site();
        visit.assert_shows("live");
    });
}
