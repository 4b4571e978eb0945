//! The intercepts of the node: who has which, on what, and whether their tunnel is there.

use super::{
    admission::{admit, made_up_name},
    clash::Clash,
    ledger::{Ledger, Totals},
    registry_error::RegistryError,
    steering::{Choice, Steering},
    target_host::{HostOptions, TargetHost},
    tls_keys,
    warden::PortError,
};
use crate::{
    api::{CreateIntercept, Created, InterceptInfo, Status},
    api_server::Caller,
    engine::{Intercept, Routes},
    target::{Target, netns::NetnsId, resolve::resolve},
    tunnel::{agent_end::Tunnel, token::TokenId},
};
use jiff::Timestamp;
use std::{
    collections::{BTreeMap, HashMap, VecDeque},
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

#[derive(Default)]
struct State {
    hosts: HashMap<NetnsId, Host>,
    /// Oldest first.
    entries: Vec<Entry>,
    /// Instances whose intercept was removed by somebody.
    removed: VecDeque<String>,
    /// How many hosts there have been.
    host_count: u64,
    /// How many tunnels there have been.
    tunnel_count: u64,
    /// The agent is stopping: nothing is to be attached any more.
    closed: bool,
}

struct Host {
    /// Tells it from an earlier one of the same namespace.
    number: u64,
    host: Arc<TargetHost>,
    ports: BTreeMap<u16, Arc<Routes>>,
}

struct Entry {
    request: CreateIntercept,
    name: String,
    /// The token's name.
    token: String,
    /// `None`: made by root, over the unix socket.
    token_id: Option<TokenId>,
    created: String,
    netns: NetnsId,
    choice: Choice,
    intercept: Arc<Intercept>,
    /// The number of its tunnel: the end of an old one says nothing about the one that replaced it.
    tunnel_number: u64,
    away_since: Option<Instant>,
    /// When its tunnel came, or went.
    tunnel_since: Timestamp,
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

impl Entry {
    fn is_on(&self, netns: NetnsId, port: u16) -> bool {
        self.netns == netns && self.request.port == port
    }

    /// One of the two would take all requests of the other.
    fn clash_with(&self, request: &CreateIntercept, netns: NetnsId) -> Option<Clash> {
        self.is_on(netns, request.port)
            .then(|| Clash::between(&self.request.matcher, &request.matcher))
            .flatten()
    }

    fn info(&self) -> InterceptInfo {
        InterceptInfo {
            name: self.name.clone(),
            target: self.request.target.clone(),
            port: self.request.port,
            matcher: self.request.matcher.clone(),
            when_away: self.request.when_away,
            datapath: self.choice.datapath,
            datapath_reason: self.choice.reason.clone(),
            owner: self.request.owner.clone(),
            token: self.token.clone(),
            to: self.request.to.clone(),
            connected: self.intercept.tunnel().is_some(),
            tunnel_since: self.tunnel_since.to_string(),
            created: self.created.clone(),
            counts: self.intercept.stats.read(),
        }
    }
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
            .iter()
            .find(|entry| entry.request.instance == request.instance && caller.owns(entry.token_id.as_ref()))
        {
            if entry.netns == netns {
                return Ok(Created { intercept: entry.info(), warnings: Vec::new() });
            }
            // The pod was made anew under the same name: the intercept moves.
            let name = entry.name.clone();
            Self::take_out(&mut state, &name).await;
        }
        Self::take_out_own_strays(&mut state, &request, netns, caller).await;
        Self::refuse_clashes(&state, &request, netns)?;
        if state.entries.len() >= MAX_INTERCEPTS {
            return Err(RegistryError::Full(MAX_INTERCEPTS));
        }

        let (host, routes) = self.port(&mut state, &resolved, request.port).await?;
        let choice = match Choice::new(request.datapath, &request.matcher, host.inspection()) {
            Ok(choice) => choice,
            Err(reason) => {
                Self::drop_port_if_unused(&mut state, netns, request.port).await;
                return Err(RegistryError::CannotInspect(reason));
            }
        };
        let warnings = match &routes {
            PortRoutes::Open(_) => Vec::new(),
            PortRoutes::New(routes) => {
                let stats = self.ledger.port(host.target(), request.port);
                let opened = host.open_port(request.port, Arc::clone(routes), stats).await;
                if opened.is_err() {
                    Self::drop_port_if_unused(&mut state, netns, request.port).await;
                }
                opened?
            }
        };
        let name = request.name.clone().unwrap_or_else(|| made_up_name(&request));
        let stats = self.ledger.intercept(host.target(), request.port, &name);
        let intercept = Intercept::new(name.clone(), request.matcher.clone(), request.when_away, stats);
        let intercept = Arc::new(intercept.with_keys(keys));
        routes.routes().add(Arc::clone(&intercept));
        tracing::info!(name, target = %request.target, port = request.port, owner = request.owner, "intercept created");
        let now = Timestamp::now();
        let entry = Entry {
            name,
            token: caller.name().to_owned(),
            token_id: caller.token_id().cloned(),
            created: now.to_string(),
            netns,
            intercept,
            tunnel_number: 0,
            away_since: Some(Instant::now()),
            tunnel_since: now,
            choice,
            request,
        };
        let (mut created, name) = (Created { intercept: entry.info(), warnings }, entry.name.clone());
        let port = entry.request.port;
        state.entries.push(entry);
        if let Err(error) = host.steer(port, Self::steering(&state, netns, port)).await {
            Self::take_out(&mut state, &name).await;
            return Err(error.into());
        }
        drop(state);
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
        Self::take_out(&mut state, name).await;
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
            Self::take_out(&mut state, &name).await;
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
        let mut intercepts = state.entries.iter().filter(|entry| entry.is_on(netns, port)).map(Entry::info);
        Some(look(routes, &mut intercepts))
    }

    pub async fn list(&self) -> Vec<InterceptInfo> {
        self.state.lock().await.entries.iter().map(Entry::info).collect()
    }

    pub async fn status(&self) -> Status {
        let (hosts, intercepts) = {
            let state = self.state.lock().await;
            let hosts: Vec<_> = state.hosts.values().map(|host| Arc::clone(&host.host)).collect();
            (hosts, state.entries.iter().map(Entry::info).collect())
        };
        let mut targets = Vec::new();
        for host in hosts {
            targets.extend(host.status().await);
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

    /// What was counted since the agent started.
    pub async fn totals(&self) -> Totals {
        // Each target's thread books what its eBPF program has counted. One that hangs must not keep Prometheus waiting.
        let _ = timeout(BOOKING, self.status()).await;
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
        state.entries.iter().filter_map(tunnel).collect()
    }

    /// Lets go of intercepts whose developer stays away. Never returns.
    pub async fn expire(&self) {
        loop {
            sleep(Duration::from_secs(1)).await;
            let mut state = self.state.lock().await;
            let expired: Vec<String> = state
                .entries
                .iter()
                .filter(|entry| entry.away_since.is_some_and(|since| since.elapsed() > self.grace))
                .map(|entry| entry.name.clone())
                .collect();
            for name in expired {
                tracing::info!(name, "developer stayed away: intercept ended");
                Self::take_out(&mut state, &name).await;
            }
        }
    }

    /// Detaches everything. Connections go on until the drain ends; the threads are returned to wait for.
    pub async fn shut_down(&self) -> Vec<JoinHandle<()>> {
        let mut state = self.state.lock().await;
        state.closed = true;
        let names: Vec<String> = state.entries.iter().map(|entry| entry.name.clone()).collect();
        for name in names {
            Self::take_out(&mut state, &name).await;
        }
        std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner))
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
            Self::take_out(&mut state, &name).await;
        }
        state.hosts.remove(&netns);
    }

    fn refuse_clashes(state: &State, request: &CreateIntercept, netns: NetnsId) -> Result<(), RegistryError> {
        for entry in &state.entries {
            let (name, owner) = (entry.name.clone(), entry.request.owner.clone());
            if request.name.as_ref() == Some(&name) {
                return Err(RegistryError::NameTaken { name, owner });
            }
            if let Some(clash) = entry.clash_with(request, netns) {
                return Err(RegistryError::Clash { name, owner, clash });
            }
        }
        Ok(())
    }

    fn steering(state: &State, netns: NetnsId, port: u16) -> Steering {
        let entries = state.entries.iter().filter(|e| e.netns == netns && e.request.port == port);
        Steering::of(entries.map(|entry| (entry.choice.datapath, &entry.request.matcher)))
    }

    /// A developer who was cut off comes back as another process: what is in its way and its own makes room.
    async fn take_out_own_strays(
        state: &mut State,
        request: &CreateIntercept,
        netns: NetnsId,
        caller: &Caller,
    ) {
        let strays: Vec<String> = state
            .entries
            .iter()
            .filter(|entry| {
                let same_person =
                    caller.token_id() == entry.token_id.as_ref() && entry.request.owner == request.owner;
                let in_the_way =
                    request.name.as_ref() == Some(&entry.name) || entry.clash_with(request, netns).is_some();
                same_person && in_the_way && entry.intercept.tunnel().is_none()
            })
            .map(|entry| entry.name.clone())
            .collect();
        for name in strays {
            Self::take_out(state, &name).await;
        }
    }

    async fn take_out(state: &mut State, name: &str) {
        let Some(at) = state.entries.iter().position(|entry| entry.name == name) else { return };
        let entry = state.entries.remove(at);
        tracing::info!(name, target = %entry.request.target, "intercept ended");
        if let Some(host) = state.hosts.get(&entry.netns)
            && let Some(routes) = host.ports.get(&entry.request.port)
        {
            routes.remove(name);
        }
        if let Some(tunnel) = entry.intercept.tunnel() {
            tunnel.close();
        }
        entry.intercept.connect(None);
        Self::drop_port_if_unused(state, entry.netns, entry.request.port).await;
    }

    async fn drop_port_if_unused(state: &mut State, netns: NetnsId, port: u16) {
        if state.entries.iter().any(|entry| entry.is_on(netns, port)) {
            let steering = Self::steering(state, netns, port);
            if let Some(host) = state.hosts.get(&netns)
                && let Err(error) = host.host.steer(port, steering).await
            {
                tracing::warn!(%error, port, "a port keeps what an intercept needed that has ended");
            }
            return;
        }
        let Some(host) = state.hosts.get_mut(&netns) else { return };
        host.ports.remove(&port);
        if host.ports.is_empty() {
            // Detached when this returns: a successor finds the interfaces as they were. Open connections keep the
            // threads until they end.
            if let Some(host) = state.hosts.remove(&netns) {
                host.host.end().await;
            }
        } else {
            host.host.close_port(port).await;
        }
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
