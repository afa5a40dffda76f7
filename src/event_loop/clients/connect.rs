//! Clients: what a program asks for. How it is done stands in `services::clients`.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use crate::event_loop::clients::reconnect::Reconnect;
use crate::event_loop::primitives::slab::ConnId;
use crate::net::Address;

/// Where to connect to, and how: for [`Context::connect`](crate::Context::connect).
///
/// ```
/// use std::time::Duration;
/// use socketserver::event_loop::{Connect, Reconnect};
///
/// let upstream = Connect::to("localhost:8080")
///     .timeout(Duration::from_secs(3))
///     .reconnect(Reconnect::new().max_delay(Duration::from_secs(5)));
/// # let _ = upstream;
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct Connect {
    pub(crate) address: Address,
    pub(crate) timeout: Duration,
    pub(crate) bind_address: Option<SocketAddr>,
    pub(crate) reconnect: Option<Reconnect>,
}

impl Connect {
    /// To this address, with the defaults. A name is resolved beside the loop, and its addresses are tried in the
    /// resolver's order.
    pub fn to(address: impl Into<Address>) -> Self {
        Self { address: address.into(), timeout: Duration::from_secs(30), bind_address: None, reconnect: None }
    }

    /// How long an attempt may take in all: to resolve the name, and to connect. Where several addresses are left to try,
    /// each has its share of the time that is left. Defaults to 30 s, as Twisted's.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The local address of a TCP connection, with port 0 for any. Addresses of the other family are not tried.
    /// Defaults to the system's choice.
    pub fn bind_address(mut self, address: impl Into<SocketAddr>) -> Self {
        self.bind_address = Some(address.into());
        self
    }

    /// Connects again by itself, after a failed attempt and after a lost connection, whoever has closed it. Defaults to
    /// no such policy.
    pub fn reconnect(mut self, policy: Reconnect) -> Self {
        self.reconnect = Some(policy);
        self
    }
}

/// A client of a reactor, from its first attempt to connect until nothing of it is left: neither an attempt, nor a
/// connection, nor another attempt to come. Afterwards it stands for nothing. `Copy` and `Send`: keep it, send it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Connector(pub(crate) ConnId);

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connector({})", self.0)
    }
}

/// How far a [`Connector`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnectorState {
    /// An attempt is under way.
    Connecting,
    /// There is a connection.
    Connected,
    /// There is none: it is between two attempts, or at its end.
    Disconnected,
}
