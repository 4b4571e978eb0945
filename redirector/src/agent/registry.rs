//! The intercepts of the node: who has which, on what, and whether their tunnel is there.

use super::{
    admission::{admit, made_up_name},
    entry::Entry,
    ledger::{Ledger, Totals},
    registry_error::RegistryError,
    registry_state::{Host, State},
    steering::Choice,
    target_host::{HostOptions, TargetHost},
    tls_keys,
    warden_command::PortError,
};
use crate::{
    api::{CreateIntercept, Created, Datapath, InterceptInfo, Status},
    api_server::Caller,
    engine::{Intercept, InterceptStats, Routes},
    target::{Target, netns::NetnsId, resolve::resolve},
    trace::log::RequestLog,
    tunnel::{agent_end::Tunnel, token::TokenId},
};
use jiff::Timestamp;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex as StdMutex, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};
use tokio::{
    sync::Mutex,
    time::{sleep, timeout},
};

/// How many removed intercepts are remembered, so that their developers learn that they are not to come back.
const REMEMBERED: usize = 1024;

/// More than any node has; every request is compared with all of its port.
const MAX_INTERCEPTS: usize = 1024;

/// How long an observer stays that is not renewed. Its command does that every 4 s.
const LEASE: Duration = Duration::from_secs(12);

/// How long the targets' threads have to add what was counted in the kernel.
const BOOKING: Duration = Duration::from_secs(2);

/// All intercepts and targets of this agent.
pub struct Registry {
    options: HostOptions,
    /// How long an intercept waits for its developer to come back.
    grace: Duration,
    /// May an intercept take everybody's requests?
    allow_all: bool,
    started: Instant,
    client_address_reason: Option<String>,
    ledger: Ledger,
    state: Mutex<State>,
    threads: StdMutex<Vec<JoinHandle<()>>>,
}

/// Whether the tunnel of an intercept is there.
#[derive(Debug)]
pub struct TunnelState {
    /// The name by which the target was first intercepted.
    pub target: Target,
    pub port: u16,
    pub name: String,
    pub up: bool,
}

impl Registry {
    pub fn new(
        options: HostOptions,
        grace: Duration,
        allow_all: bool,
        client_address_reason: Option<String>,
    ) -> Arc<Self> {
        Arc::new(Self {
            options,
            grace,
            allow_all,
            started: Instant::now(),
            client_address_reason,
            ledger: Ledger::default(),
            state: Mutex::default(),
            threads: StdMutex::default(),
        })
    }

