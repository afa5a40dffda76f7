//! Clients: from an address to a connection, and again.
//!
//! What a program asks for within a callback is only noted. The next step follows when the callback has returned, so a
//! factory is never called within its own call.
//!
//! Clients take no permit and are in no counter, because those count served connections. A server whose backends
//! counted against its limit would refuse clients for them. At a stop, attempts and waits are cancelled: a drain is
//! for conversations that are under way.

use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use crate::event_loop::clients::attempt::Attempt;
use crate::event_loop::clients::connect::{Connect, Connector, ConnectorState};
use crate::event_loop::clients::connect_error::{ConnectError, ConnectFailure};
use crate::event_loop::clients::{Client, Stage};
use crate::event_loop::io::Io;
use crate::event_loop::primitives::slab::ConnId;
use crate::event_loop::state::conn::{Conn, Origin};
use crate::event_loop::state::context::Context;
use crate::event_loop::state::factory::Factory;
use crate::event_loop::state::lost::LostReason;
use crate::event_loop::state::work::{Deferred, TimerTask};
use crate::event_loop::state::State;
use crate::net::{Addr, Address};
#[cfg(feature = "__tls")]
use crate::tls::TlsClientConfig;

/// How long a new client waits for its `connection_failed` in a loop that drains. So a client that asks for another one
/// then does not keep the loop busy.
const REFUSED: Duration = Duration::from_millis(100);

impl State {
    /// Makes a client. Its first attempt begins when no callback runs.
    pub(crate) fn connect(&mut self, to: Connect, factory: Rc<dyn Factory>) -> Connector {
        if self.ports.factory_refs.add(&factory) {
            self.queues.deferred.push_back(Deferred::Start(factory.clone()));
        }
        self.add_client(to, factory)
    }

    fn add_client(&mut self, to: Connect, factory: Rc<dyn Factory>) -> Connector {
        // A loop that drains connects no more. The client learns it by `connection_failed`.
        let drains = self.stop.drain.is_some();
        let stage = if drains { Stage::Stopped { tell: true } } else { Stage::Queued };
        let connector = Connector(self.clients.all.insert(Client { to, factory, stage, retries: 0 }));
        if drains {
            self.time.timers.set(self.time.clock.now(), REFUSED, TimerTask::Connect(connector));
        } else {
            self.queues.deferred.push_back(Deferred::Connect(connector));
        }
        connector
    }

    /// Stops the attempt, or the wait for the next one. `false` if there is neither.
    pub(crate) fn stop_connecting(&mut self, connector: Connector) -> bool {
        let Some(client) = self.clients.all.get_mut(connector.0) else { return false };
        let tell = match &client.stage {
            Stage::Queued | Stage::Trying(_) => true,
            Stage::Waiting(_) => false,
            Stage::Connected { .. } | Stage::Over { .. } | Stage::Stopped { .. } => return false,
        };
        match std::mem::replace(&mut client.stage, Stage::Stopped { tell }) {
            Stage::Trying(attempt) => self.drop_attempt(attempt),
            Stage::Waiting(timer) => drop(self.time.timers.cancel(timer)),
            _ => {}
        }
        self.queues.deferred.push_back(Deferred::Connect(connector));
        true
    }

    /// Stops the attempt or the wait, and prevents another one. `false` if the client is gone.
    pub(crate) fn stop_reconnecting(&mut self, connector: Connector) -> bool {
        let Some(client) = self.clients.all.get_mut(connector.0) else { return false };
        client.to.reconnect = None;
        if let Stage::Over { again } = &mut client.stage {
            *again = false;
        }
        self.stop_connecting(connector);
        true
    }

    pub(crate) fn disconnect(&mut self, connector: Connector) -> bool {
        let connection = self.connection_of(connector);
        connection.into_iter().for_each(|id| self.end(id, LostReason::Closed));
        self.stop_reconnecting(connector)
    }

    /// Begins another attempt now; `false` if one is under way, or the loop drains.
    pub(crate) fn connect_again(&mut self, connector: Connector) -> bool {
        let drains = self.stop.drain.is_some();
        let Some(client) = self.clients.all.get_mut(connector.0).filter(|_| !drains) else { return false };
        match &mut client.stage {
            Stage::Over { again } => *again = true,
            Stage::Waiting(timer) => {
                self.time.timers.cancel(*timer);
                client.stage = Stage::Queued;
                self.queues.deferred.push_back(Deferred::Connect(connector));
            }
            Stage::Queued | Stage::Trying(_) | Stage::Connected { .. } | Stage::Stopped { .. } => return false,
        }
        true
    }

    pub(crate) fn connector_state(&self, connector: Connector) -> ConnectorState {
        match self.clients.all.get(connector.0).map(|client| &client.stage) {
            Some(Stage::Queued | Stage::Trying(_)) => ConnectorState::Connecting,
            Some(Stage::Connected { .. }) => ConnectorState::Connected,
            _ => ConnectorState::Disconnected,
        }
    }

