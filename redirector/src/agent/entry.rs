//! One intercept, as the registry knows it.

use super::{
    clash::Clash,
    steering::{Choice, Spoken, THROUGH},
};
use crate::{
    api::{CreateIntercept, Datapath, InterceptInfo},
    engine::{Intercept, PortStats},
    target::netns::NetnsId,
    tunnel::token::TokenId,
};
use jiff::Timestamp;
use std::{sync::Arc, time::Instant};

pub struct Entry {
    pub request: CreateIntercept,
    pub name: String,
    /// The token's name.
    pub token: String,
    /// `None`: made by root, over the unix socket.
    pub token_id: Option<TokenId>,
    pub created: String,
    pub netns: NetnsId,
    pub choice: Choice,
    pub intercept: Arc<Intercept>,
    /// Of its port.
    pub stats: Arc<PortStats>,
    /// The number of its tunnel: the end of an old one says nothing about the one that replaced it.
    pub tunnel_number: u64,
    pub away_since: Option<Instant>,
    /// When its tunnel came, or went.
    pub tunnel_since: Timestamp,
}

impl Entry {
    pub fn is_on(&self, netns: NetnsId, port: u16) -> bool {
        self.netns == netns && self.request.port == port
    }

    /// One of the two would take all requests of the other.
    pub fn clash_with(&self, request: &CreateIntercept, netns: NetnsId) -> Option<Clash> {
        (self.is_on(netns, request.port) && !self.request.observe && !request.observe)
            .then(|| Clash::between(&self.request.matcher, &request.matcher))
            .flatten()
    }

    /// `all`: the intercepts there are.
    pub fn info(&self, all: &[Self]) -> InterceptInfo {
        let (datapath, datapath_reason) = self.datapath(all);
        InterceptInfo {
            name: self.name.clone(),
            target: self.request.target.clone(),
            port: self.request.port,
            matcher: self.request.matcher.clone(),
            when_away: self.request.when_away,
            datapath,
            datapath_reason,
            owner: self.request.owner.clone(),
            token: self.token.clone(),
            to: self.request.to.clone(),
            observes: self.request.observe,
            connected: self.intercept.tunnel().is_some(),
            tunnel_since: self.tunnel_since.to_string(),
            created: self.created.clone(),
            counts: self.intercept.stats.read(),
        }
    }

    /// What becomes of new connections to its port now, and why. They are the same for all intercepts of the port, so it may be for
    /// the sake of another one.
    fn datapath(&self, all: &[Self]) -> (Datapath, String) {
        let spoken = Spoken::of(&self.stats);
        let (own, reason) = self.choice.now(spoken);
        if self.choice.needs_agent() {
            return (own, reason);
        }
        let mut others = all.iter().filter(|other| other.is_on(self.netns, self.request.port));
        // Those that need it in any case first: others may only until it is known what clients speak.
        let in_any_case = others.clone().find(|other| other.choice.needs_agent());
        let for_now = || others.find(|other| other.choice.now(spoken).0 == Datapath::Proxy);
        match in_any_case.or_else(for_now) {
            Some(other) if own != Datapath::Proxy || in_any_case.is_some() => {
                let kind = if other.request.observe { "observer" } else { "intercept" };
                (
                    Datapath::Proxy,
                    format!("because of the {kind} {:?} on the same port, {THROUGH}", other.name),
                )
            }
            _ => (own, reason),
        }
    }
}
