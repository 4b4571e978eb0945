//! One move: from a segment that is held to a connection of the agent's.

use super::{
    connection_state::{ConnectionState, Unfit},
    farewell::{Farewell, Impersonator},
    flows::{ClaimError, Flows, Moving, ParkedFlow, addresses},
    held::HeldSegment,
    repair::{Repaired, make_room},
};
use crate::{
    engine::{ClientAddr, OriginalDst},
    sock_diag::{SockDiag, State},
};
use std::{
    io,
    net::{SocketAddr, TcpStream},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use thiserror::Error;
use tokio::time::sleep;

/// Why a connection stays with the app.
#[derive(Debug, Error)]
pub enum NotParked {
    #[error("{0}")]
    Unfit(#[from] Unfit),
    #[error("{0}")]
    Claim(#[from] ClaimError),
    #[error("cannot ask about the app's socket: {0}")]
    Diag(#[source] io::Error),
    #[error("cannot make the socket (CAP_NET_ADMIN needed): {0}")]
    Socket(#[source] io::Error),
}

/// Moves connections of one target. Its calls take some ten microseconds; they wait for an app that is in a call on its socket, and
/// [`Self::farewell`] does for the network.
pub struct Mover {
    flows: Arc<Flows>,
    diag: Mutex<SockDiag>,
    impersonator: Impersonator,
}

/// A connection of the agent's, with the first request in its receive queue.
pub struct Parked {
    pub stream: TcpStream,
    pub client: ClientAddr,
    pub original_dst: OriginalDst,
    pub farewell: Farewell,
    /// To be kept as long as `stream` is served.
    pub flow: ParkedFlow,
}

impl Mover {
    /// Call it inside the target's namespace.
    ///
    /// # Errors
    /// Without `CAP_NET_RAW`, or a kernel without sock_diag.
    pub fn open(flows: Arc<Flows>) -> io::Result<Self> {
        make_room();
        Ok(Self { flows, diag: Mutex::new(SockDiag::open()?), impersonator: Impersonator::open()? })
    }

    /// Gets `agent_port` ready for connections to `port`.
    ///
    /// # Errors
    /// When the map is full.
    pub fn reserve(&self, agent_port: u16, port: u16) -> Result<(), aya::maps::MapError> {
        self.flows.reserve(agent_port, port)
    }

    /// Makes the connection the agent's, at `agent_port`. On any error it is the app's, as if nothing had happened.
    /// Call it inside the target's namespace.
    pub fn park(&self, held: &HeldSegment, agent_port: u16) -> Result<Parked, NotParked> {
        let (moving, repaired) = self.prepare(held, agent_port)?;
        self.hand_over(held, moving, repaired)
    }

    /// The connection is moving, and the agent's socket is ready for it.
    pub(super) fn prepare(
        &self,
        held: &HeldSegment,
        agent_port: u16,
    ) -> Result<(Moving, Repaired), NotParked> {
        let (client, app) = addresses(&held.tuple);
        // Before the app's socket is looked at: what it says after that must not reach the client.
        let moving = self.flows.begin(held.tuple, agent_port)?;
        let state = self.look(held)?;
        let agent = SocketAddr::new(app.ip(), agent_port);
        let repaired = self.build(&state, &held.payload, agent, client).map_err(NotParked::Socket)?;
        Ok((moving, repaired))
    }

    pub(super) fn hand_over(
        &self,
        held: &HeldSegment,
        moving: Moving,
        repaired: Repaired,
    ) -> Result<Parked, NotParked> {
        let (client, app) = addresses(&held.tuple);
        moving.steer()?;
        // Another processor may have been past the program with the same segment before it was held, and is at the app's socket only
        // now. So this is the last thing to do but one; what is later still can't be seen.
        self.look(held)?;
        let flow = moving.commit()?;
        let stream = repaired.go_live().map_err(NotParked::Socket)?;
        Ok(Parked {
            stream,
            client: ClientAddr(client),
            original_dst: OriginalDst(app),
            farewell: Farewell::from(held),
            flow,
        })
    }

    /// What the new socket must be, if the app's is still as it was when the segment was held.
    fn look(&self, held: &HeldSegment) -> Result<ConnectionState, NotParked> {
        match self.look_once(held) {
            // The kernel first reads what is unacknowledged, then waits for a process that uses the socket, and then says what was
            // acknowledged until now: if there was something to wait for, the sum is too large the first time.
            Err(NotParked::Unfit(Unfit::AppHasSpoken)) => self.look_once(held),
            seen => seen,
        }
    }

    fn look_once(&self, held: &HeldSegment) -> Result<ConnectionState, NotParked> {
        let (client, app) = addresses(&held.tuple);
        let facts = self.diag().look_up(app, client).map_err(NotParked::Diag)?;
        Ok(ConnectionState::of(held, &facts.ok_or(Unfit::NotEstablished)?)?)
    }

    /// The client may have used its port for a connection that has ended a moment ago, and whose end on our side is still
    /// remembered. The client has said that it is over: with a new connection.
    fn build(
        &self,
        state: &ConnectionState,
        payload: &[u8],
        agent: SocketAddr,
        client: SocketAddr,
    ) -> io::Result<Repaired> {
        match Repaired::build(state, payload, agent, client) {
            Err(error)
                if error.kind() == io::ErrorKind::AddrNotAvailable
                    && matches!(self.diag().forget(agent, client), Ok(true)) =>
            {
                Repaired::build(state, payload, agent, client)
            }
            outcome => outcome,
        }
    }

    /// Gives back a segment that could not even be read.
    pub fn let_go(&self, held: &redirector_common::Tuple) {
        self.flows.let_go(held);
    }

    /// Tells the app that its client has finished, until it has heard it.
    pub async fn farewell(&self, client: ClientAddr, app: OriginalDst, farewell: Farewell) {
        /// Doubled each time: two seconds in all.
        const FIRST_PAUSE: Duration = Duration::from_millis(1);
        const ATTEMPTS: u32 = 11;
        for attempt in 0..ATTEMPTS {
            if let Err(error) = self.impersonator.finish(client.0, app.0, &farewell) {
                tracing::warn!(%error, %client, "cannot end the app's side of a parked connection");
            }
            let facts = self.diag().look_up(app.0, client.0);
            if facts.is_ok_and(|facts| facts.is_none_or(|facts| facts.state != State::Established)) {
                return;
            }
            sleep(FIRST_PAUSE * 2_u32.pow(attempt)).await;
        }
        tracing::warn!(%client, %app, "the app keeps its side of a parked connection open");
    }

    /// To be called now and then.
    pub fn sweep(&self) {
        self.flows.sweep(&self.diag());
    }

    /// Nothing is lost when the programs go.
    pub fn is_quiet(&self) -> bool {
        self.flows.are_quiet(&self.diag())
    }

    fn diag(&self) -> MutexGuard<'_, SockDiag> {
        self.diag.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
