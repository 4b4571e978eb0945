//! What a real browser shows of a preview: the developer's backend inside the live frontend. With a shop of three hops,
//! none of which knows of redirector.

use lab::{Agent, App, Browser, Developer, Forwards, Gateway, GatewayOptions, Intercept, Lab, Shop};
use serde_json::Value;

use crate::scene::{in_lab, text};

/// The shop behind a gateway, alice's intercept of its backend with a preview, and a browser that knows the gateway by its
/// names. (Dropped in this order.)
pub struct Visit {
    pub browser: Browser,
    pub alice: Developer,
    pub gateway: Gateway,
    pub agent: Agent,
    _alice_backend: App,
    _shop: Shop,
    /// `http://shop.test`, or the same in TLS.
    pub site: String,
    /// The preview's.
    pub id: String,
}

impl Visit {
    pub fn new(lab: &mut Lab) -> Self {
        Self::with(lab, Forwards::W3c, "http", &[])
    }

    /// `scheme` is that of the site; `arguments` are the gateway's.
    pub fn with(lab: &mut Lab, forwards: Forwards, scheme: &str, arguments: &[&str]) -> Self {
        let shop = Shop::open(lab, forwards);
        let alice_backend = Shop::developers_backend(lab, "alice");
        let agent = Agent::start(lab);
        let site = format!("{scheme}://shop.test");
        let (address, token) = (agent.address().to_string(), agent.token_file().display().to_string());
        let own = ["--public-url", &site, "--preview-domain", "preview.test"];
        let options = GatewayOptions::new(shop.address)
            .with(&own)
            .with(&["--agent", &address, "--agent-token-file", &token])
            .with(arguments);
        let gateway = Gateway::start(lab, &options);
        let (alice, id) = intercept_with_preview(lab, &agent, &gateway);
        let names = [("shop.test", gateway.address()), ("*.preview.test", gateway.address())];
        let browser = Browser::start(lab, &lab.client, &names);
        Self { browser, alice, gateway, agent, _alice_backend: alice_backend, _shop: shop, site, id }
    }

    /// The share link.
    pub fn link(&self) -> String {
        format!("{}/_p/{}", self.site, self.id)
    }

    pub fn open_site(&self) {
        self.browser.open(&format!("{}/", self.site));
    }

    /// Waits until each part of the page is there, and says so if one is not of `backend`: what the frontend has put in,
    /// what a script has fetched, and what came by WebSocket.
    #[track_caller]
    pub fn assert_shows(&self, backend: &str) {
        let offers = if backend == "live" { "Today’s fruit" } else { "Autumn sale" };
        assert_eq!(self.browser.text("#frontend"), "frontend: live");
        assert_eq!(self.browser.text("#offers h2"), offers);
        self.browser.wait_for_text("#basket", &format!("{backend}: empty"));
        self.browser.wait_for_text("#stock", &format!("{backend}: 12 kilos left"));
    }

    /// What the backend was sent by a script of the page.
    #[track_caller]
    pub fn fetched(&self) -> Value {
        self.browser.run("return fetch('/api/basket').then((response) => response.json())")
    }
}

/// `redirector intercept --preview` for the shop's backend, ready; and the preview's id.
pub fn intercept_with_preview(lab: &Lab, agent: &Agent, gateway: &Gateway) -> (Developer, String) {
    let intercept = Intercept::new(lab, agent, Shop::PORT, Shop::LOCAL).name("alice").argument("--preview");
    let intercept =
        gateway.connection().iter().fold(intercept, |intercept, argument| intercept.argument(argument));
    let mut alice = intercept.start(lab);
    let line = alice.wait_for_line("preview: ");
    let (_, host) = line.split_once("://").expect("a link to a host of its own");
    let id = host.split('.').next().expect("its first label").to_owned();
    (alice, id)
}

#[test]
fn the_link_shows_the_developers_backend_inside_the_live_frontend() {
    in_lab(|lab| {
        let visit = Visit::new(lab);
        visit.open_site();
        visit.assert_shows("live");
        visit.browser.open(&visit.link());
        assert_eq!(visit.browser.url(), "http://shop.test/");
        visit.assert_shows("alice");
    });
}

