//! The hooks that a server has, and what `verify_request` is asked about.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::handle::ServerHandle;
use crate::config::check_needed_time;
use crate::error::Result;
use crate::net::{Addr, PeerCredentials};
use crate::observe::ErrorHook;

/// The hooks of a server that its threads call.
#[derive(Default)]
pub(crate) struct Hooks {
    pub(crate) handle_error: Option<Arc<ErrorHook>>,
    pub(crate) verify_request: Option<Verify>,
    pub(crate) service_actions: Option<Actions>,
    pub(crate) handle_timeout: Option<Box<dyn Fn() + Send + Sync>>,
}

impl Hooks {
    /// Checked when the server is bound.
    pub(crate) fn check(&self) -> Result<()> {
        self.service_actions.iter().try_for_each(|actions| check_needed_time("service_actions", actions.every))
    }
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hooks").field("verify_request", &self.verify_request.is_some()).finish_non_exhaustive()
    }
}

/// How many threads ask `verify_request` at once, at the most.
pub(crate) const VERIFIERS: usize = 64;

/// The hook `verify_request`.
pub(crate) type Verify = Box<dyn Fn(&Incoming) -> bool + Send + Sync>;

/// A connection, or a datagram, that [`verify_request`](crate::ServerBuilder::verify_request) decides about. It is a description,
/// not the connection itself: that may be gone before the hook returns.
#[derive(Debug, Clone)]
pub struct Incoming {
    pub(crate) peer: Addr,
    pub(crate) local: Addr,
    pub(crate) credentials: Option<PeerCredentials>,
    pub(crate) server: ServerHandle,
}

impl Incoming {
    /// Who has connected, or has sent the datagram.
    pub fn peer_addr(&self) -> &Addr {
        &self.peer
    }

    /// The server's address that the client has connected to; [`Addr::Unnamed`] where the system does not tell it.
    pub fn local_addr(&self) -> &Addr {
        &self.local
    }

    /// The process, user and group that have connected over a Unix socket; `None` over TCP, or where the system does not
    /// tell it.
    pub fn peer_credentials(&self) -> Option<PeerCredentials> {
        self.credentials
    }

    /// The server that was connected to: its counters, its stop.
    pub fn server(&self) -> &ServerHandle {
        &self.server
    }
}

/// The hook, and its pace.
pub(crate) struct Actions {
    pub(crate) every: Duration,
    pub(crate) hook: Box<dyn Fn() + Send + Sync>,
}
