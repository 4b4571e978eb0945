//! The second half of what the demo shows: a link by which others see the developer's version, in a real browser.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use lab::{Agent, Browser, Developer, Forwards, Gateway, GatewayOptions, Intercept, Lab, Shop};

use super::{interrupt::Interrupt, report::Report};

/// The shop as visitors call it. The browsers know by themselves where it is.
const SITE: &str = "http://shop.test";

/// Whose backend a page shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    Live,
    Alice,
}

pub struct PreviewStory<'a> {
    lab: &'a mut Lab,
    report: &'a mut Report,
    interrupt: &'a Interrupt,
    /// Where the pictures of both versions go.
    pictures: &'a Path,
}

impl<'a> PreviewStory<'a> {
    pub fn new(
        lab: &'a mut Lab,
        report: &'a mut Report,
        interrupt: &'a Interrupt,
        pictures: &'a Path,
    ) -> Self {
        Self { lab, report, interrupt, pictures }
    }

    /// Ends early when it is interrupted. What it started has ended when it returns.
    pub fn tell(mut self) -> Result<()> {
        self.interrupt.check()?;
        let shop = Shop::open(self.lab, Forwards::W3c);
        println!("{}", picture(self.lab, &shop));
        let _backend = Shop::developers_backend(self.lab, "alice");
        let agent = Agent::start(self.lab);
        let gateway = self.gateway(&shop, &agent);
        let names = [("shop.test", gateway.address())];

        self.report.step("Without a link, a browser shows the live shop");
        let somebody = Browser::start(self.lab, &self.lab.client, &names);
        self.visit(&somebody, SITE, Version::Live)?;
        self.photograph(&somebody, "live")?;

        self.report.step("With the link, the developer's backend is inside it");
        let (alice, link) = self.intercept(&agent, &gateway);
        let colleague = Browser::start(self.lab, &self.lab.client, &names);
        self.visit(&colleague, &link, Version::Alice)?;
        self.photograph(&colleague, "preview")?;
        self.report.note("At the same time, in a browser without the link:");
        self.visit(&somebody, SITE, Version::Live)?;

        self.report.step("The developer leaves, and the preview with them");
        let ended = alice.interrupt();
        self.check(
            "exit code of the intercept",
            "0",
            &ended.code().map_or("none".into(), |c| c.to_string()),
        )?;
        colleague.reload();
        self.check("the page that the link had led to", "has ended", said_to_have_ended(&colleague.title()))?;
        colleague.reload();
        self.check("the same page once more", Version::Live.heading(), &colleague.text("#offers h2"))
    }

    fn gateway(&self, shop: &Shop, agent: &Agent) -> Gateway {
        let (address, token) = (agent.address().to_string(), agent.token_file().display().to_string());
        self.report.command("node", "redirector agent");
        self.report.command("node", &format!("redirector gateway --public-url {SITE} \\"));
        let (host, port) = (shop.address.ip(), shop.address.port());
        self.report.note(&format!(
            "       --ingress-host {host} --ingress-port {port} --agent {address} --agent-token-file …"
        ));
        let arguments = ["--public-url", SITE, "--agent", &address, "--agent-token-file", &token];
        Gateway::start(self.lab, &GatewayOptions::new(shop.address).with(&arguments))
    }

    /// Alice's, with a preview; gives its link.
    fn intercept(&self, agent: &Agent, gateway: &Gateway) -> (Developer, String) {
        let (target, port, local) = (self.lab.pod.netns.target(), Shop::PORT, Shop::LOCAL);
        self.report.command(
            "dev",
            &format!("redirector intercept {target} --port {port} --to 127.0.0.1:{local} \\"),
        );
        self.report.note("       --preview --gateway … --gateway-token-file … --agent … --token-file …");
        let intercept = Intercept::new(self.lab, agent, port, local).argument("--preview");
        let intercept =
            gateway.connection().iter().fold(intercept, |intercept, argument| intercept.argument(argument));
        let mut alice = intercept.start(self.lab);
        let line = alice.wait_for_line("preview: ");
        self.report.note(&format!("which says: {}", line.trim()));
        let link = line.split_whitespace().last().unwrap_or_default().to_owned();
        (alice, link)
    }

    /// Opens an address and looks at what is there, whoever has put it into the page.
    fn visit(&mut self, browser: &Browser, url: &str, version: Version) -> Result<()> {
        browser.open(url);
        // What comes last.
        browser.wait_for_text("#basket", version.basket());
        browser.wait_for_text("#stock", version.stock());
        self.check(&format!("Chromium: {}", shortened(url)), version.heading(), &browser.text("#offers h2"))?;
        self.check("   the page around it", "frontend: live", &browser.text("#frontend"))?;
        self.check("   its script's fetch()", version.basket(), &browser.text("#basket"))?;
        self.check("   its WebSocket", version.stock(), &browser.text("#stock"))
    }

    fn photograph(&self, browser: &Browser, name: &str) -> Result<()> {
        let path = self.pictures.join(format!("{name}.png"));
        fs::write(&path, browser.screenshot()).with_context(|| format!("cannot write {}", path.display()))?;
        self.report.note(&format!("picture: {}", path.display()));
        Ok(())
    }

    fn check(&mut self, what: &str, expected: &str, seen: &str) -> Result<()> {
        self.interrupt.check()?;
        self.report.check(what, expected, seen);
        Ok(())
    }
}

impl Version {
    fn heading(self) -> &'static str {
        match self {
            Self::Live => "Today’s fruit",
            Self::Alice => "Autumn sale",
        }
    }

    fn basket(self) -> &'static str {
        match self {
            Self::Live => "live: empty",
            Self::Alice => "alice: empty",
        }
    }

    fn stock(self) -> &'static str {
        match self {
            Self::Live => "live: 12 kilos",
            Self::Alice => "alice: 12 kilos",
        }
    }
}

fn picture(lab: &Lab, shop: &Shop) -> String {
    let (client, node, dev) = (lab.client.v4, lab.node.v4, lab.dev.v4);
    let (frontend, pod) = (shop.frontend_host.v4, lab.pod.v4);
    format!(
        "

   A shop of three hops, none of which knows of redirector. Its frontend passes on the W3C headers of what it is asked
   (traceparent, tracestate, baggage), as apps with OpenTelemetry do, and no others.

   client {client}      node {node}                          frontend {frontend}   pod {pod}
   Chromium ─────────────► redirector gateway ─► nginx, ingress ─► nginx ──────┬─► Node.js, backend
                                                                               │
                                                                      the link │   dev {dev}
                                                                               └─► Node.js, alice's backend
"
    )
}

fn said_to_have_ended(title: &str) -> &str {
    if title == "This preview has ended" { "has ended" } else { title }
}

/// An id is long, and told to nobody but who is to have it.
fn shortened(url: &str) -> String {
    url.split_once("/_p/").map_or_else(|| url.to_owned(), |(site, _)| format!("{site}/_p/…"))
}