    pub(crate) fn connection_of(&self, connector: Connector) -> Option<ConnId> {
        match self.clients.all.get(connector.0)?.stage {
            Stage::Connected { id, .. } => Some(id),
            _ => None,
        }
    }

    /// Takes the step that was noted within a callback.
    pub(crate) fn continue_connecting(&mut self, connector: Connector) {
        match self.clients.all.get(connector.0).map(|client| &client.stage) {
            Some(Stage::Queued) => self.begin_attempt(connector),
            Some(Stage::Stopped { tell: true }) => self.report_failure(connector, ConnectFailure::Stopped, Vec::new()),
            Some(Stage::Stopped { tell: false }) => self.release(connector),
            _ => {}
        }
    }

    /// Enters the new connection into the loop, builds its protocol and begins.
    pub(crate) fn serve_connected(&mut self, connector: Connector, io: Io, peer: Addr) {
        let since = self.time.clock.now();
        let conn = Conn::new(io, peer, Origin::Made(connector), None, since);
        let Some(client) = self.clients.all.get_mut(connector.0) else { return };
        let id = self.conns.insert(conn);
        // The attempt is over: its timer must not fire for the connection.
        if let Stage::Trying(attempt) = std::mem::replace(&mut client.stage, Stage::Connected { id, since }) {
            self.time.timers.cancel(attempt.timer);
        }
        let factory = client.factory.clone();
        self.build_and_begin(&*factory, id);
    }

    /// Ends an attempt, and reports why.
    pub(crate) fn fail_attempt(&mut self, connector: Connector, reason: ConnectFailure) {
        let Some(client) = self.clients.all.get_mut(connector.0) else { return };
        let tried = match std::mem::replace(&mut client.stage, Stage::Over { again: false }) {
            Stage::Trying(mut attempt) => {
                let tried = std::mem::take(&mut attempt.tried);
                self.drop_attempt(attempt);
                tried
            }
            _ => Vec::new(),
        };
        self.report_failure(connector, reason, tried);
    }

    /// Releases the timer, the lookup and the socket of an attempt.
    fn drop_attempt(&mut self, attempt: Attempt) {
        self.time.timers.cancel(attempt.timer);
        attempt.lookup.into_iter().for_each(|lookup| self.core.lookups.forget(lookup));
        attempt.socket.into_iter().for_each(|socket| self.poller.forget(&socket));
    }

    /// Calls `connection_failed`, and plans what follows.
    fn report_failure(&mut self, connector: Connector, reason: ConnectFailure, tried: Vec<(Addr, io::Error)>) {
        // No attempt follows at a stop, nor after the program has stopped the client.
        let goes_on = self.stop.drain.is_none() && !matches!(reason, ConnectFailure::Stopped);
        let Some(client) = self.clients.all.get_mut(connector.0) else { return };
        client.stage = Stage::Over { again: false };
        let retry_in = if goes_on { client.next_delay() } else { None };
        let (address, factory) = (client.to.address.clone(), client.factory.clone());
        let error = ConnectError { connector, address, reason, tried, retry_in };
        self.call_free("connection_failed", |cx| factory.connection_failed(cx, &error));
        self.plan_next_attempt(connector, retry_in);
    }

    /// Cancels all attempts and waits, because the loop stops.
    pub(crate) fn stop_connecting_all(&mut self) {
        for id in self.clients.all.ids() {
            self.stop_connecting(Connector(id));
        }
    }

    /// Ends all clients, at the end of the loop. All connections are gone.
    pub(crate) fn end_clients(&mut self) {
        self.end_closed_ports(); // a factory is stopped before it is started again
        self.stop_connecting_all();
        for id in self.clients.all.ids() {
            let factory = self.clients.all.get(id).map(|client| client.factory.clone());
            // Its end is called, so its beginning is called before.
            if let Some(factory) = factory.filter(|factory| self.cancel_start(factory)) {
                self.start_factory(&factory);
            }
            self.continue_connecting(Connector(id));
        }
        // Clients that `connection_failed` has asked for above. They are not called: they could ask for others.
        for id in self.clients.all.ids() {
            self.release(Connector(id));
        }
    }

    #[cfg(not(feature = "testing"))]
    #[allow(clippy::unused_self)]
    pub(crate) fn connect_in_memory(&mut self, _: Connector, _: &Address) -> bool {
        false
    }

