//! gRPC, by its own library on both ends.

use std::{fs, process::Command};

use serde_json::Value;

use super::App;
use crate::{
    agent::CommandOutput,
    lab::{Host, Lab},
    netns::Netns,
    process::Process,
    tools,
};

const PROTO: &str = include_str!("lab_proto.py");
const SERVER: &str = include_str!("grpc_server.py");
const CLIENT: &str = include_str!("grpc_client.py");

impl App {
    /// `apps/grpc_server.py`: all four kinds of calls, reflection, statuses with details; signs with `name`.
    #[must_use]
    pub fn grpc(lab: &Lab, host: &Host, name: &str, ports: &[u16]) -> Self {
        let mut command = python(lab, &host.netns, "grpc_server.py", SERVER);
        command.arg(name).args(ports.iter().map(u16::to_string));
        Self::ready(Process::spawn(name, &mut command, lab.logs()))
    }
}

/// `apps/grpc_client.py ADDRESS ARGUMENTS` on `host`: the first argument is metadata, `KEY=VALUE`.
#[track_caller]
#[must_use]
pub fn grpc_client(lab: &Lab, host: &Host, address: &str, arguments: &[&str]) -> Value {
    let mut command = python(lab, &host.netns, "grpc_client.py", CLIENT);
    let output = CommandOutput::of(command.arg(address).args(arguments));
    assert_eq!(output.code, Some(0), "{output:?}");
    output.json()
}

fn python(lab: &Lab, netns: &Netns, name: &str, text: &str) -> Command {
    for (name, text) in [("lab_proto.py", PROTO), (name, text)] {
        fs::write(lab.directory().join(name), text).unwrap_or_else(|error| panic!("write {name}: {error}"));
    }
    let mut command = netns.command(&tools::grpc_python().to_string_lossy());
    command.arg("-u").arg(lab.directory().join(name));
    command
}
