//! The simulator: a Twilio over real HTTP, for tests, demos, benchmarks and working by hand.
//!
//! ```text
//!   service ── POST Messages.json ──▶ api ─▶ create ─▶ store ─▶ timeline ─▶ callback ── signed POST ──▶ service
//!              GET  Messages.json ──▶ api ─▶ lookup      │
//!   person  ── phone page, reply ───▶ control ─▶ inbound ┴───────────────▶ callback ── signed POST ──▶ service
//!   service ── POST Calls.json ─────▶ call_api ─▶ calls ──── what to say? ─▶ callback ── signed POST ──▶ service
//!   person  ── phone page, keys ────▶ control ─▶ calls ───── Digits ───────▶ callback ── signed POST ──▶ service
//!   test    ── SimulatorHandle ─────▶ handle (faults, steps, expectations)
//! ```
//!
//! - `api` answers as Twilio's REST API does (Messages, Calls, the account checks, the Content API): status codes, error
//!   codes, bodies, headers. `create` holds what Twilio checks, `lookup` the rest, `answer` the shapes; `call_api` is all of
//!   that for calls.
//! - `calls` brings a call through its life: it rings, is picked up or not, asks for `twiml` and does what that says.
//! - `fault` is what can be made to go wrong; `wire` lets an answer never come.
//! - `timeline` moves messages on by themselves ([`CallbackMode::Automatic`]); in [`CallbackMode::Manual`] nothing happens
//!   until [`SimulatorHandle::step`].
//! - `callback` posts signed webhooks and honours the connection overrides of their URLs; `sign` signs them.
//! - `store` keeps the last so many messages and requests: memory stays flat in a soak.
//!
//! It is a small world of its own. It decides nothing by the service's rules and shares no code with the service's
//! signature check, so that a mistake in one shows in the other.
//!
//! **Never expose it.** The control paths below `/_simulator/` ask for no credentials, and the phone page shows every
//! message. It belongs on loopback or on an inner network.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::any;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::ports::{Clock, Entropy};

mod answer;
mod api;
mod auth;
mod call;
mod call_api;
mod callback;
mod calls;
mod config;
mod content;
mod control;
mod create;
mod fault;
mod handle;
mod inbound;
mod lookup;
mod message;
mod segments;
mod sign;
mod store;
mod timeline;
mod twiml;
mod wire;
mod world;

#[cfg(test)]
mod tests;

pub use call::{AnsweredBy, CallStatus, SimCall};
pub use config::{ApiKey, CallbackMode, ContentDefinition, ContentTemplate, SimulatorConfig};
pub use fault::{Fault, FaultRule, Frequency, InvalidFault, REPEATS_MAX, RULES_MAX, Scope};
pub use handle::{SimListing, SimRequest, SimulatorHandle, UnknownMessage};
pub use inbound::{Inbound, Quote, ReplyError, SimReply};
pub use message::{Direction, SimButton, SimMessage, SimStatus};
pub use world::Stats;

/// How long a shutdown waits for open connections.
pub const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(5);

/// A simulator that listens. It stops when it is dropped; [`Simulator::shutdown`] also waits for that.
#[derive(Debug)]
pub struct Simulator {
    handle: SimulatorHandle,
    address: SocketAddr,
    server: Option<JoinHandle<io::Result<()>>>,
}

impl Simulator {
    /// Starts listening, on the current Tokio runtime.
    ///
    /// # Errors
    /// If the address cannot be bound, or no HTTP client can be made.
    pub async fn start(config: SimulatorConfig, clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> io::Result<Self> {
        let listener = TcpListener::bind(config.bind).await?;
        let address = listener.local_addr()?;
        let handle = SimulatorHandle::new(config, clock, entropy)?;
        let service = router(handle.clone()).into_make_service_with_connect_info::<wire::Cut>();
        let stop = handle.world.stop.clone();
        let serve = axum::serve(wire::Breakable(listener), service).with_graceful_shutdown(stop.cancelled_owned());
        let server = tokio::spawn(async move { serve.await });
        Ok(Self { handle, address, server: Some(server) })
    }

    /// Where it listens, as `http://127.0.0.1:4010`: what the service takes for `https://api.twilio.com`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its control.
    pub fn handle(&self) -> SimulatorHandle {
        self.handle.clone()
    }

    /// Stops: takes no more connections, lets go of those that are held, and waits until all are closed, though no
    /// longer than five seconds: a peer that keeps its connection open does not keep the simulator alive.
    ///
    /// # Errors
    /// If the server ended in an error.
    pub async fn shutdown(mut self) -> io::Result<()> {
        self.handle.stop();
        let Some(mut server) = self.server.take() else { return Ok(()) };
        match tokio::time::timeout(SHUTDOWN_PATIENCE, &mut server).await {
            Ok(ended) => ended.map_err(io::Error::other)?,
            Err(_) => {
                server.abort();
                Ok(())
            }
        }
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        self.handle.stop();
    }
}

impl SimulatorHandle {
    /// A simulator without a listener, for a [`router`] that is embedded elsewhere. Its background work runs on the
    /// current Tokio runtime until [`SimulatorHandle::stop`].
    ///
    /// # Errors
    /// If no HTTP client can be made.
    pub fn new(config: SimulatorConfig, clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> io::Result<Self> {
        let world = Arc::new(world::World::new(config, clock, entropy).map_err(io::Error::other)?);
        tokio::spawn(timeline::run(Arc::clone(&world)));
        Ok(Self { world })
    }
}

/// The simulator's paths, to be embedded. Served by anything but [`Simulator::start`], the faults that break a connection
/// break the answer's body instead, because the connection is not at hand.
pub fn router(handle: SimulatorHandle) -> Router {
    let api = any(api::serve).with_state(Arc::clone(&handle.world));
    control::router().with_state(handle).fallback_service(api)
}
