//! `redirector intercept`: asks the agent for an intercept, is its tunnel, and stays until told to stop.

use super::{
    connection::ConnectionArgs,
    intercept_output::{Event, InterceptOutput, Route},
    intercept_preview::{InterceptPreview, InterceptPreviewArgs},
    matcher_args::MatcherArgs,
    output::{OutputArgs, block_on, path_segment},
    owner::owner,
    tls::TlsArgs,
};
use crate::{
    api::{CreateIntercept, Created, Datapath, InterceptInfo, WhenAway},
    client::{ApiAddress, CallError},
    context::InterceptKey,
    stop_signal::stop_signal,
    target::Target,
    tunnel::{
        backoff::{self, Backoff},
        developer_end::DeveloperEnd,
        local_server::LocalServer,
    },
};
use anyhow::Result;
use clap::Args;
use http::{Method, StatusCode};
use std::{
    process::ExitCode,
    time::{Duration, Instant},
};
use tokio::{
    pin,
    time::{sleep, timeout},
};

/// How long the agent may take to let an intercept go when we end.
const FAREWELL: Duration = Duration::from_secs(3);

/// A tunnel that held this long was a good one: the next failure is a new one.
const GOOD_TUNNEL: Duration = Duration::from_secs(10);

/// Take requests with your context to your machine, until Ctrl-C
///
/// With nothing said of which requests, the intercept gets a random key, and takes those that carry it in the header
/// x-redirector-intercept, in baggage or in tracestate. Ready when it prints a line with "ready"; then one line for
/// each request that came: time, method, path, status, duration, bytes and protocol.
///
/// With --output json each line is an object with `event` and `time`, for programs:
/// preview (name, link, share_link, expires); ready, ready_again (intercept, target, port, to, matches, curl);
/// request (method, path, protocol, status, duration_seconds, request_bytes, response_bytes, client, outcome, reason);
/// tunnel_lost (reason); warning (message); closed (count); removed (reason, unless it was Ctrl-C).
/// Errors are text on stderr.
#[derive(Args, Debug)]
pub struct InterceptCommand {
    /// What to intercept: netns:NAME-or-path, pid:N or container:ID; `redirector targets` shows what there is
    target: Target,

    /// The port of the service in the target
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,

    /// Your local server; https://HOST:PORT if it speaks TLS. Its certificate is verified by this system's roots, but
    /// not on localhost and loopback addresses, where certificates for development are issued by nobody
    #[arg(long, value_name = "HOST:PORT")]
    to: LocalServer,

    /// A name for the intercept [default: made up]
    #[arg(long, overrides_with = "name")]
    name: Option<String>,

    /// Who answers your requests while your machine is away: the live service, or an error
    #[arg(long, value_enum, default_value_t)]
    when_away: WhenAway,

    /// How requests are got at. "inspect" leaves all connections with the app, those that exist already too, and takes one
    /// over, without a reset, when a request on it may match: HTTP/1.x only. "proxy" has new connections pass through
    /// the agent, and leaves those that exist already with the app. "auto" is "inspect" once clients were seen to speak
    /// HTTP/1.x, and has new connections pass through the agent where inspection can't see all requests: on ports
    /// whose clients speak HTTP/2 or TLS, without a header to look for, on kernels before 6.6. `redirector status` says
    /// which it is, and why
    #[arg(long, value_enum, default_value_t)]
    datapath: Datapath,

    /// End the connections to the app that exist already and whose requests can't be seen, as a reset does: their
    /// clients make new ones, which are covered. Those that inspection covers are left alone; `redirector status` lists
    /// the others. On a port whose server speaks HTTP/2 (it is asked) idle ones count as HTTP/2
    #[arg(long)]
    close_existing: bool,

    #[command(flatten)]
    matcher: MatcherArgs,

    #[command(flatten)]
    tls: TlsArgs,

    #[command(flatten)]
    preview: InterceptPreviewArgs,

    #[command(flatten)]
    output: OutputArgs,

    #[command(flatten)]
    connection: ConnectionArgs,
}

impl InterceptCommand {
    pub fn run(self) -> Result<ExitCode> {
        let agent = self.connection.address()?;
        let preview = self.preview.preview()?;
        let request = CreateIntercept {
            name: self.name,
            target: self.target,
            port: self.port,
            matcher: self.matcher.matcher()?,
            when_away: self.when_away,
            datapath: self.datapath,
            close_existing: self.close_existing,
            observe: false,
            owner: owner(),
            instance: InterceptKey::random()?.to_string(),
            to: self.to.to_string(),
            tls: self.tls.pairs()?,
        };
        let output = InterceptOutput::new(self.output.output);
        block_on(Session { agent, to: self.to, request, preview, output }.run())
    }
}

/// One run of the command.
struct Session {
    agent: ApiAddress,
    to: LocalServer,
    request: CreateIntercept,
    preview: Option<InterceptPreview>,
    output: InterceptOutput,
}