    /// Creates an intercept, or finds the one that the same process has created before.
    pub async fn create(
        self: &Arc<Self>,
        mut request: CreateIntercept,
        caller: &Caller,
    ) -> Result<Created, RegistryError> {
        admit(&request, caller, self.allow_all)?;
        let target = request.target.clone();
        let resolved = tokio::task::spawn_blocking(move || resolve(&target)).await??;
        let netns = resolved.netns.id();
        let keys = tls_keys::load(std::mem::take(&mut request.tls), &resolved, request.port).await?;
        let tls = keys.list();

        let mut state = self.state.lock().await;
        if state.closed {
            return Err(RegistryError::Stopping);
        }
        if state.removed.contains(&request.instance) {
            return Err(RegistryError::Removed(request.name.unwrap_or_default()));
        }
        if let Some(entry) = state
            .entries
            .iter_mut()
            .find(|entry| entry.request.instance == request.instance && caller.owns(entry.token_id.as_ref()))
        {
            if entry.netns == netns {
                if entry.request.observe {
                    entry.away_since = Some(Instant::now());
                }
                let name = entry.name.clone();
                return Ok(Created { intercept: state.info(&name)?, warnings: Vec::new(), closed: None });
            }
            // The pod was made anew under the same name: the intercept moves.
            let name = entry.name.clone();
            state.take_out(&name).await;
        }
        state.take_out_own_strays(&request, netns, caller).await;
        state.refuse_clashes(&request, netns)?;
        if state.entries.len() >= MAX_INTERCEPTS {
            return Err(RegistryError::Full(MAX_INTERCEPTS));
        }

        let (host, routes) = self.port(&mut state, &resolved, request.port).await?;
        let stats = self.ledger.port(host.target(), request.port);
        let choice = match Self::choose(&request, !tls.is_empty(), &host).await {
            Ok(choice) => choice,
            Err(error) => {
                state.drop_port_if_unused(netns, request.port).await;
                return Err(error);
            }
        };
        let mut warnings = Vec::new();
        match &routes {
            PortRoutes::Open(_) => {}
            PortRoutes::New(routes) => {
                let opened = host.open_port(request.port, Arc::clone(routes), Arc::clone(&stats)).await;
                if opened.is_err() {
                    state.drop_port_if_unused(netns, request.port).await;
                }
                warnings.extend(opened?);
            }
        }
        let name = request.name.clone().unwrap_or_else(|| made_up_name(&request));
        let counts = match request.observe {
            // Nothing is counted of it.
            true => InterceptStats::new(Arc::clone(&stats), Arc::default()),
            false => self.ledger.intercept(host.target(), request.port, &name),
        };
        let intercept = Intercept::new(name.clone(), request.matcher.clone(), request.when_away, counts);
        let intercept = Arc::new(intercept.with_keys(keys));
        match request.observe {
            true => routes.routes().observe(Arc::clone(&intercept)),
            false => routes.routes().add(Arc::clone(&intercept)),
        }
        tracing::info!(name, target = %request.target, port = request.port, owner = request.owner, "intercept created");
        let now = Timestamp::now();
        let entry = Entry {
            name,
            token: caller.name().to_owned(),
            token_id: caller.token_id().cloned(),
            created: now.to_string(),
            netns,
            intercept,
            stats,
            tunnel_number: 0,
            away_since: Some(Instant::now()),
            tunnel_since: now,
            choice,
            request,
        };
        let (name, port, close_existing) =
            (entry.name.clone(), entry.request.port, entry.request.close_existing);
        state.entries.push(entry);
        if let Err(error) = host.steer(port, state.steering(netns, port)).await {
            state.take_out(&name).await;
            return Err(error.into());
        }
        let mut created = Created { intercept: state.info(&name)?, warnings, closed: None };
        drop(state);
        if close_existing {
            match host.close_existing(port).await {
                Ok(count) => created.closed = Some(count),
                Err(error) => created.warnings.push(format!("existing connections are left: {error}")),
            }
        } else {
            created.warnings.extend(host.uncovered(port).await);
        }
        if !tls.is_empty() {
            created.warnings.extend(host.probe_tls(port, tls).await);
        }
        Ok(created)
    }

    /// Removes an intercept for good: its developer is not to bring it back.
    pub async fn remove(&self, name: &str, caller: &Caller) -> Result<(), RegistryError> {
        let mut state = self.state.lock().await;
        let entry = state.entries.iter().find(|entry| entry.name == name);
        let Some(entry) = entry.filter(|entry| caller.owns(entry.token_id.as_ref())) else {
            return Err(RegistryError::Unknown(name.to_owned()));
        };
        let instance = entry.request.instance.clone();
        state.removed.push_back(instance);
        if state.removed.len() > REMEMBERED {
            state.removed.pop_front();
        }
        state.take_out(name).await;
        Ok(())
    }

    /// The intercept's requests go through `tunnel` from now on. The number is for [`Self::disconnect`].
    pub async fn connect(&self, name: &str, caller: &Caller, tunnel: Tunnel) -> Result<u64, RegistryError> {
        let mut state = self.state.lock().await;
        state.tunnel_count += 1;
        let number = state.tunnel_count;
        let entry = state.entries.iter_mut().find(|entry| entry.name == name);
        let Some(entry) = entry.filter(|entry| caller.owns(entry.token_id.as_ref())) else {
            return Err(RegistryError::Unknown(name.to_owned()));
        };
        if let Some(old) = entry.intercept.tunnel() {
            old.close();
        }
        entry.intercept.connect(Some(tunnel));
        entry.tunnel_number = number;
        entry.away_since = None;
        entry.tunnel_since = Timestamp::now();
        Ok(number)
    }

