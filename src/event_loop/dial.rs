//! Clients: from an address to a connection, and again.
//!
//! What a program asks for within a callback is only noted; the next step is taken when that has returned, so that a
//! factory is never called within its own call.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::sys::socket::{SockaddrStorage, UnixAddr};

use super::conn::{Conn, Origin};
use super::connect::{Connect, Connector, ConnectorState};
use super::connect_error::{ConnectError, ConnectFailure};
use super::context::Context;
use super::factory::Factory;
use super::io::Io;
use super::lost::LostReason;
use super::slab::{ConnId, Slab};
use super::state::{token, Soon, State, Task};
use super::timers::{TimerId, NEVER};
use crate::connection::Socket;
use crate::listen::{resolve, Addr, Address};
use crate::sys::{socket, Readiness};

/// While a Unix server's queue is full, the first pause between two tries, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LAST_PAUSE: Duration = Duration::from_millis(500);

/// The loop's clients.
pub(super) struct Dials {
    all: Slab<Dial>,
    /// How many attempts have begun.
    attempts: u64,
    #[cfg(feature = "testing")]
    pub(super) script: Option<super::test_loop::Script>,
}

impl Dials {
    pub(super) fn new(home: u32) -> Self {
        Self {
            all: Slab::new(home),
            attempts: 0,
            #[cfg(feature = "testing")]
            script: None,
        }
    }

    #[cfg(feature = "testing")]
    pub(super) fn attempts(&self) -> u64 {
        self.attempts
    }
}

/// One client.
struct Dial {
    to: Connect,
    factory: Rc<dyn Factory>,
    stage: Stage,
    /// How many attempts have followed by themselves on the first failure or loss, in a row.
    retries: u32,
}

enum Stage {
    /// An attempt begins when this callback has returned.
    Queued,
    Trying(Attempt),
    Connected {
        id: ConnId,
        since: Instant,
    },
    /// The next attempt begins with this timer.
    Waiting(TimerId),
    /// The callbacks of the end are called; whether another attempt was asked for.
    Over {
        again: bool,
    },
    /// The program has stopped it, which is told when this callback has returned, if it was an attempt.
    Stopped {
        tell: bool,
    },
}

struct Attempt {
    number: u64,
    since: Instant,
    deadline: Instant,
    /// For the end of its time, of an address's share of it, or of a pause.
    timer: TimerId,
    /// The addresses that are still to be tried.
    rest: VecDeque<Addr>,
    tried: Vec<(Addr, io::Error)>,
    /// The address that is being tried; `None` while the name is being resolved.
    current: Option<Addr>,
    socket: Option<Socket>,
    /// The last pause, where the server's queue is full.
    pause: Option<Duration>,
}