    /// Connects as the test says; `false` outside of a test's loop.
    #[cfg(feature = "testing")]
    pub(crate) fn connect_in_memory(&mut self, connector: Connector, address: &Address) -> bool {
        let Some(script) = &mut self.clients.script else { return false };
        let outcome = script.outcomes.pop_front();
        let peer = address.to_string().parse().unwrap_or(Addr::Unnamed);
        if let Some(attempt) = self.clients.attempt(connector) {
            attempt.current = Some(peer.clone());
        }
        match outcome {
            Some(Ok(())) => {
                let memory = crate::event_loop::io::memory::Memory::default();
                self.serve_connected(connector, Io::Memory(memory.clone()), peer);
                let made = self.connection_of(connector);
                made.into_iter().for_each(|id| self.unpolled.memory.push(id));
                let script = self.clients.script.iter_mut();
                script.for_each(|script| script.made.extend(made.map(|id| (id, memory.clone()))));
            }
            Some(Err(e)) => self.fail_address(connector, ("connect to", e)),
            None => {} // no answer until its time is over
        }
        true
    }
}

impl Context<'_> {
    /// Connects to `HOST:PORT`, and serves the connection with a protocol of this factory. It makes one attempt, within
    /// 30 s for the name and the connection. [`connect`](Self::connect) takes other settings.
    ///
    /// Everything follows after this callback. `start_factory` comes first, if this is the factory's first use. Then
    /// comes `build_protocol` with the protocol's callbacks, or [`connection_failed`](Factory::connection_failed). When
    /// nothing is left, `stop_factory` is called.
    pub fn connect_tcp(&mut self, address: impl Into<Address>, factory: impl Factory + 'static) -> Connector {
        self.connect(Connect::to(address), factory)
    }

    /// Connects to `HOST:PORT` by TLS. The server's certificate must name HOST.
    /// [`Connect::tls`](crate::event_loop::Connect::tls) has more settings.
    ///
    /// ```no_run
    /// use socketserver::tls::TlsClientConfig;
    /// # use socketserver::event_loop::Factory;
    /// # fn connect(
    /// #     cx: &mut socketserver::Context<'_>,
    /// #     factory: impl Factory + 'static,
    /// # ) -> socketserver::Result<()> {
    /// let trust = TlsClientConfig::system_roots()?;
    /// cx.connect_tls("example.org:443", &trust, factory);
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "__tls")]
    pub fn connect_tls(
        &mut self,
        address: impl Into<Address>,
        config: &TlsClientConfig,
        factory: impl Factory + 'static,
    ) -> Connector {
        self.connect(Connect::to(address).tls(config), factory)
    }

    /// Connects to a Unix socket. While the server's queue is full, it tries again until the timeout (30 s).
    pub fn connect_unix(&mut self, path: impl Into<PathBuf>, factory: impl Factory + 'static) -> Connector {
        self.connect(Connect::to(path.into()), factory)
    }

    /// Connects as [`connect_tcp`](Self::connect_tcp) does, with settings.
    ///
    /// A client's connection does not count against the connection limit, and is in none of the counters. Its errors
    /// and panics reach the log and the error hook, and a stop drains it, as with other connections. `TCP_NODELAY` and
    /// `SO_KEEPALIVE` are on.
    pub fn connect(&mut self, to: Connect, factory: impl Factory + 'static) -> Connector {
        self.state.connect(to, Rc::new(factory))
    }

    /// Stops the attempt that is under way, or the wait for the next one; `false` if there is neither. A stopped
    /// attempt is reported as [`ConnectFailure::Stopped`](crate::event_loop::ConnectFailure::Stopped) after this
    /// callback. A connection stays; when it is lost, the client reconnects as it is set to.
    pub fn stop_connecting(&mut self, connector: Connector) -> bool {
        self.state.stop_connecting(connector)
    }

    /// Stops as [`stop_connecting`](Self::stop_connecting) does, and no attempt follows any more (Twisted's
    /// `stopTrying`). A connection stays. `false` if the client is gone.
    pub fn stop_reconnecting(&mut self, connector: Connector) -> bool {
        self.state.stop_reconnecting(connector)
    }

    /// Stops as [`stop_reconnecting`](Self::stop_reconnecting) does, and closes the connection, if there is one.
    /// `false` if the client is gone.
    pub fn disconnect(&mut self, connector: Connector) -> bool {
        self.state.disconnect(connector)
    }

    /// Connects again at once, between two attempts or from within `connection_failed` and `connection_lost`
    /// ([`Lost::connector`](crate::Lost::connector) names the client). `false` while there is an attempt or a
    /// connection, if the client is gone, and while the loop stops.
    pub fn connect_again(&mut self, connector: Connector) -> bool {
        self.state.connect_again(connector)
    }

    /// Returns the state of a client.
    pub fn connector_state(&self, connector: Connector) -> ConnectorState {
        self.state.connector_state(connector)
    }

    /// Returns the connection of a client; `None` while it has none.
    pub fn connection_of(&self, connector: Connector) -> Option<ConnId> {
        self.state.connection_of(connector)
    }
}

#[cfg(test)]
#[cfg(feature = "testing")]
mod tests;