    /// The tunnel with this number has ended.
    pub async fn disconnect(&self, number: u64) {
        let mut state = self.state.lock().await;
        if let Some(entry) = state.entries.iter_mut().find(|e| e.tunnel_number == number) {
            entry.intercept.connect(None);
            entry.away_since = Some(Instant::now());
            entry.tunnel_since = Timestamp::now();
        }
    }

    /// Does the intercept exist, and may this caller be its tunnel?
    pub async fn may_connect(&self, name: &str, caller: &Caller) -> Result<(), RegistryError> {
        let state = self.state.lock().await;
        match state.entries.iter().find(|entry| entry.name == name) {
            Some(entry) if caller.owns(entry.token_id.as_ref()) => Ok(()),
            _ => Err(RegistryError::Unknown(name.to_owned())),
        }
    }

    /// Ends the intercepts of a token that was revoked.
    pub async fn revoke(&self, token: &TokenId) {
        let mut state = self.state.lock().await;
        let names: Vec<String> = state
            .entries
            .iter()
            .filter(|e| e.token_id.as_ref() == Some(token))
            .map(|e| e.name.clone())
            .collect();
        for name in names {
            state.take_out(&name).await;
        }
    }

    /// Looks at the intercepts of a port, the oldest first, and at the routes that decide among them; `None` when
    /// nobody intercepts it.
    pub async fn on_port<T>(
        &self,
        netns: NetnsId,
        port: u16,
        look: impl FnOnce(&Routes, &mut dyn Iterator<Item = InterceptInfo>) -> T,
    ) -> Option<T> {
        let state = self.state.lock().await;
        let routes = state.hosts.get(&netns)?.ports.get(&port)?;
        let on_port = state.entries.iter().filter(|entry| entry.is_on(netns, port) && !entry.request.observe);
        let mut intercepts = on_port.map(|entry| entry.info(&state.entries));
        Some(look(routes, &mut intercepts))
    }

    pub async fn list(&self) -> Vec<InterceptInfo> {
        self.state.lock().await.infos()
    }

