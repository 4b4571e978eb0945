//! From a link to the developer's machine: gateway, nginx as ingress, the agent in the pod, the tunnel.

use lab::{
    Agent, App, CommandOutput, Developer, Gateway, GatewayOptions, Lab, Nginx, WebSockets, eventually,
    eventually_some, redirector_binary, websocket_dialog,
};
use serde_json::Value;

use crate::{
    gateway::{INGRESS, KEY, visit},
    scene::{ALICE, LOCAL, PORT, for_alice, in_lab, text, who_answers},
};

/// Both echo apps, the agent on the node, nginx in front of the pod, and the gateway, which may ask the agent.
struct Chain {
    gateway: Gateway,
    agent: Agent,
    _ingress: Nginx,
    _alice_app: App,
    _app: App,
}

impl Chain {
    fn new(lab: &Lab, arguments: &[&str]) -> Self {
        let app = App::echo(lab, &lab.pod, "app", &[PORT]);
        let alice_app = App::echo(lab, &lab.dev, "alice", &[LOCAL]);
        Self::with(lab, app, alice_app, arguments)
    }

    fn with(lab: &Lab, app: App, alice_app: App, arguments: &[&str]) -> Self {
        let agent = Agent::start(lab);
        let ingress = Nginx::ingress(lab, &lab.node, INGRESS, lab.pod.at(PORT));
        let (address, token) = (agent.address().to_string(), agent.token_file().display().to_string());
        let asks = ["--agent", &address, "--agent-token-file", &token];
        let options = GatewayOptions::new(lab.node.at(INGRESS)).with(&asks).with(arguments);
        let gateway = Gateway::start(lab, &options);
        Self { gateway, agent, _ingress: ingress, _alice_app: alice_app, _app: app }
    }

    /// `redirector intercept … --preview`, ready; and its link.
    fn intercept_with_preview(&self, lab: &Lab) -> (Developer, String) {
        let arguments =
            ["--preview".to_owned(), "--qr".to_owned()].into_iter().chain(self.gateway.connection());
        let intercept =
            arguments.fold(for_alice(lab, &self.agent), |intercept, one| intercept.argument(&one));
        let mut developer = intercept.start(lab);
        let line = developer.wait_for_line("preview: ");
        let link = line.split("preview: ").nth(1).expect("a link").trim().to_owned();
        (developer, link)
    }

    /// Opens a share link on shop.test; gives the cookie.
    fn open(&self, lab: &Lab, link: &str) -> String {
        let path = &link[link.find("/_p/").expect("a share link")..];
        let opened = visit(&lab.client, &self.gateway, &format!("http://shop.test{path}"), &[], &[]);
        assert_eq!(opened.status, 303, "{opened:?}");
        opened.cookie()
    }

    fn whoami(&self, lab: &Lab, headers: &[&str]) -> (u16, String) {
        let seen = visit(&lab.client, &self.gateway, "http://shop.test/whoami", &[], headers);
        let report: Value = serde_json::from_str(&seen.body).unwrap_or_default();
        (seen.status, report["served_by"].as_str().unwrap_or(&seen.body).to_owned())
    }
}

#[test]
fn intercept_with_preview_prints_a_link_that_shows_the_developers_version_until_it_ends() {
    in_lab(|lab| {
        let chain = Chain::new(lab, &[]);
        let (alice, link) = chain.intercept_with_preview(lab);
        assert!(alice.lines().iter().any(|line| line.contains('█')), "--qr");
        assert!(alice.log().lines(lab::Stream::Stderr).iter().all(|line| !line.contains("warning")));
        let cookie = chain.open(lab, &link);
        assert_eq!(chain.whoami(lab, &[&cookie]), (200, "alice".to_owned()));
        assert_eq!(chain.whoami(lab, &[]), (200, "app".to_owned()), "without the link the live version");
        let list = chain.gateway.list(&lab.dev);
        assert_eq!(
            (text(&list[0], "name"), list[0]["developer_there"].as_bool()),
            ("alice".to_owned(), Some(true))
        );

        assert!(alice.interrupt().success());
        assert_eq!(chain.gateway.list(&lab.dev).len(), 0, "the preview ends with the intercept");
        let (status, page) = chain.whoami(lab, &[&cookie]);
        assert!(status == 410 && page.contains("has ended"), "{page}");
    });
}

#[test]
fn nobody_enters_an_intercept_from_outside() {
    in_lab(|lab| {
        let chain = Chain::new(lab, &[]);
        let (_alice, link) = chain.intercept_with_preview(lab);
        let cookie = chain.open(lab, &link);
        // Inside the cluster the header works, and through the gateway it does not.
        assert_eq!(who_answers(lab, ALICE), "alice");
        for header in [ALICE, "X-DEV: alice", "x_dev: alice"] {
            assert_eq!(chain.whoami(lab, &[header]), (200, "app".to_owned()), "{header}");
        }
        assert_eq!(chain.whoami(lab, &[&cookie, "x-dev: bob"]), (200, "alice".to_owned()));
    });
}

