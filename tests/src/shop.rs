//! A shop of three hops, none of which knows of redirector: an ingress, a frontend that puts its page together from what a
//! backend says, and that backend.
//!
//! ```text
//!   node: nginx ──► frontend: nginx ──► pod: Node.js
//! ```
//!
//! A developer has a version of the backend of their own, [`Shop::developers_backend`], that makes the frontend's page
//! look different.

use std::{fs, net::SocketAddr};

use crate::{
    apps::{App, Nginx, node},
    lab::{Host, Lab},
    process::Process,
};

/// Which headers of its requests a frontend passes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forwards {
    /// Trace Context and Baggage, as an app with OpenTelemetry does: no header of anybody's own.
    W3c,
    /// The ids of traces, as an app does that is traced and knows nothing of baggage.
    TraceIds,
    /// No context at all.
    Nothing,
}

/// The live shop. Dropping it ends its servers.
#[derive(Debug)]
pub struct Shop {
    ingress: Nginx,
    frontend: Nginx,
    backend: App,
    /// The frontend's machine, which is added to the lab.
    pub frontend_host: Host,
    /// Where the ingress listens.
    pub address: SocketAddr,
}

impl Shop {
    /// Where the ingress listens, on the node.
    pub const INGRESS: u16 = 8001;
    /// Where frontend and backend listen, on their machines.
    pub const PORT: u16 = 8080;
    /// Where the developer's backend listens.
    pub const LOCAL: u16 = 3000;

    #[must_use]
    pub fn open(lab: &mut Lab, forwards: Forwards) -> Self {
        let frontend_host = lab.add_machine("frontend");
        let backend = backend(lab, &lab.pod, "live", Self::PORT, "live");
        let frontend =
            Nginx::with(lab, &frontend_host, &[Self::PORT], &frontend(lab.pod.at(Self::PORT), forwards));
        for (name, text) in [
            ("index.html", include_str!("shop/index.html")),
            ("page.js", include_str!("shop/page.js")),
            ("style.css", include_str!("shop/style.css")),
        ] {
            fs::write(frontend.root().join(name), text).expect("a file of the frontend");
        }
        let ingress = Nginx::ingress(lab, &lab.node, Self::INGRESS, frontend_host.at(Self::PORT));
        Self { ingress, frontend, backend, frontend_host, address: lab.node.at(Self::INGRESS) }
    }

    /// Another version of the backend, on the developer's machine, which signs with `name`.
    #[must_use]
    pub fn developers_backend(lab: &Lab, name: &str) -> App {
        backend(lab, &lab.dev, name, Self::LOCAL, "sale")
    }

    #[must_use]
    pub fn ingress(&self) -> &Nginx {
        &self.ingress
    }

    #[must_use]
    pub fn frontend(&self) -> &Nginx {
        &self.frontend
    }

    #[must_use]
    pub fn backend(&self) -> &App {
        &self.backend
    }
}

/// `shop/backend.js`, which signs with `name`; its version is `live` or `sale`.
fn backend(lab: &Lab, host: &Host, name: &str, port: u16, version: &str) -> App {
    let mut command = node(lab, &host.netns, "backend.js", include_str!("shop/backend.js"));
    command.args([name, &port.to_string(), version]);
    App::ready(Process::spawn(name, &mut command, lab.logs()))
}

/// The directives of a frontend: files of its own, with the backend's pieces put in (server-side includes), and the rest from the backend.
fn frontend(backend: SocketAddr, forwards: Forwards) -> String {
    // What a request must have to be understood; nginx sends no header whose value is empty.
    let mut names = vec![
        "Content-Type",
        "Cookie",
        "Upgrade",
        "Connection",
        "Sec-WebSocket-Key",
        "Sec-WebSocket-Version",
        "Sec-WebSocket-Extensions",
    ];
    match forwards {
        Forwards::W3c => names.extend(["traceparent", "tracestate", "baggage"]),
        Forwards::TraceIds => names.push("traceparent"),
        Forwards::Nothing => {}
    }
    let headers: String = names
        .into_iter()
        .map(|name| {
            let variable = name.to_ascii_lowercase().replace('-', "_");
            format!("proxy_set_header {name} $http_{variable};\n")
        })
        .collect();
    format!(
        "ssi on; types {{ text/html html; text/css css; text/javascript js; }}
         location ~ ^/(parts|api)/|^/socket$ {{
           proxy_pass http://{backend}; proxy_http_version 1.1; proxy_pass_request_headers off;
           proxy_set_header Host $http_host;
           {headers}
         }}"
    )
}
