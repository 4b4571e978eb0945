//! Servers and clients that speak HTTP/2 without TLS.

use std::{net::SocketAddr, process::Command};

use serde_json::Value;

use super::{App, PYTHON};
use crate::{
    agent::CommandOutput,
    lab::{Host, Lab},
    netns::Netns,
    process::Process,
};

const SERVER: &str = include_str!("http2_server.js");
const CLIENT: &str = include_str!("http2_client.js");
const UPGRADING: &str = include_str!("upgrading.py");

impl App {
    /// `apps/http2_server.js`: Node's HTTP/2 server; it reports in JSON what it was sent, and signs with `name`.
    #[must_use]
    pub fn http2(lab: &Lab, host: &Host, name: &str, ports: &[u16]) -> Self {
        let mut command = node(lab, &host.netns, "http2_server.js", SERVER);
        command.arg(name).args(ports.iter().map(u16::to_string));
        Self::ready(Process::spawn(name, &mut command, lab.logs()))
    }

    /// nghttpd, which serves the lab's directory in HTTP/2 only.
    #[must_use]
    pub fn nghttpd(lab: &Lab, host: &Host, ports: &[u16]) -> Vec<Self> {
        std::fs::write(lab.directory().join("index.html"), "hello\n").expect("write index.html");
        let start = |port: &u16| {
            let mut command = host.netns.command("nghttpd");
            command.args(["--no-tls", "--htdocs"]).arg(lab.directory()).arg(port.to_string());
            Self::listening(Process::spawn("nghttpd", &mut command, lab.logs()), host, *port)
        };
        ports.iter().map(start).collect()
    }

    /// nghttpx, which passes HTTP/2 on from one port of the host to another.
    #[must_use]
    pub fn nghttpx(lab: &Lab, host: &Host, port: u16, to: u16) -> Self {
        let mut command = host.netns.command("nghttpx");
        command.args(["--conf=/dev/null", "--workers=1", &format!("--frontend=*,{port};no-tls")]);
        command.arg(format!("--backend=127.0.0.1,{to};;proto=h2"));
        Self::listening(Process::spawn("nghttpx", &mut command, lab.logs()), host, port)
    }

    /// Hypercorn, which switches from HTTP/1.1 to HTTP/2 when asked; it answers `NAME PATH HTTP-VERSION`.
    #[must_use]
    pub fn upgrading(lab: &Lab, host: &Host, name: &str, port: u16) -> Self {
        let directory = lab.directory().join(format!("{name}-upgrading"));
        std::fs::create_dir_all(&directory).expect("a directory");
        std::fs::write(directory.join("upgrading.py"), UPGRADING).expect("write upgrading.py");
        let mut command = host.netns.command("env");
        command.arg(format!("PYTHONPATH={}", directory.display())).arg(format!("APP_NAME={name}"));
        command.args([PYTHON, "-m", "hypercorn", "--bind", &format!("0.0.0.0:{port}"), "upgrading:app"]);
        Self::listening(Process::spawn(name, &mut command, lab.logs()), host, port)
    }
}

/// What the client saw.
#[derive(Clone, Debug)]
pub struct Http2Answers(pub Value);

impl Http2Answers {
    /// The answer to the request with this number.
    #[must_use]
    pub fn answer(&self, number: usize) -> &Value {
        &self.0["answers"][number]
    }

    /// The answer's text, as JSON.
    #[track_caller]
    #[must_use]
    pub fn report(&self, number: usize) -> Value {
        let text = self.answer(number)["text"].as_str().unwrap_or_default();
        serde_json::from_str(text).unwrap_or_else(|error| panic!("no report ({error}): {}", self.0))
    }
}

/// Node's HTTP/2 client (`apps/http2_client.js`) on `host`, with one connection.
#[track_caller]
#[must_use]
pub fn http2_client(lab: &Lab, host: &Host, to: SocketAddr, plan: &Value) -> Http2Answers {
    let mut command = node(lab, &host.netns, "http2_client.js", CLIENT);
    let output = CommandOutput::of(command.arg(format!("http://{to}")).arg(plan.to_string()));
    assert_eq!(output.code, Some(0), "{output:?}");
    Http2Answers(output.json())
}

/// Requests in HTTP/2 as they are, right or wrong (`apps/http2_raw.py`): header fields and body. Gives for each the status
/// of its answer, or `reset` or `closed`.
#[track_caller]
#[must_use]
pub fn http2_raw(lab: &Lab, host: &Host, to: SocketAddr, requests: &Value) -> Vec<String> {
    let path = lab.directory().join("http2_raw.py");
    std::fs::write(&path, include_str!("http2_raw.py")).expect("write http2_raw.py");
    let mut command = host.netns.command(PYTHON);
    command.arg(path).args([to.ip().to_string(), to.port().to_string(), requests.to_string()]);
    let output = CommandOutput::of(&mut command);
    assert_eq!(output.code, Some(0), "{output:?}");
    serde_json::from_value(output.json()).expect("a list of texts")
}

fn node(lab: &Lab, netns: &Netns, name: &str, text: &str) -> Command {
    let path = lab.directory().join(name);
    std::fs::write(&path, text).unwrap_or_else(|error| panic!("write {name}: {error}"));
    let mut command = netns.command("/usr/bin/node");
    command.arg(path);
    command
}