/// At which act it has failed, and the system's answer.
type Failed = (&'static str, io::Error);

impl Dials {
    fn attempt(&mut self, connector: Connector) -> Option<&mut Attempt> {
        match &mut self.all.get_mut(connector.0)?.stage {
            Stage::Trying(attempt) => Some(attempt),
            _ => None,
        }
    }
}

impl Dial {
    /// In what time the next attempt follows by itself, if it does.
    fn next_delay(&mut self) -> Option<Duration> {
        let delay = self.to.reconnect?.delay(self.retries)?;
        self.retries = self.retries.saturating_add(1);
        Some(delay)
    }
}

impl State {
    pub(super) fn connect(&mut self, to: Connect, factory: Rc<dyn Factory>) -> Connector {
        if self.users.add(&factory) {
            let factory = factory.clone();
            self.soon.push_back(Soon::Call(Box::new(move |cx| factory.start_factory(cx))));
        }
        self.enter(to, factory)
    }

    pub(super) fn connect_from_outside(&mut self, to: Connect, factory: Rc<dyn Factory>) -> Connector {
        if self.users.add(&factory) {
            self.call_free("start_factory", |cx| factory.start_factory(cx));
        }
        self.enter(to, factory)
    }

    fn enter(&mut self, to: Connect, factory: Rc<dyn Factory>) -> Connector {
        let stage = if self.drain.is_some() { Stage::Stopped { tell: true } } else { Stage::Queued };
        let connector = Connector(self.dials.all.insert(Dial { to, factory, stage, retries: 0 }));
        self.soon.push_back(Soon::Connect(connector));
        connector
    }

    pub(super) fn stop_connecting(&mut self, connector: Connector) -> bool {
        let Some(dial) = self.dials.all.get_mut(connector.0) else { return false };
        let tell = match &dial.stage {
            Stage::Queued | Stage::Trying(_) => true,
            Stage::Waiting(_) => false,
            Stage::Connected { .. } | Stage::Over { .. } | Stage::Stopped { .. } => return false,
        };
        match std::mem::replace(&mut dial.stage, Stage::Stopped { tell }) {
            Stage::Trying(attempt) => self.hang_up(attempt),
            Stage::Waiting(timer) => drop(self.timers.cancel(timer)),
            _ => {}
        }
        self.soon.push_back(Soon::Connect(connector));
        true
    }

    pub(super) fn stop_reconnecting(&mut self, connector: Connector) -> bool {
        let Some(dial) = self.dials.all.get_mut(connector.0) else { return false };
        dial.to.reconnect = None;
        if let Stage::Over { again } = &mut dial.stage {
            *again = false;
        }
        self.stop_connecting(connector);
        true
    }

    pub(super) fn disconnect(&mut self, connector: Connector) -> bool {
        let connection = self.connection_of(connector);
        connection.into_iter().for_each(|id| self.end(id, LostReason::Closed));
        self.stop_reconnecting(connector)
    }

    pub(super) fn connect_again(&mut self, connector: Connector) -> bool {
        let drains = self.drain.is_some();
        let Some(dial) = self.dials.all.get_mut(connector.0).filter(|_| !drains) else { return false };
        match &mut dial.stage {
            Stage::Over { again } => *again = true,
            Stage::Waiting(timer) => {
                self.timers.cancel(*timer);
                dial.stage = Stage::Queued;
                self.soon.push_back(Soon::Connect(connector));
            }
            Stage::Queued | Stage::Trying(_) | Stage::Connected { .. } | Stage::Stopped { .. } => return false,
        }
        true
    }

    pub(super) fn connector_state(&self, connector: Connector) -> ConnectorState {
        match self.dials.all.get(connector.0).map(|dial| &dial.stage) {
            Some(Stage::Queued | Stage::Trying(_)) => ConnectorState::Connecting,
            Some(Stage::Connected { .. }) => ConnectorState::Connected,
            _ => ConnectorState::Disconnected,
        }
    }

    pub(super) fn connection_of(&self, connector: Connector) -> Option<ConnId> {
        match self.dials.all.get(connector.0)?.stage {
            Stage::Connected { id, .. } => Some(id),
            _ => None,
        }
    }

    /// What was noted within a callback.
    pub(super) fn go_on_connecting(&mut self, connector: Connector) {
        match self.dials.all.get(connector.0).map(|dial| &dial.stage) {
            Some(Stage::Queued) => self.begin_attempt(connector),
            Some(Stage::Stopped { tell: true }) => self.attempt_failed(connector, ConnectFailure::Stopped, Vec::new()),
            Some(Stage::Stopped { tell: false }) => self.release(connector),
            _ => {}
        }
    }

    fn begin_attempt(&mut self, connector: Connector) {
        self.dials.attempts += 1;
        let (number, since) = (self.dials.attempts, self.clock.now());
        let Some(dial) = self.dials.all.get_mut(connector.0) else { return };
        let time = dial.to.timeout.min(NEVER);
        dial.stage = Stage::Trying(Attempt {
            number,
            since,
            deadline: since + time,
            timer: self.timers.set(since, time, Task::Connect(connector)),
            rest: VecDeque::new(),
            tried: Vec::new(),
            current: None,
            socket: None,
            pause: None,
        });
        let address = dial.to.address.clone();
        if self.connect_in_memory(connector, &address) {
            return;
        }
        match known(&address) {
            Ok(Some(addr)) => self.has_addresses(connector, [addr].into()),
            Ok(None) => self.resolve(connector, number, address),
            Err(e) => self.give_up(connector, ConnectFailure::System { act: "connect to", source: e }),
        }
    }

    fn resolve(&mut self, connector: Connector, number: u64, address: Address) {
        let resolve = move || match address {
            Address::Tcp(name) => resolve(&name),
            Address::Unix(_) | Address::Abstract(_) => Ok(Vec::new()),
        };
        Context { state: self }.blocking(resolve, move |cx, found| {
            // Otherwise it was stopped meanwhile, or its time is over.
            if cx.state.dials.attempt(connector).is_some_and(|attempt| attempt.number == number) {
                match found {
                    Ok(Ok(found)) => cx.state.has_addresses(connector, found.into_iter().map(Addr::Ip).collect()),
                    Ok(Err(e)) => cx.state.give_up(connector, ConnectFailure::Resolve(e)),
                    Err(e) => cx.state.give_up(connector, ConnectFailure::Resolve(io::Error::other(e))),
                }
            }
        });
    }

    fn has_addresses(&mut self, connector: Connector, mut found: VecDeque<Addr>) {
        let Some(dial) = self.dials.all.get_mut(connector.0) else { return };
        let Stage::Trying(attempt) = &mut dial.stage else { return };
        if let Some(local) = dial.to.bind_address {
            found.retain(|addr| addr.socket_addr().map_or(true, |addr| addr.is_ipv4() == local.is_ipv4()));
        }
        attempt.rest = found;
        if attempt.rest.is_empty() {
            let why = "it has no address of the local one's family";
            let source = io::Error::new(io::ErrorKind::AddrNotAvailable, why);
            return self.give_up(connector, ConnectFailure::System { act: "connect to", source });
        }
        self.try_next(connector);
    }

    /// Tries the next address: it has its share of the time that is left.
    fn try_next(&mut self, connector: Connector) {
        let now = self.clock.now();
        let Some(dial) = self.dials.all.get_mut(connector.0) else { return };
        let Stage::Trying(attempt) = &mut dial.stage else { return };
        let left = attempt.deadline.saturating_duration_since(now);
        let share = left / u32::try_from(attempt.rest.len()).unwrap_or(u32::MAX).max(1);
        self.timers.reset(attempt.timer, now, share);
        let Some(addr) = attempt.rest.pop_front() else { return };
        let opened = open(&addr, dial.to.bind_address);
        attempt.current = Some(addr);
        match opened {
            Ok(socket) => {
                attempt.socket = Some(socket);
                self.call_server(connector);
            }
            Err(failed) => self.has_failed(connector, failed),
        }
    }

    /// Connects the socket, or begins to.
    fn call_server(&mut self, connector: Connector) {
        let Some(Attempt { current: Some(addr), socket: Some(socket), .. }) = self.dials.attempt(connector) else {
            return;
        };
        let is_unix = matches!(socket, Socket::Unix(_));
        match connect(socket, addr) {
            Ok(true) => self.has_connected(connector),
            Ok(false) => {
                let (fd, wanted) = (socket.as_fd(), Readiness { write: true, ..Readiness::default() });
                if let Err(e) = self.poller.add(fd, wanted, token::CONNECTORS | connector.0.token()) {
                    self.has_failed(connector, ("watch the socket to connect to", e));
                }
            }
            Err(e) if is_unix && e.kind() == io::ErrorKind::WouldBlock => self.pause_for_the_queue(connector),
            Err(e) => self.has_failed(connector, ("connect to", e)),
        }
    }

    /// A Unix server's queue is full, and no event tells when it has room.
    fn pause_for_the_queue(&mut self, connector: Connector) {
        let now = self.clock.now();
        let Some(attempt) = self.dials.attempt(connector) else { return };
        let pause = attempt.pause.map_or(FIRST_PAUSE, |last| (last * 2).min(LAST_PAUSE));
        attempt.pause = Some(pause);
        let (timer, left) = (attempt.timer, attempt.deadline.saturating_duration_since(now));
        self.timers.reset(timer, now, pause.min(left));
    }

    /// The socket of an attempt has something to tell.
    pub(super) fn connect_is_ready(&mut self, token: u64, ready: Readiness) {
        let connector = Connector(self.dials.all.id(token & !token::CONNECTORS));
        let Some(Attempt { socket: Some(socket), .. }) = self.dials.attempt(connector) else { return };
        match socket::is_connected(socket.as_fd()) {
            Ok(true) => self.has_connected(connector),
            Ok(false) if !ready.hangup => {}
            Ok(false) => self.has_failed(connector, ("connect to", io::ErrorKind::ConnectionReset.into())),
            Err(e) => self.has_failed(connector, ("connect to", e)),
        }
    }

    /// The timer of a client has fired.
    pub(super) fn connect_is_due(&mut self, connector: Connector) {
        let now = self.woke;
        let Some(dial) = self.dials.all.get_mut(connector.0) else { return };
        let Stage::Trying(attempt) = &mut dial.stage else {
            return self.begin_attempt(connector); // it has waited
        };
        let is_over = attempt.deadline <= now;
        // Popped timers are gone: the attempt has another one for what follows.
        attempt.timer = self.timers.set(now, attempt.deadline.saturating_duration_since(now), Task::Connect(connector));
        if attempt.current.is_none() {
            let timeout = dial.to.timeout;
            self.give_up(connector, ConnectFailure::TimedOut(timeout));
        } else if attempt.pause.is_some() && !is_over {
            self.call_server(connector);
        } else {
            self.has_failed(connector, ("connect to", io::ErrorKind::TimedOut.into()));
        }
    }

    /// The address that was tried does not answer: the next one, or the end of the attempt.
    fn has_failed(&mut self, connector: Connector, (act, e): Failed) {
        let now = self.clock.now();
        let Some(dial) = self.dials.all.get_mut(connector.0) else { return };
        let Stage::Trying(attempt) = &mut dial.stage else { return };
        (attempt.socket, attempt.pause) = (None, None);
        let addr = attempt.current.take().unwrap_or(Addr::Unnamed);
        if !attempt.rest.is_empty() {
            attempt.tried.push((addr, e));
            return self.try_next(connector);
        }
        let spent = now.saturating_duration_since(attempt.since).min(dial.to.timeout);
        self.give_up(connector, ConnectFailure::of(act, e, spent));
    }

    /// There is a connection, unless it is one of the socket to itself: from the port that it was to connect to, which
    /// nobody else had.
    fn has_connected(&mut self, connector: Connector) {
        let Some(attempt) = self.dials.attempt(connector) else { return };
        let (Some(socket), Some(addr)) = (attempt.socket.take(), attempt.current.clone()) else { return };
        if matches!(socket, Socket::Tcp(_)) && socket.local_addr().is_ok_and(|local| local == addr) {
            let _ = socket::reset_at_close(socket.as_fd());
            drop(socket);
            let refused = io::Error::from_raw_os_error(nix::libc::ECONNREFUSED);
            return self.has_failed(connector, ("connect to", refused));
        }
        self.poller.remove(&socket); // it is watched as a connection from here on
        self.serve_connected(connector, Io::Socket(socket), addr);
    }

    /// Its protocol is made, and told.
    fn serve_connected(&mut self, connector: Connector, io: Io, peer: Addr) {
        let since = self.clock.now();
        let mut conn = Conn::new(io, peer, None, (0, 0), since);
        conn.origin = Origin::Made(connector);
        let Some(dial) = self.dials.all.get_mut(connector.0) else { return };
        let id = self.conns.insert(conn);
        if let Stage::Trying(attempt) = std::mem::replace(&mut dial.stage, Stage::Connected { id, since }) {
            self.timers.cancel(attempt.timer);
        }
        let factory = dial.factory.clone();
        self.build_and_begin(&*factory, id);
    }

    fn give_up(&mut self, connector: Connector, reason: ConnectFailure) {
        let Some(dial) = self.dials.all.get_mut(connector.0) else { return };
        let tried = match std::mem::replace(&mut dial.stage, Stage::Over { again: false }) {
            Stage::Trying(mut attempt) => {
                let tried = std::mem::take(&mut attempt.tried);
                self.hang_up(attempt);
                tried
            }
            _ => Vec::new(),
        };
        self.attempt_failed(connector, reason, tried);
    }

    fn hang_up(&mut self, attempt: Attempt) {
        self.timers.cancel(attempt.timer);
    }

    fn attempt_failed(&mut self, connector: Connector, reason: ConnectFailure, tried: Vec<(Addr, io::Error)>) {
        let goes_on = self.drain.is_none() && !matches!(reason, ConnectFailure::Stopped);
        let Some(dial) = self.dials.all.get_mut(connector.0) else { return };
        dial.stage = Stage::Over { again: false };
        let retry_in = if goes_on { dial.next_delay() } else { None };
        let (address, factory) = (dial.to.address.clone(), dial.factory.clone());
        let error = ConnectError { connector, address, reason, tried, retry_in };
        self.call_free("connection_failed", |cx| factory.connection_failed(cx, &error));
        self.go_on_after_the_end(connector, retry_in);
    }

    /// Its connection is gone; the protocol is told now, and may ask for another.
    pub(super) fn has_lost_connection(&mut self, connector: Connector) {
        let now = self.clock.now();
        let Some(dial) = self.dials.all.get_mut(connector.0) else { return };
        if let Stage::Connected { since, .. } = dial.stage {
            if dial.to.reconnect.is_some_and(|policy| policy.is_stable(now.saturating_duration_since(since))) {
                dial.retries = 0;
            }
        }
        dial.stage = Stage::Over { again: false };
    }

    /// The protocol has been told.
    pub(super) fn after_the_connection(&mut self, connector: Connector) {
        let delay = self.dials.all.get_mut(connector.0).and_then(Dial::next_delay);
        self.go_on_after_the_end(connector, delay);
    }

    fn go_on_after_the_end(&mut self, connector: Connector, delay: Option<Duration>) {
        let (now, drains) = (self.clock.now(), self.drain.is_some());
        let Some(dial) = self.dials.all.get_mut(connector.0) else { return };
        let again = matches!(dial.stage, Stage::Over { again: true });
        match delay.filter(|_| dial.to.reconnect.is_some()) {
            _ if drains => self.release(connector),
            _ if again => {
                dial.stage = Stage::Queued;
                self.soon.push_back(Soon::Connect(connector));
            }
            Some(delay) => dial.stage = Stage::Waiting(self.timers.set(now, delay, Task::Connect(connector))),
            None => self.release(connector),
        }
    }

    /// Nothing is left of it.
    fn release(&mut self, connector: Connector) {
        let Some(Dial { factory, .. }) = self.dials.all.remove(connector.0) else { return };
        if self.users.remove(&factory) {
            self.call_free("stop_factory", |cx| factory.stop_factory(cx));
        }
    }

    /// The loop stops: what is not connected yet is not connected any more.
    pub(super) fn stop_connecting_all(&mut self) {
        for id in self.dials.all.ids() {
            self.stop_connecting(Connector(id));
        }
    }

    /// The loop is at its end, and all connections are gone.
    pub(super) fn end_connectors(&mut self) {
        self.stop_connecting_all();
        for id in self.dials.all.ids() {
            self.go_on_connecting(Connector(id));
        }
    }

    #[cfg(not(feature = "testing"))]
    #[allow(clippy::unused_self)]
    fn connect_in_memory(&mut self, _: Connector, _: &Address) -> bool {
        false
    }

    /// In a test's loop nothing connects but as the test says: whether this is one.
    #[cfg(feature = "testing")]
    fn connect_in_memory(&mut self, connector: Connector, address: &Address) -> bool {
        let Some(script) = &mut self.dials.script else { return false };
        let outcome = script.outcomes.pop_front();
        let peer = address.to_string().parse().unwrap_or(Addr::Unnamed);
        if let Some(attempt) = self.dials.attempt(connector) {
            attempt.current = Some(peer.clone());
        }
        match outcome {
            Some(Ok(())) => {
                let memory = super::memory::Memory::default();
                self.serve_connected(connector, Io::Memory(memory.clone()), peer);
                let made = self.connection_of(connector);
                made.into_iter().for_each(|id| self.in_memory.push(id));
                let script = self.dials.script.iter_mut();
                script.for_each(|script| script.made.extend(made.map(|id| (id, memory.clone()))));
            }
            Some(Err(e)) => self.has_failed(connector, ("connect to", e)),
            None => {} // until its time is over
        }
        true
    }
}

/// The address itself, where there is nothing to resolve.
fn known(address: &Address) -> io::Result<Option<Addr>> {
    address.check()?;
    Ok(match address {
        Address::Tcp(text) => text.parse().ok().map(Addr::Ip),
        Address::Unix(path) => Some(Addr::Unix(path.clone())),
        Address::Abstract(name) => Some(Addr::Abstract(name.clone())),
    })
}

fn open(to: &Addr, from: Option<SocketAddr>) -> Result<Socket, Failed> {
    match to.socket_addr() {
        Some(addr) => socket::open_tcp(addr, from).map(|fd| Socket::Tcp(fd.into())),
        None => socket::open_unix().map(|fd| Socket::Unix(fd.into())),
    }
}

/// Whether it is connected already.
fn connect(socket: &Socket, to: &Addr) -> io::Result<bool> {
    let fd = socket.as_fd();
    match to {
        Addr::Ip(addr) => socket::connect(fd, &SockaddrStorage::from(*addr)),
        Addr::Unix(path) => socket::connect(fd, &UnixAddr::new(path)?),
        Addr::Abstract(name) => socket::connect(fd, &UnixAddr::new_abstract(name)?),
        Addr::Unnamed => Err(io::ErrorKind::InvalidInput.into()),
    }
}

#[cfg(test)]
#[cfg(feature = "testing")]
mod tests;
