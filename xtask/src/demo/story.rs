//! What the demo shows, step by step.

use std::{
    collections::BTreeSet,
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use lab::{Agent, Developer, Intercept, Lab, Nginx};

use super::{
    client::{self, CONDITION, Context},
    interrupt::Interrupt,
    report::Report,
    stage::{self, DEVELOPER, LOCAL, NGINX, PORT},
};

/// How long something may take to come about when it can't be there at once.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(50);

/// Requests on the one connection of [`Story::one_connection`].
const IN_TURN: usize = 6;

const NOTHING: &str = "nothing";
const PROGRAMS: &str = "programs";

pub struct Story<'a> {
    lab: &'a Lab,
    report: &'a mut Report,
    interrupt: &'a Interrupt,
    /// Where the client sends its requests.
    url: String,
    /// Requests that nginx has answered to the client, and requests that went to the developer.
    live: usize,
    intercepted: usize,
}

impl<'a> Story<'a> {
    pub fn new(lab: &'a Lab, report: &'a mut Report, interrupt: &'a Interrupt) -> Self {
        let url = format!("http://{}/", lab.pod.at(PORT));
        Self { lab, report, interrupt, url, live: 0, intercepted: 0 }
    }

    /// Ends early when it is interrupted. What it started has ended when it returns.
    pub fn tell(mut self) -> Result<()> {
        println!("{}", stage::picture(self.lab));
        let nginx = stage::start_nginx(self.lab)?;
        let _local_server = stage::start_local_server(self.lab)?;
        self.nginx_alone()?;
        let agent = Agent::start(self.lab);
        let developer = self.an_intercept(&agent)?;
        self.one_connection()?;
        self.on_the_screens(&nginx, &developer)?;
        let developer = self.developer_leaves(&agent, developer)?;
        self.agent_is_killed(agent, developer)
    }

    fn nginx_alone(&mut self) -> Result<()> {
        self.report.step("Without an intercept, nginx answers everybody");
        for context in Context::BOTH {
            self.ask(context, NGINX)?;
        }
        self.check("attached to the pod", NOTHING, &attached(self.lab))
    }

    fn an_intercept(&mut self, agent: &Agent) -> Result<Developer> {
        self.report.step("A developer intercepts requests with the header");
        self.report.command("node", "redirector agent");
        let developer = self.intercept(agent);
        self.check("attached to the pod", PROGRAMS, &attached(self.lab))?;
        self.ask(Context::Without, NGINX)?;
        self.ask(Context::With, DEVELOPER)?;
        Ok(developer)
    }

    fn one_connection(&mut self) -> Result<()> {
        self.report.step("On one connection, each request goes its own way");
        let contexts: Vec<_> = Context::BOTH.into_iter().cycle().take(IN_TURN).collect();
        let url = self.url.clone();
        let shown = format!("{} --next … ({IN_TURN} requests)", client::shown(Context::Without, &url));
        self.report.command("client", &shown);
        let answers = match client::ask_in_turn(&self.lab.client, &contexts, &url) {
            Ok(answers) => answers,
            Err(error) => return self.check("curl", "answers", &error),
        };
        for (number, context) in contexts.iter().enumerate() {
            let what = format!("request {}, {}", number + 1, context.in_words());
            let seen = answers.get(number).map_or("no answer", |answer| &answer.body);
            self.check_answer(&what, answered_by(*context), seen)?;
        }
        let connects: u32 = answers.iter().map(|answer| answer.connects).sum();
        let ports: BTreeSet<_> = answers.iter().map(|answer| answer.port).collect();
        self.check("connections that curl opened", "1", &connects.to_string())?;
        self.check("ports it called from", "1", &ports.len().to_string())
    }

    fn on_the_screens(&mut self, nginx: &Nginx, developer: &Developer) -> Result<()> {
        self.report.step("nginx sees the real client, and live requests only");
        let clients = || -> Vec<String> {
            let requests = nginx.log().all().into_iter().filter(|line| line.contains(" 200 GET / "));
            requests.filter_map(|line| line.split(' ').nth(1).map(str::to_owned)).collect()
        };
        // What a process has printed arrives when it has been read from its pipe.
        self.check_soon("requests in nginx's access log", &self.live.to_string(), || {
            clients().len().to_string()
        })?;
        let addresses: BTreeSet<_> = clients().into_iter().collect();
        let addresses: Vec<_> = addresses.into_iter().collect();
        self.check("who asked, as the log has it", &self.lab.client.v4.to_string(), &addresses.join(" "))?;
        let routed =
            || developer.lines().into_iter().filter(|line| line.contains(" GET / 200 ")).collect::<Vec<_>>();
        self.check_soon("requests on the developer's screen", &self.intercepted.to_string(), || {
            routed().len().to_string()
        })?;
        if let Some(line) = routed().last() {
            self.report.note(&format!("such as: {line}"));
        }
        Ok(())
    }

