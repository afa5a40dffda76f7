//! [`Hooks`]: the hooks of a server as data, and [`Incoming`], which `verify_request` decides about.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::handle::ServerHandle;
use super::restart::Restarts;
use crate::config::check_needed_time;
use crate::error::Result;
use crate::net::{Addr, PeerCredentials};
use crate::observe::{ErrorHook, Observers};
use crate::proxy::ProxyHeader;
use crate::systemd::Notifier;

/// The hooks of a server that its threads call.
#[derive(Default)]
pub(crate) struct Hooks {
    pub(crate) handle_error: Option<Arc<ErrorHook>>,
    pub(crate) observers: Observers,
    pub(crate) verify_request: Option<Verify>,
    pub(crate) service_actions: Option<Actions>,
    pub(crate) handle_timeout: Option<Box<dyn Fn() + Send + Sync>>,
    /// The service manager, if the server reports to one.
    pub(crate) notifier: Option<Notifier>,
    /// The restarts of this process, if the server takes part in them.
    pub(crate) restarts: Option<&'static Restarts>,
}

impl Hooks {
    /// Checks the hooks' settings when the server is bound.
    pub(crate) fn check(&self) -> Result<()> {
        self.service_actions.iter().try_for_each(|actions| check_needed_time("service_actions", actions.every))
    }

    /// True if a server whose handlers run in child processes calls code of the program in its own.
    pub(crate) fn are_beside_children(&self) -> bool {
        let have_calls = self.service_actions.is_some() || self.handle_timeout.is_some();
        have_calls || self.handle_error.is_some() || !self.observers.is_empty()
    }
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hooks").field("verify_request", &self.verify_request.is_some()).finish_non_exhaustive()
    }
}

/// The most threads that call `verify_request` at once. While all of them hang, each new client is refused at
/// the time limit, and served again when one returns.
pub(crate) const VERIFIERS: usize = 64;

/// The hook `verify_request`.
pub(crate) type Verify = Box<dyn Fn(&Incoming) -> bool + Send + Sync>;

/// A connection or a datagram that [`verify_request`](crate::ServerBuilder::verify_request) decides about.
///
/// It is a description, not the connection itself, because the hook may outlive the connection. At the time
/// limit the connection is refused and its permit is free, while the hook goes on. With the socket, the hook
/// could keep a refused client connected.
#[derive(Debug, Clone)]
pub struct Incoming {
    pub(crate) peer: Addr,
    pub(crate) local: Addr,
    pub(crate) credentials: Option<PeerCredentials>,
    pub(crate) proxy: Option<Arc<ProxyHeader>>,
    pub(crate) server: ServerHandle,
}

impl Incoming {
    /// Returns the address of the client that has connected, or has sent the datagram. Behind a
    /// [proxy](crate::ServerBuilder::proxy_protocol) it is the client's address, as the proxy gave it.
    pub fn peer_addr(&self) -> &Addr {
        &self.peer
    }

    /// Returns the server's address that the client has connected to. [`Addr::Unnamed`] if the system does
    /// not tell it.
    pub fn local_addr(&self) -> &Addr {
        &self.local
    }

    /// Returns the process, user and group that have connected over a Unix socket. `None` over TCP, or if the
    /// system does not tell it.
    pub fn peer_credentials(&self) -> Option<PeerCredentials> {
        self.credentials
    }

    /// Returns what the proxy has told of this connection. `None` without
    /// [`proxy_protocol`](crate::ServerBuilder::proxy_protocol), and for a connection that was served
    /// directly.
    pub fn proxy_header(&self) -> Option<&ProxyHeader> {
        self.proxy.as_deref()
    }

    /// Returns the handle of the server: its counters, its stop.
    pub fn server(&self) -> &ServerHandle {
        &self.server
    }
}

/// The hook `service_actions` and its pace.
pub(crate) struct Actions {
    pub(crate) every: Duration,
    pub(crate) hook: Box<dyn Fn() + Send + Sync>,
}
