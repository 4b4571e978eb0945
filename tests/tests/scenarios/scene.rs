//! What most tests start from: an app, a developer's server, an agent and an intercept.

use std::{
    net::SocketAddr,
    sync::{PoisonError, RwLock},
    thread,
};

use lab::{
    Agent, AgentOptions, App, Connection, Curl, Developer, Family, Host, Intercept, Lab, Response, datapaths,
    eventually,
};
use serde_json::Value;

/// Where the app is intercepted, and where the very same app is not: what both say must be the same.
pub const PORT: u16 = 8080;
pub const DIRECT: u16 = 8081;
/// Where the developer's server listens.
pub const LOCAL: u16 = 3000;

/// The context of alice's intercept, as a header.
pub const ALICE: &str = "x-dev: alice";

/// Tests that look at what is shared by the whole machine run without the others.
static MACHINE: RwLock<()> = RwLock::new(());

/// Builds a lab, runs `body`, and checks that nothing is left in the lab.
pub fn in_lab(body: impl FnOnce(&mut Lab)) {
    let _shared = MACHINE.read().unwrap_or_else(PoisonError::into_inner);
    in_new_lab(body);
}

/// The same while no other test runs.
pub fn alone_in_lab(body: impl FnOnce(&mut Lab)) {
    let _exclusive = MACHINE.write().unwrap_or_else(PoisonError::into_inner);
    in_new_lab(body);
}

fn in_new_lab(body: impl FnOnce(&mut Lab)) {
    let mut lab = Lab::new(thread::current().name().unwrap_or_default());
    body(&mut lab);
    lab.assert_clean();
}

/// Runs `body` with the echo app intercepted for alice; checks afterwards that nothing is left.
pub fn intercepted(body: impl FnOnce(&Scene<'_>)) {
    in_lab(|lab| body(&Scene::new(lab)));
}

/// The same with each way of getting at requests: through the agent, and in place.
pub fn intercepted_by_each_datapath(body: impl Fn(&Scene<'_>)) {
    for datapath in datapaths(&["proxy", "inspect"]) {
        intercepted_by(datapath, &body);
    }
}

/// The same with one of them.
pub fn intercepted_by(datapath: &str, body: impl FnOnce(&Scene<'_>)) {
    in_lab(|lab| body(&Scene::with_datapath(lab, datapath)));
}

/// Two routes a request can take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Without the context: to the app.
    Live,
    /// With alice's context: to her machine.
    Alice,
}

impl Route {
    pub const BOTH: [Self; 2] = [Self::Live, Self::Alice];

    /// The name of the server at its end.
    pub fn server(self) -> &'static str {
        match self {
            Self::Live => "app",
            Self::Alice => "alice",
        }
    }

    /// The header that makes a request take it. (Both have one, of the same length.)
    pub fn header(self) -> &'static str {
        match self {
            Self::Live => "x-dev: nobod",
            Self::Alice => ALICE,
        }
    }

    /// A request without a body. `path` may be any target.
    pub fn get(self, path: &str) -> Vec<u8> {
        self.request("GET", path, "", "")
    }

    /// A request; `fields` are header lines with their line ends.
    pub fn request(self, method: &str, path: &str, fields: &str, body: &str) -> Vec<u8> {
        let header = self.header();
        format!("{method} {path} HTTP/1.1\r\nHost: pod.test\r\n{header}\r\n{fields}\r\n{body}").into_bytes()
    }
}

/// The echo app in the pod, alice's echo app on her machine, the agent, and alice's intercept.
/// (Fields are dropped in this order.)
pub struct Scene<'a> {
    pub alice: Developer,
    pub agent: Agent,
    pub alice_app: App,
    pub app: App,
    pub lab: &'a Lab,
}

impl<'a> Scene<'a> {
    pub fn new(lab: &'a Lab) -> Self {
        Self::with_agent(lab, &AgentOptions::default())
    }

    pub fn with_agent(lab: &'a Lab, options: &AgentOptions) -> Self {
        Self::with(lab, options, "auto")
    }

    pub fn with_datapath(lab: &'a Lab, datapath: &str) -> Self {
        Self::with(lab, &AgentOptions::default(), datapath)
    }

    fn with(lab: &'a Lab, options: &AgentOptions, datapath: &str) -> Self {
        let app = App::echo(lab, &lab.pod, "app", &[PORT, DIRECT]);
        let alice_app = App::echo(lab, &lab.dev, "alice", &[LOCAL]);
        let agent = Agent::start_with(lab, options);
        let alice = for_alice(lab, &agent).argument("--datapath").argument(datapath).start(lab);
        Self { alice, agent, alice_app, app, lab }
    }