    /// By Ctrl-C, then without a word; and is there again.
    fn developer_leaves(&mut self, agent: &Agent, developer: Developer) -> Result<Developer> {
        self.report.step("The developer leaves with Ctrl-C");
        let ended = developer.interrupt();
        self.check(
            "exit code of the intercept",
            "0",
            &ended.code().map_or("none".into(), |c| c.to_string()),
        )?;
        self.ask(Context::With, NGINX)?;
        let lab = self.lab;
        self.check_soon("attached to the pod", NOTHING, || attached(lab))?;

        self.report.step("The developer's end of the tunnel is killed (SIGKILL)");
        let developer = self.intercept(agent);
        self.ask(Context::With, DEVELOPER)?;
        self.report.command("dev", "pkill -KILL redirector");
        developer.kill();
        self.check_soon("the developer, as the agent has it", "away", || {
            if is_connected(agent) { "connected" } else { "away" }.to_owned()
        })?;
        self.ask(Context::With, NGINX)?;
        self.ask(Context::Without, NGINX)?;

        self.report.step("The developer is back");
        let developer = self.intercept(agent);
        self.ask(Context::With, DEVELOPER)?;
        self.ask(Context::Without, NGINX)?;
        Ok(developer)
    }

    fn agent_is_killed(&mut self, agent: Agent, mut developer: Developer) -> Result<()> {
        self.report.step("The agent is killed (SIGKILL)");
        let ends_with_agent = self.lab.attached().iter().any(|program| program.contains("TCX"));
        self.report.command("node", "pkill -KILL redirector");
        agent.kill();
        for context in Context::BOTH {
            self.ask(context, NGINX)?;
        }
        if ends_with_agent {
            self.check("attached to the pod", NOTHING, &attached(self.lab))?;
        } else {
            self.report
                .note("Attached with clsact, not TCX (Linux 6.6): the program stays until the next agent");
            self.report.note("removes it. Without a live agent it passes everything on, as just seen.");
        }
        self.check("ports with a listener in the pod", &PORT.to_string(), &listening(self.lab))?;

        self.report.step("The agent starts again, the intercept with it");
        self.report.command("node", "redirector agent");
        let agent = Agent::start(self.lab);
        developer.wait_for_line("ready again");
        self.ask(Context::With, DEVELOPER)?;
        self.ask(Context::Without, NGINX)?;
        // In this order: a developer whose agent has gone would wait for it.
        drop(developer);
        drop(agent);
        Ok(())
    }

    /// Starts alice's intercept and waits until it is ready.
    fn intercept(&self, agent: &Agent) -> Developer {
        let target = self.lab.pod.netns.target();
        self.report.command("dev", &format!("redirector intercept {target} --port {PORT} \\"));
        self.report.note(&format!(
            "       --to 127.0.0.1:{LOCAL} --header {CONDITION} --agent {} --token-file …",
            agent.address()
        ));
        Intercept::new(self.lab, agent, PORT, LOCAL).argument("--header").argument(CONDITION).start(self.lab)
    }

    /// One request of the client, on a new connection.
    fn ask(&mut self, context: Context, expected: &'static str) -> Result<()> {
        let seen = client::ask(&self.lab.client, context, &self.url);
        let shown = client::shown(context, &self.url);
        self.check_answer(&format!("client$ {shown}"), expected, &seen)
    }

    fn check_answer(&mut self, what: &str, expected: &'static str, seen: &str) -> Result<()> {
        match expected {
            NGINX => self.live += 1,
            _ => self.intercepted += 1,
        }
        self.check(what, expected, seen)
    }

    fn check(&mut self, what: &str, expected: &str, seen: &str) -> Result<()> {
        // Ctrl-C may have reached what was looked at.
        self.interrupt.check()?;
        self.report.check(what, expected, seen);
        Ok(())
    }

    /// A check of something that comes about by itself, but may take a moment.
    fn check_soon(&mut self, what: &str, expected: &str, see: impl Fn() -> String) -> Result<()> {
        let start = Instant::now();
        while see() != expected && start.elapsed() < PATIENCE {
            self.interrupt.check()?;
            thread::sleep(PAUSE);
        }
        self.check(what, expected, &see())
    }
}

/// Who answers while there is an intercept.
fn answered_by(context: Context) -> &'static str {
    match context {
        Context::Without => NGINX,
        Context::With => DEVELOPER,
    }
}

fn is_connected(agent: &Agent) -> bool {
    agent.list().iter().any(|intercept| intercept["connected"] == true)
}

/// BPF programs on the pod's devices.
fn attached(lab: &Lab) -> String {
    match &lab.attached()[..] {
        [] => NOTHING.to_owned(),
        // One for each direction, or only one where the kernel can't inspect.
        [_] | [_, _] => PROGRAMS.to_owned(),
        programs => programs.join("; "),
    }
}

/// The ports in the pod on which somebody listens.
fn listening(lab: &Lab) -> String {
    let sockets = lab.pod.netns.sh("ss -Hltn");
    let local = sockets.lines().filter_map(|line| line.split_whitespace().nth(3));
    let ports: BTreeSet<_> = local.filter_map(|address| address.rsplit(':').next()).collect();
    ports.into_iter().collect::<Vec<_>>().join(" ")
}
