//! What a program asks for when it connects. `services::clients` does it.

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
    /// Connects to this address, with the defaults. A thread beside the loop looks up a name. Its addresses are tried
    /// in the resolver's order.
    pub fn to(address: impl Into<Address>) -> Self {
        Self { address: address.into(), timeout: Duration::from_secs(30), bind_address: None, reconnect: None }
    }

    /// Sets how long an attempt may take in all: to look up the name, and to connect. Each address has its share of the
    /// time left. Defaults to 30 s, as Twisted's.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets the local address of a TCP connection, with port 0 for any. Addresses of the other family are not tried.
    /// Defaults to the system's choice.
    pub fn bind_address(mut self, address: impl Into<SocketAddr>) -> Self {
        self.bind_address = Some(address.into());
        self
    }

    /// Connects again automatically after a failed attempt, and after a lost connection, whichever side closed it. The
    /// default is not to.
    pub fn reconnect(mut self, policy: Reconnect) -> Self {
        self.reconnect = Some(policy);
        self
    }
}

/// The id of a client of a reactor. It is valid from the first attempt until no attempt, no connection and no further
/// attempt is left. Afterwards it stands for nothing. It is `Copy` and `Send`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Connector(pub(crate) ConnId);

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connector({})", self.0)
    }
}

/// The state of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnectorState {
    /// An attempt is under way.
    Connecting,
    /// There is a connection.
    Connected,
    /// There is no connection: the client is between two attempts, or at its end.
    Disconnected,
}