#[test]
fn visitors_are_told_when_the_developer_is_away() {
    in_lab(|lab| {
        let chain = Chain::new(lab, &[]);
        let alice = for_alice(lab, &chain.agent).start(lab);
        let create = |arguments: &[&str]| {
            let mut command = lab.dev.netns.command(&redirector_binary().to_string_lossy());
            command.args(["preview", "create", "alice", "--output", "json"]).args(arguments);
            command.args(chain.gateway.connection());
            command.args(["--agent", &chain.agent.address().to_string()]);
            let output = CommandOutput::of(command.arg("--token-file").arg(chain.agent.token_file()));
            assert!(output.code == Some(0) && output.stderr.is_empty(), "{output:?}");
            text(&output.json(), "share_link")
        };
        let page = chain.open(lab, &create(&[]));
        let live = chain.open(lab, &create(&["--when-away", "live"]));
        for cookie in [&page, &live] {
            assert_eq!(chain.whoami(lab, &[cookie]), (200, "alice".to_owned()));
        }
        drop(alice);
        let told = eventually_some("the visitor is told", || {
            let (status, body) = chain.whoami(lab, &[&page]);
            (status == 503).then_some(body)
        });
        assert!(told.contains("The developer is away") && told.contains("machine of"), "{told}");
        assert_eq!(chain.whoami(lab, &[&live]), (200, "app".to_owned()), "as asked for");

        let _alice = for_alice(lab, &chain.agent).start(lab);
        eventually("the developer's version is back", || {
            chain.whoami(lab, &[&page]) == (200, "alice".to_owned())
        });
    });
}

#[test]
fn an_agent_that_is_gone_has_no_developers() {
    in_lab(|lab| {
        let Chain { gateway, agent, _ingress, _alice_app, _app } = Chain::new(lab, &[]);
        let created = gateway.create(&lab.dev, &["--key", KEY]);
        assert_eq!(created["preview"]["developer_there"], false);
        assert!(created["warnings"].to_string().contains("visitors see a page"), "{created}");
        drop(agent);
        let link = text(&created, "share_link");
        let path = &link[link.find("/_p/").expect("a path")..];
        let cookie = visit(&lab.client, &gateway, &format!("http://shop.test{path}"), &[], &[]).cookie();
        assert_eq!(visit(&lab.client, &gateway, "http://shop.test/", &[], &[&cookie]).status, 503);
        assert_eq!(visit(&lab.client, &gateway, "http://shop.test/", &[], &[]).status, 200);
    });
}

#[test]
fn an_intercept_that_no_link_can_lead_to_is_refused_and_says_why() {
    in_lab(|lab| {
        let chain = Chain::new(lab, &[]);
        let arguments: Vec<String> = ["--preview", "--header-regex", "x-dev=al.*"]
            .into_iter()
            .map(str::to_owned)
            .chain(chain.gateway.connection())
            .collect();
        let intercept = lab::Intercept::new(lab, &chain.agent, PORT, LOCAL);
        let refusal = arguments.iter().fold(intercept, |intercept, one| intercept.argument(one)).refused();
        assert!(refusal.stderr.contains("nobody can tell which value"), "{refusal:?}");
        assert_eq!(chain.agent.list().len(), 0, "no intercept stays without its preview");
        let none = chain.gateway.preview(&lab.dev, &["create", "alice", "--agent", &chain.agent.socket()]);
        assert!(none.code == Some(1) && none.stderr.contains("no intercept \"alice\""), "{none:?}");
    });
}

#[test]
fn a_preview_that_a_killed_command_left_is_taken_over() {
    in_lab(|lab| {
        let chain = Chain::new(lab, &[]);
        let (alice, link) = chain.intercept_with_preview(lab);
        alice.kill();
        assert_eq!(chain.agent.run(&["remove", "alice"]).code, Some(0));
        assert_eq!(chain.gateway.list(&lab.dev).len(), 1);
        let (_alice, new) = chain.intercept_with_preview(lab);
        assert_ne!(new, link);
        assert_eq!(chain.gateway.list(&lab.dev).len(), 1);
        let cookie = chain.open(lab, &new);
        assert_eq!(chain.whoami(lab, &[&cookie]), (200, "alice".to_owned()));
    });
}

#[test]
fn websockets_reach_the_developer_and_end_with_the_preview() {
    in_lab(|lab| {
        let app = App::websocket(lab, &lab.pod, WebSockets::Python, "app", &[PORT]);
        let alice_app = App::websocket(lab, &lab.dev, WebSockets::Python, "alice", &[LOCAL]);
        let chain = Chain::with(lab, app, alice_app, &[]);
        let (_alice, link) = chain.intercept_with_preview(lab);
        let cookie = chain.open(lab, &link);
        let url = format!("ws://{}/socket", chain.gateway.address());
        for by in WebSockets::BOTH {
            for (headers, name) in [(&[&*cookie][..], "alice"), (&[], "app")] {
                let dialog = websocket_dialog(lab, &lab.client, by, &url, headers).json();
                assert_eq!(dialog["texts"][19], format!("{name}: message 19"), "{by:?}");
                assert_eq!(dialog["large_same"], true);
            }
        }
        // One that stays open is cut when the preview goes.
        let mut socket = lab.client.connect(chain.gateway.address());
        socket.send(format!(
            "GET /socket HTTP/1.1\r\nHost: shop.test\r\n{cookie}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        ));
        assert_eq!(socket.response("GET").status, 101);
        assert_eq!(chain.gateway.preview(&lab.dev, &["remove", "alice"]).code, Some(0));
        let rest = socket.try_rest();
        assert!(rest.is_ok() || rest.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset));
    });
}
