//! `redirector observe`: has an agent remember the requests of a port, for `redirector trace`, until told to stop.

use super::{
    connection::ConnectionArgs,
    matcher_args::MatcherArgs,
    output::{block_on, path_segment},
    owner::owner,
};
use crate::{
    api::{CreateIntercept, Created, Datapath, WhenAway},
    client::{ApiAddress, CallError},
    context::InterceptKey,
    stop_signal::stop_signal,
    target::Target,
};
use anyhow::Result;
use clap::Args;
use http::StatusCode;
use std::{process::ExitCode, time::Duration};
use tokio::{
    pin,
    time::{sleep, timeout},
};

/// An observer is renewed this often; the agent lets go of one that was not for three times as long.
const RENEWAL: Duration = Duration::from_secs(4);

/// How long the agent may take to let it go.
const FAREWELL: Duration = Duration::from_secs(3);

/// Have an agent remember the requests to a service, for `redirector trace`, until Ctrl-C
///
/// Nothing is intercepted: all requests reach the service. Observe the services on the way to the one that you
/// intercept, each in a terminal of its own or in the background; then make a request, and run `redirector trace`. Of
/// requests the agent keeps, in memory: time, client, method, path without query, status, the ids in traceparent, which
/// headers were there, and hashes of contexts. Without flags that say which context, the keys of intercepts are looked
/// for. Requests inside TLS are not seen, unless an intercept of the port has the certificate. Ready when it prints a
/// line with "ready".
#[derive(Args, Debug)]
pub struct ObserveCommand {
    /// What to observe: netns:NAME-or-path, pid:N or container:ID; `redirector targets` shows what there is
    target: Target,

    /// The port of the service in the target
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,

    /// A name for the observer [default: made up]
    #[arg(long)]
    name: Option<String>,

    /// How requests are seen. "auto" and "proxy" have new connections pass through the agent, so that requests are seen
    /// which should have a context and have none: it takes them to tell which hop dropped it. With "inspect" connections
    /// stay with the service, and requests without a context cost nothing and are not seen. "auto" sees the requests with
    /// a context on connections that exist already, too
    #[arg(long, value_enum, default_value_t)]
    datapath: Datapath,

    #[command(flatten)]
    matcher: MatcherArgs,

    #[command(flatten)]
    connection: ConnectionArgs,
}

impl ObserveCommand {
    pub fn run(self) -> Result<ExitCode> {
        let agent = self.connection.address()?;
        let request = CreateIntercept {
            name: self.name,
            target: self.target,
            port: self.port,
            matcher: self.matcher.observed()?,
            when_away: WhenAway::Live,
            datapath: self.datapath,
            close_existing: false,
            observe: true,
            owner: owner(),
            instance: InterceptKey::random()?.to_string(),
            to: String::new(),
            tls: Vec::new(),
        };
        block_on(observe(&agent, request))
    }
}

async fn observe(agent: &ApiAddress, mut request: CreateIntercept) -> Result<ExitCode> {
    let stopped = stop_signal();
    pin!(stopped);
    let created: Created = agent.post("/v1/intercepts", &request).await?;
    let name = created.intercept.name;
    request.name = Some(name.clone());
    for warning in &created.warnings {
        eprintln!("warning: {warning}");
    }
    println!("{name}: observing {} port {}, ready", request.target, request.port);
    tokio::select! {
        error = renew(agent, &request) => Err(error.into()),
        () = &mut stopped => {
            let path = format!("/v1/intercepts/{}", path_segment(&name));
            if let Ok(Err(error)) = timeout(FAREWELL, agent.delete(&path)).await {
                eprintln!("redirector: the observer stays for a while: {error}");
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Until that can't be any more; gives why.
async fn renew(agent: &ApiAddress, request: &CreateIntercept) -> CallError {
    loop {
        sleep(RENEWAL).await;
        match agent.post::<Created>("/v1/intercepts", request).await {
            Ok(_) => {}
            // A target may come back, too: pods restart.
            Err(error) if error.is_passing() => tracing::debug!(%error, "not renewed"),
            Err(CallError::Refused { status: StatusCode::NOT_FOUND, .. }) => {}
            Err(error) => return error,
        }
    }
}
