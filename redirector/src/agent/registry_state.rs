//! What the registry knows: the intercepts, and the targets and ports that are held for them.

use super::{entry::Entry, registry_error::RegistryError, steering::Steering, target_host::TargetHost};
use crate::{
    api::{CreateIntercept, InterceptInfo},
    api_server::Caller,
    engine::Routes,
    target::netns::NetnsId,
};
use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
};

#[derive(Default)]
pub struct State {
    pub hosts: HashMap<NetnsId, Host>,
    /// Oldest first.
    pub entries: Vec<Entry>,
    /// Instances whose intercept was removed by somebody.
    pub removed: VecDeque<String>,
    /// How many hosts there have been.
    pub host_count: u64,
    /// How many tunnels there have been.
    pub tunnel_count: u64,
    /// The agent is stopping: nothing is to be attached any more.
    pub closed: bool,
}

pub struct Host {
    /// Tells it from an earlier one of the same namespace.
    pub number: u64,
    pub host: Arc<TargetHost>,
    pub ports: BTreeMap<u16, Arc<Routes>>,
}

impl State {
    /// The intercepts there are, the oldest first.
    pub fn infos(&self) -> Vec<InterceptInfo> {
        self.entries.iter().map(|entry| entry.info(&self.entries)).collect()
    }

    /// One of them.
    pub fn info(&self, name: &str) -> Result<InterceptInfo, RegistryError> {
        let entry = self.entries.iter().find(|entry| entry.name == name);
        Ok(entry.ok_or_else(|| RegistryError::Unknown(name.to_owned()))?.info(&self.entries))
    }

    pub fn refuse_clashes(&self, request: &CreateIntercept, netns: NetnsId) -> Result<(), RegistryError> {
        for entry in &self.entries {
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

    pub fn steering(&self, netns: NetnsId, port: u16) -> Steering {
        let entries = self.entries.iter().filter(|entry| entry.is_on(netns, port));
        Steering::of(entries.map(|entry| (&entry.choice, &entry.request.matcher)))
    }

    /// A developer who was cut off comes back as another process: what is in its way and its own makes room.
    pub async fn take_out_own_strays(&mut self, request: &CreateIntercept, netns: NetnsId, caller: &Caller) {
        let strays: Vec<String> = self
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
            self.take_out(&name).await;
        }
    }

    pub async fn take_out(&mut self, name: &str) {
        let Some(at) = self.entries.iter().position(|entry| entry.name == name) else { return };
        let entry = self.entries.remove(at);
        tracing::info!(name, target = %entry.request.target, "intercept ended");
        if let Some(host) = self.hosts.get(&entry.netns)
            && let Some(routes) = host.ports.get(&entry.request.port)
        {
            routes.remove(name);
        }
        if let Some(tunnel) = entry.intercept.tunnel() {
            tunnel.close();
        }
        entry.intercept.connect(None);
        self.drop_port_if_unused(entry.netns, entry.request.port).await;
    }

    pub async fn drop_port_if_unused(&mut self, netns: NetnsId, port: u16) {
        if self.entries.iter().any(|entry| entry.is_on(netns, port)) {
            let steering = self.steering(netns, port);
            if let Some(host) = self.hosts.get(&netns)
                && let Err(error) = host.host.steer(port, steering).await
            {
                tracing::warn!(%error, port, "a port keeps what an intercept needed that has ended");
            }
            return;
        }
        let Some(host) = self.hosts.get_mut(&netns) else { return };
        host.ports.remove(&port);
        if host.ports.is_empty() {
            // Detached when this returns: a successor finds the interfaces as they were. Open connections keep the
            // threads until they end.
            if let Some(host) = self.hosts.remove(&netns) {
                host.host.end().await;
            }
        } else {
            host.host.close_port(port).await;
        }
    }
}