impl Session {
    async fn run(mut self) -> Result<ExitCode> {
        let stopped = stop_signal();
        pin!(stopped);
        let created: Created = self.agent.post("/v1/intercepts", &self.request).await?;
        self.request.name = Some(created.intercept.name.clone());
        // Once: what is there when it comes back after a cut was not asked about.
        self.request.close_existing = false;
        for message in &created.warnings {
            self.output.print(&Event::Warning { message });
        }
        if let Some(count) = created.closed {
            self.output.print(&Event::Closed { count });
        }
        self.output.print(&Event::Created { route: self.route() });
        if let Some(preview) = &mut self.preview
            && let Err(error) = preview.create(&self.request, self.output).await
        {
            self.farewell().await;
            return Err(error.into());
        }
        tokio::select! {
            error = self.stay() => {
                if let Some(CallError::Refused { status: StatusCode::GONE, error }) = error.downcast_ref() {
                    self.output.print(&Event::Removed { reason: Some(error) });
                }
                eprintln!("redirector: {error:#}");
                self.remove_preview().await;
                Ok(ExitCode::FAILURE)
            }
            () = &mut stopped => {
                self.farewell().await;
                Ok(ExitCode::SUCCESS)
            }
        }
    }

    /// Is the tunnel, again and again, until it can't be any more. Returns why.
    async fn stay(&self) -> anyhow::Error {
        let mut backoff = Backoff::new();
        let mut greeted = false;
        loop {
            let started = Instant::now();
            let reason = match self.tunnel(greeted).await {
                Ok(reason) => {
                    greeted = true;
                    reason
                }
                // The agent has let the intercept go meanwhile: it is asked for again below.
                Err(error) if may_come_back(&error) => error.to_string(),
                Err(error) => return error.into(),
            };
            if started.elapsed() > GOOD_TUNNEL {
                backoff.reset();
            }
            self.output.print(&Event::TunnelLost { reason: &reason, when_away: self.request.when_away });
            loop {
                sleep(backoff.next_delay(backoff::random())).await;
                match self.agent.post::<Created>("/v1/intercepts", &self.request).await {
                    Ok(_) => break,
                    Err(error) if may_come_back(&error) => tracing::debug!(%error, "not back yet"),
                    Err(error) => return error.into(),
                }
            }
        }
    }

    /// One tunnel, from its start to its end.
    async fn tunnel(&self, again: bool) -> Result<String, CallError> {
        let io = self.agent.upgrade(&format!("{}/tunnel", self.path())).await?;
        let output = self.output;
        let serve = DeveloperEnd::new(self.to.clone())
            .serve(io, move |request| output.print(&Event::Request { request: &request }));
        pin!(serve);
        tokio::select! {
            reason = &mut serve => return Ok(reason.to_string()),
            () = self.connected() => {}
        }
        let route = self.route();
        self.output.print(&if again { Event::ReadyAgain { route } } else { Event::Ready { route } });
        Ok(serve.await.to_string())
    }

    /// Resolves when the agent sends our requests into the tunnel.
    async fn connected(&self) {
        let name = self.request.name.as_deref();
        let mut pause = Duration::from_millis(10);
        loop {
            let intercepts: Result<Vec<InterceptInfo>, _> =
                self.agent.call(Method::GET, "/v1/intercepts").await;
            if let Ok(intercepts) = intercepts
                && intercepts.iter().any(|intercept| Some(&*intercept.name) == name && intercept.connected)
            {
                return;
            }
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(1));
        }
    }

    async fn farewell(&self) {
        self.remove_preview().await;
        match timeout(FAREWELL, self.agent.delete(&self.path())).await {
            Ok(Ok(())) => self.output.print(&Event::Removed { reason: None }),
            // Gone already is what we want; else the agent lets it go after a while.
            Ok(Err(CallError::Refused { status: StatusCode::NOT_FOUND, .. })) => {}
            Ok(Err(error)) => eprintln!("redirector: the intercept stays for a while: {error}"),
            Err(_) => eprintln!("redirector: the intercept stays for a while: the agent does not answer"),
        }
    }

    async fn remove_preview(&self) {
        let Some(preview) = &self.preview else { return };
        match timeout(FAREWELL, preview.remove()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => eprintln!("redirector: the preview stays for a while: {error}"),
            Err(_) => eprintln!("redirector: the preview stays for a while: the gateway does not answer"),
        }
    }

    fn route(&self) -> Route<'_> {
        let CreateIntercept { name, target, port, matcher, to, tls, .. } = &self.request;
        let scheme = if tls.is_empty() { "http" } else { "https" };
        Route { intercept: name.as_deref().unwrap_or_default(), target, port: *port, to, matcher, scheme }
    }

    fn path(&self) -> String {
        format!("/v1/intercepts/{}", path_segment(self.request.name.as_deref().unwrap_or_default()))
    }
}

/// May the intercept be created again later? A target may come back too: pods restart.
fn may_come_back(error: &CallError) -> bool {
    error.is_passing() || matches!(error, CallError::Refused { status: StatusCode::NOT_FOUND, .. })
}