    /// A connection of the client to the intercepted port.
    pub fn connect(&self) -> Connection {
        self.lab.client.connect(self.lab.pod.at(PORT))
    }

    /// A connection to the server at the end of a route, which passes nothing on the way.
    pub fn connect_directly(&self, route: Route) -> Connection {
        match route {
            Route::Live => self.lab.client.connect(self.lab.pod.at(DIRECT)),
            Route::Alice => self.lab.dev.connect(SocketAddr::from(([127, 0, 0, 1], LOCAL))),
        }
    }

    /// Does the same on a direct connection and on an intercepted one, on both routes, and asserts that the outcome is
    /// the same.
    #[track_caller]
    pub fn same_as_direct<T: PartialEq + std::fmt::Debug>(
        &self,
        exchange: impl Fn(&mut Connection, Route) -> T,
    ) {
        for route in Route::BOTH {
            let direct = exchange(&mut self.connect_directly(route), route);
            let through = exchange(&mut self.connect(), route);
            assert_eq!(through, direct, "{route:?}");
        }
    }

    /// Asserts that the agent routes: a test of what is *not* routed proves nothing without it.
    #[track_caller]
    pub fn assert_routing(&self) {
        assert_routing(self.lab);
    }
}

/// Alice's intercept of the echo app, not yet started.
pub fn for_alice(lab: &Lab, agent: &Agent) -> Intercept {
    Intercept::new(lab, agent, PORT, LOCAL).header("x-dev", "alice").name("alice")
}

/// Who answers a new connection of the client with this header.
#[track_caller]
pub fn who_answers(lab: &Lab, header: &str) -> String {
    served_by(&ask_whoami(&lab.client, lab.pod.at(PORT), header))
}

/// `/whoami` on a new connection.
#[track_caller]
pub fn ask_whoami(from: &Host, to: SocketAddr, header: &str) -> Response {
    from.connect(to).ask(format!("GET /whoami HTTP/1.1\r\nHost: pod.test\r\n{header}\r\n\r\n"))
}

/// Who answers curl's request to the intercepted port; `arguments` may be any of curl's, `path` has the query.
#[track_caller]
pub fn who_answers_curl(lab: &Lab, arguments: &[&str], path: &str) -> String {
    let url = format!("http://{}{path}", lab.pod.at(PORT));
    let answer = Curl::on(&lab.client).request(&url, arguments, &[]).answer();
    let report: Value = serde_json::from_str(&answer.body).expect("a report");
    text(&report, "served_by")
}

/// The server that signed a report.
#[track_caller]
pub fn served_by(response: &Response) -> String {
    text(&response.json(), "served_by")
}

/// A field of a report.
#[track_caller]
pub fn text(report: &Value, field: &str) -> String {
    report[field].as_str().unwrap_or_else(|| panic!("no text {field:?} in {report}")).to_owned()
}

/// Waits until the agent carries an open connection of a client to the app: what goes past the agent proves nothing
/// about it.
#[track_caller]
pub fn assert_carried(lab: &Lab) {
    assert_all_carried(lab, 1);
}

/// The same for several connections that are open at once.
#[track_caller]
pub fn assert_all_carried(lab: &Lab, count: usize) {
    let what = format!("the agent carries {count} connections to the app");
    eventually(&what, || lab.connections_inside_pod(PORT) >= count);
}

/// Asserts that requests with alice's context reach her and others the app.
#[track_caller]
pub fn assert_routing(lab: &Lab) {
    for family in Family::BOTH {
        let to = SocketAddr::new(lab.pod.ip(family), PORT);
        for route in Route::BOTH {
            let answer = Curl::on(&lab.client).get(to, "/whoami", &[route.header()]).answer();
            let report: Value = serde_json::from_str(&answer.body).expect("a report");
            assert_eq!(text(&report, "served_by"), route.server(), "{family:?} {route:?}");
        }
    }
}

/// Waits until new connections with this header are answered by `server`. Connections may fail on the way.
#[track_caller]
pub fn eventually_answers(lab: &Lab, header: &str, server: &str) {
    let to = lab.pod.at(PORT);
    eventually(&format!("{server} answers {header:?}"), || {
        let curl = Curl::on(&lab.client);
        let curl = curl.request(&format!("http://{to}/whoami"), &["--max-time", "2"], &[header]).output();
        curl.code == Some(0) && curl.stdout.contains(&format!("\"served_by\": \"{server}\""))
    });
}
