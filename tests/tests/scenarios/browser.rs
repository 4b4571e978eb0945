//! What a real browser shows of a preview: the developer's backend inside the live frontend. With a shop of three hops,
//! none of which knows of redirector.

use std::{fs, path::Path};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use lab::{Agent, App, Browser, Developer, Forwards, Gateway, GatewayOptions, Intercept, Lab, Shop};
use serde_json::{Value, json};

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
        let names = ["shop.test", "other.test", "*.preview.test"].map(|name| (name, gateway.address()));
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
        self.browser.wait_for_text("#stock", &format!("{backend}: 12 kilos"));
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
fn pictures_of_both_differ_where_the_backend_is_and_not_where_the_frontend_is() {
    in_lab(|lab| {
        let visit = Visit::new(lab);
        let pictures = [("live", visit.site.clone()), ("alice", visit.link())].map(|(backend, url)| {
            visit.browser.open(&url);
            visit.assert_shows(backend);
            let picture = visit.browser.screenshot();
            // To be looked at: target/tmp/pictures.
            let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("pictures");
            fs::create_dir_all(&directory).expect("a directory below target");
            fs::write(directory.join(format!("{backend}.png")), &picture).expect("a picture");
            format!("data:image/png;base64,{}", STANDARD.encode(picture))
        });
        let arguments = json!(pictures);
        let differs = visit.browser.run(&format!("const pictures = {arguments}; {WHERE_PICTURES_DIFFER}"));
        assert_eq!((&differs["width"], &differs["height"]), (&json!(640), &json!(340)));
        let (first, last) = (differs["first_row"].as_u64(), differs["last_row"].as_u64());
        let middle = |selector: &str| {
            let script = "const place = document.querySelector(SELECTOR).getBoundingClientRect();
                return Math.round((place.top + place.bottom) / 2)";
            visit.browser.run(&script.replace("SELECTOR", &format!("'{selector}'"))).as_u64()
        };
        assert!(
            first > middle("header") && first < middle("#offers") && last > middle("#offers"),
            "{differs}"
        );
    });
}

/// Compares two `pictures`, pixel by pixel, in the page.
const WHERE_PICTURES_DIFFER: &str = "
    const pixels = async (url) => {
        const image = new Image();
        image.src = url;
        await image.decode();
        const context = new OffscreenCanvas(image.width, image.height).getContext('2d');
        context.drawImage(image, 0, 0);
        return context.getImageData(0, 0, image.width, image.height);
    };
    return Promise.all(pictures.map(pixels)).then(([one, other]) => {
        const rows = [];
        one.data.forEach((value, at) => {
            if (value !== other.data[at]) rows.push(Math.floor(at / 4 / one.width));
        });
        return { width: one.width, height: one.height, first_row: rows[0], last_row: rows.at(-1) };
    });";

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
    json!([format!("{backend}: 12 kilos"), format!("{backend}: grüezi"), 4000, true])
}

#[test]
fn a_download_is_complete_and_the_developers() {
    in_lab(|lab| {
        let visit = Visit::new(lab);
        visit.browser.open(&visit.link());
        visit.browser.click("#prices");
        assert!(visit.browser.downloaded("prices.csv") == prices("alice"), "other bytes");
    });
}

/// The file to download, of a backend of this name.
pub fn prices(backend: &str) -> Vec<u8> {
    let line = format!("{:.<63}\n", format!("served by {backend};"));
    line.repeat(4096).into_bytes()
}
