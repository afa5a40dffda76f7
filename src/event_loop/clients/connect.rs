//! What a program asks for when it connects. `services::clients` does it.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use crate::event_loop::clients::reconnect::Reconnect;
use crate::event_loop::primitives::slab::ConnId;
use crate::net::Address;
use crate::tls::{Session, TlsClientConfig};

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
    /// What the client trusts. Without the feature there is no such value.
    pub(crate) tls: Option<TlsClientConfig>,
    /// The name that the server's certificate must have; `None`: the one in the address.
    pub(crate) server_name: Option<String>,
}

impl Connect {
    /// Connects to this address, with the defaults. A thread beside the loop looks up a name. Its addresses are tried
    /// in the resolver's order.
    pub fn to(address: impl Into<Address>) -> Self {
        Self {
            address: address.into(),
            timeout: Duration::from_secs(30),
            bind_address: None,
            reconnect: None,
            tls: None,
            server_name: None,
        }
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

    /// Connects by TLS. [`connection_made`](crate::Protocol::connection_made) comes after the handshake, and
    /// [`Transport::tls`](crate::Transport::tls) says what was agreed upon. The time limit of the attempt covers the
    /// handshake. If that fails, [`connection_failed`](crate::event_loop::Factory::connection_failed) gets
    /// [`ConnectFailure::Tls`](crate::event_loop::ConnectFailure::Tls).
    ///
    /// A connection of a `TestLoop` stays in plain text: a test reads what the protocol writes.
    #[cfg(feature = "__tls")]
    pub fn tls(mut self, config: &TlsClientConfig) -> Self {
        self.tls = Some(config.clone());
        self
    }

    /// Sets the name that the server's certificate must have, and that the client asks for (SNI). Defaults to the host
    /// in the address. A Unix socket has none, so it must be set there.
    #[cfg(feature = "__tls")]
    pub fn server_name(mut self, name: impl Into<String>) -> Self {
        self.server_name = Some(name.into());
        self
    }

    /// Begins the client's session, if it is to have one.
    pub(crate) fn session(&self) -> io::Result<Option<Session>> {
        let Some(config) = &self.tls else { return Ok(None) };
        let host = match &self.address {
            Address::Tcp(text) => text.rsplit_once(':').map(|(host, _)| host.trim_matches(['[', ']'])),
            _ => None,
        };
        let name = self.server_name.as_deref().or(host).unwrap_or_default();
        Session::client(config, name).map(Some)
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