    /// `connections`: with those that apps have and nobody looks into.
    pub async fn status(&self, connections: bool) -> Status {
        let (hosts, intercepts) = {
            let state = self.state.lock().await;
            let hosts: Vec<_> = state.hosts.values().map(|host| Arc::clone(&host.host)).collect();
            (hosts, state.infos())
        };
        let mut targets = Vec::new();
        for host in hosts {
            targets.extend(host.status(connections).await);
        }
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime: self.started.elapsed().as_secs(),
            client_address_shown: self.client_address_reason.is_none(),
            client_address_reason: self.client_address_reason.clone(),
            targets,
            intercepts,
        }
    }

    /// Where requests are remembered.
    pub fn log(&self) -> &RequestLog {
        &self.options.log
    }

    /// What was counted since the agent started.
    pub async fn totals(&self) -> Totals {
        // Each target's thread books what its eBPF program has counted. One that hangs must not keep Prometheus waiting.
        let _ = timeout(BOOKING, self.status(false)).await;
        self.ledger.read()
    }

    /// The intercepts by the target and port that their counts are under, and whether their tunnel is there.
    pub async fn tunnels(&self) -> Vec<TunnelState> {
        let state = self.state.lock().await;
        let tunnel = |entry: &Entry| {
            let target = state.hosts.get(&entry.netns)?.host.target().clone();
            let (port, name) = (entry.request.port, entry.name.clone());
            Some(TunnelState { target, port, name, up: entry.intercept.tunnel().is_some() })
        };
        state.entries.iter().filter(|entry| !entry.request.observe).filter_map(tunnel).collect()
    }

    /// Lets go of intercepts whose developer stays away. Never returns.
    pub async fn expire(&self) {
        loop {
            sleep(Duration::from_secs(1)).await;
            let mut state = self.state.lock().await;
            let expired: Vec<String> = state
                .entries
                .iter()
                .filter(|entry| {
                    let patience = if entry.request.observe { LEASE } else { self.grace };
                    entry.away_since.is_some_and(|since| since.elapsed() > patience)
                })
                .map(|entry| entry.name.clone())
                .collect();
            for name in expired {
                tracing::info!(name, "developer stayed away: intercept ended");
                state.take_out(&name).await;
            }
        }
    }

    /// Detaches everything. Connections go on until the drain ends; the threads are returned to wait for.
    pub async fn shut_down(&self) -> Vec<JoinHandle<()>> {
        let mut state = self.state.lock().await;
        state.closed = true;
        let names: Vec<String> = state.entries.iter().map(|entry| entry.name.clone()).collect();
        for name in names {
            state.take_out(&name).await;
        }
        std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Which doors the intercept gets.
    async fn choose(
        request: &CreateIntercept,
        inside_tls: bool,
        host: &TargetHost,
    ) -> Result<Choice, RegistryError> {
        if request.close_existing {
            host.can_close().await?;
        }
        // Whoever does not want it does not wait for it.
        let inspection = if request.datapath == Datapath::Proxy { Ok(()) } else { host.inspection().await };
        let inspection = inspection.as_ref().map(drop).map_err(String::as_str);
        let new = if request.observe { Choice::observing } else { Choice::new };
        new(request.datapath, &request.matcher, inside_tls, inspection).map_err(RegistryError::CannotInspect)
    }

    /// The port's routes; starts the target's threads and attaches if need be.
    async fn port(
        self: &Arc<Self>,
        state: &mut State,
        resolved: &crate::target::resolve::ResolvedTarget,
        port: u16,
    ) -> Result<(Arc<TargetHost>, PortRoutes), RegistryError> {
        let netns = resolved.netns.id();
        if !state.hosts.contains_key(&netns) {
            let stats = self.ledger.target(&resolved.target);
            let (host, threads) = TargetHost::start(resolved, &self.options, stats).await?;
            let mut known = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
            known.retain(|thread| !thread.is_finished());
            known.extend(threads);
            drop(known);
            let host = Arc::new(host);
            state.host_count += 1;
            let number = state.host_count;
            tokio::spawn(Arc::clone(self).watch(netns, number, host.gone()));
            state.hosts.insert(netns, Host { number, host, ports: BTreeMap::new() });
        }
        let Some(entry) = state.hosts.get_mut(&netns) else { return Err(PortError::Gone.into()) };
        let routes = match entry.ports.get(&port) {
            Some(routes) => PortRoutes::Open(Arc::clone(routes)),
            None => {
                let routes = Arc::new(Routes::default());
                entry.ports.insert(port, Arc::clone(&routes));
                PortRoutes::New(routes)
            }
        };
        Ok((Arc::clone(&entry.host), routes))
    }

    /// Lets go of a target that is no longer there.
    async fn watch(self: Arc<Self>, netns: NetnsId, number: u64, gone: impl Future<Output = String> + Send) {
        let reason = gone.await;
        let mut state = self.state.lock().await;
        // One that was let go has ended too, and another may have taken its place meanwhile.
        if state.hosts.get(&netns).is_none_or(|host| host.number != number) {
            return;
        }
        let names: Vec<String> =
            state.entries.iter().filter(|e| e.netns == netns).map(|e| e.name.clone()).collect();
        for name in names {
            tracing::info!(name, reason, "target gone: intercept ended");
            state.take_out(&name).await;
        }
        state.hosts.remove(&netns);
    }
}

/// The routes of a port, and whether anyone takes its connections yet.
enum PortRoutes {
    Open(Arc<Routes>),
    New(Arc<Routes>),
}

impl PortRoutes {
    fn routes(&self) -> &Routes {
        match self {
            Self::Open(routes) | Self::New(routes) => routes,
        }
    }
}
