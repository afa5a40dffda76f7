//! Clients: from an address to a connection, and again.
//!
//! What a program asks for within a callback is only noted; the next step is taken when that has returned, so that a
//! factory is never called within its own call.

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

/// In a loop that drains, how long a client waits to be told that it is not to be: one that asks for another then does
/// not keep the loop busy.
const REFUSED: Duration = Duration::from_millis(100);

impl State {
    pub(crate) fn connect(&mut self, to: Connect, factory: Rc<dyn Factory>) -> Connector {
        if self.ports.factory_refs.add(&factory) {
            self.queues.deferred.push_back(Deferred::Start(factory.clone()));
        }
        self.add_client(to, factory)
    }

    fn add_client(&mut self, to: Connect, factory: Rc<dyn Factory>) -> Connector {
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

    /// What was noted within a callback.
    pub(crate) fn continue_connecting(&mut self, connector: Connector) {
        match self.clients.all.get(connector.0).map(|client| &client.stage) {
            Some(Stage::Queued) => self.begin_attempt(connector),
            Some(Stage::Stopped { tell: true }) => self.report_failure(connector, ConnectFailure::Stopped, Vec::new()),
            Some(Stage::Stopped { tell: false }) => self.release(connector),
            _ => {}
        }
    }

    /// Its protocol is made, and told.
    pub(crate) fn serve_connected(&mut self, connector: Connector, io: Io, peer: Addr) {
        let since = self.time.clock.now();
        let conn = Conn::new(io, peer, Origin::Made(connector), None, since);
        let Some(client) = self.clients.all.get_mut(connector.0) else { return };
        let id = self.conns.insert(conn);
        if let Stage::Trying(attempt) = std::mem::replace(&mut client.stage, Stage::Connected { id, since }) {
            self.time.timers.cancel(attempt.timer);
        }
        let factory = client.factory.clone();
        self.build_and_begin(&*factory, id);
    }

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

    fn drop_attempt(&mut self, attempt: Attempt) {
        self.time.timers.cancel(attempt.timer);
        attempt.lookup.into_iter().for_each(|lookup| self.core.lookups.forget(lookup));
        attempt.socket.into_iter().for_each(|socket| self.poller.forget(&socket));
    }

    fn report_failure(&mut self, connector: Connector, reason: ConnectFailure, tried: Vec<(Addr, io::Error)>) {
        let goes_on = self.stop.drain.is_none() && !matches!(reason, ConnectFailure::Stopped);
        let Some(client) = self.clients.all.get_mut(connector.0) else { return };
        client.stage = Stage::Over { again: false };
        let retry_in = if goes_on { client.next_delay() } else { None };
        let (address, factory) = (client.to.address.clone(), client.factory.clone());
        let error = ConnectError { connector, address, reason, tried, retry_in };
        self.call_free("connection_failed", |cx| factory.connection_failed(cx, &error));
        self.plan_next_attempt(connector, retry_in);
    }

    /// The loop stops: what is not connected yet is not connected any more.
    pub(crate) fn stop_connecting_all(&mut self) {
        for id in self.clients.all.ids() {
            self.stop_connecting(Connector(id));
        }
    }

    /// The loop is at its end, and all connections are gone.
    pub(crate) fn end_clients(&mut self) {
        self.stop_connecting_all();
        for id in self.clients.all.ids() {
            let factory = self.clients.all.get(id).map(|client| client.factory.clone());
            if let Some(factory) = factory.filter(|factory| self.cancel_start(factory)) {
                self.start_factory(&factory); // it is told of the end, so of the beginning before
            }
            self.continue_connecting(Connector(id));
        }
        // Asked for while they were told of the end: who is told again may ask again.
        for id in self.clients.all.ids() {
            self.release(Connector(id));
        }
    }

    #[cfg(not(feature = "testing"))]
    #[allow(clippy::unused_self)]
    pub(crate) fn connect_in_memory(&mut self, _: Connector, _: &Address) -> bool {
        false
    }

    /// In a test's loop nothing connects but as the test says: whether this is one.
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
            None => {} // until its time is over
        }
        true
    }
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

    /// Stops the attempt that is under way, which is told as [`ConnectFailure::Stopped`](crate::event_loop::ConnectFailure::Stopped)
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

#[cfg(test)]
#[cfg(feature = "testing")]
mod tests;
