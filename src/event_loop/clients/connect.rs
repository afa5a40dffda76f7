//! Clients: what a program asks for. How it is done stands in `dial`.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use crate::event_loop::clients::reconnect::Reconnect;
use crate::event_loop::primitives::slab::ConnId;
use crate::event_loop::state::context::Context;
use crate::event_loop::state::factory::Factory;
use crate::net::Address;

/// Where to connect to, and how: for [`Context::connect`].
///
/// ```
/// use std::time::Duration;
/// use socketserver::{Connect, Reconnect};
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

impl Context<'_> {
    /// Connects to `HOST:PORT`, and serves the connection with a protocol of this factory: 30 s for the name and the
    /// connection, and one attempt. [`connect`](Self::connect) takes other settings.
    ///
    /// Nothing of it happens within this callback: then `start_factory`, if this is the factory's first use, and
    /// `build_protocol` and the protocol's callbacks, or [`connection_failed`](Factory::connection_failed); and when
    /// nothing is left, `stop_factory`.
    pub fn connect_tcp(&mut self, address: impl Into<Address>, factory: impl Factory + 'static) -> Connector {
        self.connect(Connect::to(address), factory)
    }

    /// Connects to a Unix socket. While the server's queue is full, it is tried again until the timeout (30 s).
    pub fn connect_unix(&mut self, path: impl Into<PathBuf>, factory: impl Factory + 'static) -> Connector {
        self.connect(Connect::to(path.into()), factory)
    }

    /// As [`connect_tcp`](Self::connect_tcp), with settings.
    ///
    /// A connection that this side has made takes no place under the connection limit, and is in none of the counters;
    /// its errors and panics are logged and told to the error hook as those of others, and a stop drains it as others.
    /// `TCP_NODELAY` and `SO_KEEPALIVE` are on.
    pub fn connect(&mut self, to: Connect, factory: impl Factory + 'static) -> Connector {
        self.state.connect(to, Rc::new(factory))
    }

    /// Stops the attempt that is under way, which is told as [`ConnectFailure::Stopped`](crate::ConnectFailure::Stopped)
    /// when this callback has returned, or the wait for the next one; `false` if there is neither. A connection stays,
    /// and is made again as the policy says when it is lost.
    pub fn stop_connecting(&mut self, connector: Connector) -> bool {
        self.state.stop_connecting(connector)
    }

    /// As [`stop_connecting`](Self::stop_connecting), and no attempt follows any more (Twisted's `stopTrying`). A
    /// connection stays. `false` if the connector is gone.
    pub fn stop_reconnecting(&mut self, connector: Connector) -> bool {
        self.state.stop_reconnecting(connector)
    }

    /// As [`stop_reconnecting`](Self::stop_reconnecting), and closes the connection, if there is one. `false` if the
    /// connector is gone.
    pub fn disconnect(&mut self, connector: Connector) -> bool {
        self.state.disconnect(connector)
    }

    /// Connects again, at once: between two attempts, and in the callbacks that tell of the end, `connection_failed` and
    /// `connection_lost` ([`Lost::connector`](crate::Lost::connector) says whose). `false` while there is an attempt or
    /// a connection, when the connector is gone, and while the loop stops.
    pub fn connect_again(&mut self, connector: Connector) -> bool {
        self.state.connect_again(connector)
    }

    /// How far it is.
    pub fn connector_state(&self, connector: Connector) -> ConnectorState {
        self.state.connector_state(connector)
    }

    /// Its connection; `None` while it has none.
    pub fn connection_of(&self, connector: Connector) -> Option<ConnId> {
        self.state.connection_of(connector)
    }
}