#[test]
fn whoever_has_no_link_sees_the_live_version_at_the_same_time() {
    in_lab(|lab| {
        let visit = Visit::new(lab);
        let other = Browser::start(lab, &lab.client, &[("shop.test", visit.gateway.address())]);
        visit.browser.open(&visit.link());
        other.open("http://shop.test/");
        visit.assert_shows("alice");
        assert_eq!(other.text("#offers h2"), "Today’s fruit");
        other.wait_for_text("#basket", "live: empty");
    });
}

#[test]
fn the_previews_own_host_shows_the_developers_version() {
    in_lab(|lab| {
        let visit = Visit::new(lab);
        let own = format!("http://{}.preview.test/", visit.id);
        visit.browser.open(&own);
        assert_eq!(visit.browser.url(), own);
        visit.assert_shows("alice");
        // The site itself stays as it is: nothing was set.
        assert_eq!(visit.browser.cookie("redirector-preview"), None);
        visit.open_site();
        visit.assert_shows("live");
    });
}

#[test]
fn w3c_headers_alone_bring_the_context_through_every_hop_and_the_cookie_stays_at_the_edge() {
    in_lab(|lab| {
        let visit = Visit::new(lab);
        visit.open_site();
        let seen = visit.fetched()["headers"].to_string();
        assert!(!seen.contains("redirector") && !seen.contains("traceparent"), "{seen}");

        visit.browser.open(&visit.link());
        let seen = visit.fetched();
        assert_eq!(text(&seen, "served_by"), "alice");
        let headers = &seen["headers"];
        assert!(text(headers, "baggage").starts_with("redirector="), "{headers}");
        assert!(text(headers, "tracestate").starts_with("redirector="), "{headers}");
        assert_eq!(text(headers, "traceparent").len(), 55, "{headers}");
        assert!(headers["x-redirector-intercept"].is_null(), "the frontend passes on W3C headers only");
        assert!(headers["cookie"].is_null(), "what opens the preview is not for apps: {headers}");
    });
}

#[test]
fn a_frontend_that_drops_the_context_shows_the_live_backend() {
    in_lab(|lab| {
        let visit = Visit::with(lab, Forwards::Nothing, "http", &[]);
        visit.browser.open(&visit.link());
        visit.assert_shows("live");
    });
}

#[test]
fn a_form_is_posted_to_the_developer_and_cookies_of_the_app_work() {
    in_lab(|lab| {
        let visit = Visit::new(lab);
        visit.browser.open(&visit.link());
        visit.browser.fill("[name=amount]", "7");
        visit.browser.click("form button");
        visit.browser.wait_for_text("#order", "alice: 7 × Pears");
        assert_eq!(visit.browser.url(), "http://shop.test/api/order");
        let own = visit.browser.cookie("last-order").expect("the app's own cookie");
        assert_eq!(own["value"], "Pears");
        assert_eq!(visit.fetched()["headers"]["cookie"], "last-order=Pears");
    });
}

#[test]
fn websockets_open_talk_and_close() {
    in_lab(|lab| {
        let visit = Visit::new(lab);
        for backend in ["live", "alice"] {
            visit.browser.open(&if backend == "live" { visit.site.clone() } else { visit.link() });
            visit.assert_shows(backend);
            assert_eq!(visit.browser.run(DIALOG), dialog(backend));
        }
    });
}

/// Says something in a new WebSocket, closes it, and gives all that came.
pub const DIALOG: &str = "
    return new Promise((done) => {
        const heard = [], socket = new WebSocket(location.origin.replace('http', 'ws') + '/socket');
        socket.onmessage = (message) => {
            if (heard.push(message.data) === 2) socket.close(4000, 'enough');
        };
        socket.onopen = () => socket.send('grüezi');
        socket.onclose = (closed) => done([...heard, closed.code, closed.wasClean]);
    });";

pub fn dialog(backend: &str) -> Value {
    serde_json::json!([format!("{backend}: 12 kilos left"), format!("{backend}: grüezi"), 4000, true])
}

#[test]
fn a_download_is_complete_and_the_developers() {
    in_lab(|lab| {
        let visit = Visit::new(lab);
        visit.browser.open(&visit.link());
        visit.browser.click("#prices");
        let line = format!("{:.<63}\n", "served by alice;");
        assert!(visit.browser.downloaded("prices.csv") == line.repeat(4096).into_bytes(), "other bytes");
    });
}
