//! One attempt of a client: from an address to a connected socket.
//!
//! The time limit covers the lookup of the name and all its addresses.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::Duration;

use crate::event_loop::clients::attempt::{connect, known, open, Attempt, Failed, Known};
use crate::event_loop::clients::connect::Connector;
use crate::event_loop::clients::connect_error::ConnectFailure;
use crate::event_loop::clients::Stage;
use crate::event_loop::io::secured::Secured;
use crate::event_loop::io::Io;
use crate::event_loop::primitives::timers::NEVER;
use crate::event_loop::primitives::token;
use crate::event_loop::state::work::TimerTask;
use crate::event_loop::state::State;
use crate::listen::resolve;
use crate::net::{Addr, Socket};
use crate::sys::{socket, Readiness};

/// The first and the longest pause between two tries while a Unix server's queue is full.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LAST_PAUSE: Duration = Duration::from_millis(500);

impl State {
    /// Begins an attempt: looks up the name, if the address has one, and tries the addresses.
    pub(crate) fn begin_attempt(&mut self, connector: Connector) {
        self.clients.attempts += 1;
        let (number, since) = (self.clients.attempts, self.time.clock.now());
        let Some(client) = self.clients.all.get_mut(connector.0) else { return };
        let time = client.to.timeout.min(NEVER);
        client.stage = Stage::Trying(Attempt {
            number,
            since,
            deadline: since + time,
            timer: self.time.timers.set(since, time, TimerTask::Connect(connector)),
            rest: VecDeque::new(),
            tried: Vec::new(),
            current: None,
            socket: None,
            session: None,
            pause: None,
            lookup: None,
        });
        let address = client.to.address.clone();
        if self.connect_in_memory(connector, &address) {
            return;
        }
        match known(&address) {
            Ok(Known::Address(addr)) => self.try_addresses(connector, [addr].into()),
            Ok(Known::Name(name)) => self.resolve(connector, number, name),
            Err(e) => self.fail_attempt(connector, ConnectFailure::System { act: "connect to", source: e }),
        }
    }

    /// Has a thread look up the name: nothing in the system does it without a wait. These threads are not those of
    /// `blocking`: a silent name server must not hold up the program's work, nor the other way round.
    fn resolve(&mut self, connector: Connector, number: u64, name: String) {
        let inbox = self.loops.inbox.clone();
        let lookup = move || {
            let found = resolve(&name);
            // It fails only if the loop is gone.
            let _ = inbox.send(Box::new(move |cx| cx.state.take_addresses(connector, number, found)));
        };
        match self.core.lookups.give(lookup) {
            Ok(ticket) => {
                if let Some(attempt) = self.clients.attempt(connector) {
                    attempt.lookup = Some(ticket);
                }
            }
            Err(e) => self.no_thread_to_resolve(connector, &e),
        }
    }

    fn no_thread_to_resolve(&mut self, connector: Connector, e: &io::Error) {
        let text = format!("cannot start a thread: {e}; the limit on threads (RLIMIT_NPROC, pids.max) is too low");
        self.fail_attempt(connector, ConnectFailure::Resolve(io::Error::new(e.kind(), text)));
    }

    /// Takes the result of a lookup.
    pub(crate) fn take_addresses(&mut self, connector: Connector, number: u64, found: io::Result<Vec<SocketAddr>>) {
        // With another number, this attempt was stopped meanwhile, or its time is over.
        if self.clients.attempt(connector).is_some_and(|attempt| attempt.number == number) {
            match found {
                Ok(found) => self.try_addresses(connector, found.into_iter().map(Addr::Ip).collect()),
                Err(e) => self.fail_attempt(connector, ConnectFailure::Resolve(e)),
            }
        }
    }

    /// Tries the addresses in order, but only those of the local address's family.
    pub(crate) fn try_addresses(&mut self, connector: Connector, mut found: VecDeque<Addr>) {
        let Some(client) = self.clients.all.get_mut(connector.0) else { return };
        let Stage::Trying(attempt) = &mut client.stage else { return };
        // A socket that is bound to one family cannot connect to the other.
        if let Some(local) = client.to.bind_address {
            found.retain(|addr| addr.socket_addr().map_or(true, |addr| addr.is_ipv4() == local.is_ipv4()));
        }
        attempt.rest = found;
        if attempt.rest.is_empty() {
            let why = "it has no address of the local one's family";
            let source = io::Error::new(io::ErrorKind::AddrNotAvailable, why);
            return self.fail_attempt(connector, ConnectFailure::System { act: "connect to", source });
        }
        self.try_next(connector);
    }

    /// Tries the next address. It has its share of the time left, so that a dead address does not use up the time of
    /// the next.
    fn try_next(&mut self, connector: Connector) {
        let now = self.time.clock.now();
        let Some(client) = self.clients.all.get_mut(connector.0) else { return };
        let Stage::Trying(attempt) = &mut client.stage else { return };
        // Equal shares of what is left.
        let left = attempt.deadline.saturating_duration_since(now);
        let share = left / u32::try_from(attempt.rest.len()).unwrap_or(u32::MAX).max(1);
        self.time.timers.reset(attempt.timer, now, share);
        let Some(addr) = attempt.rest.pop_front() else { return };
        let opened = open(&addr, client.to.bind_address);
        attempt.current = Some(addr);
        match opened {
            Ok(socket) => {
                attempt.socket = Some(socket);
                self.connect_socket(connector);
            }
            Err(failed) => self.fail_address(connector, failed),
        }
    }

    /// Connects the socket, or begins to.
    fn connect_socket(&mut self, connector: Connector) {
        let Some(Attempt { current: Some(addr), socket: Some(socket), .. }) = self.clients.attempt(connector) else {
            return;
        };
        let is_unix = matches!(socket, Socket::Unix(_));
        // Connected at once (a Unix socket, or this host), under way, or to be tried again.
        match connect(socket, addr) {
            Ok(true) => self.finish_attempt(connector),
            Ok(false) => {
                let (fd, wanted) = (socket.as_fd(), Readiness { write: true, ..Readiness::default() });
                if let Err(e) = self.poller.add(fd, wanted, token::CONNECTORS | connector.0.token()) {
                    self.fail_address(connector, ("watch the socket to connect to", e));
                }
            }
            Err(e) if is_unix && e.kind() == io::ErrorKind::WouldBlock => self.retry_when_queue_has_room(connector),
            Err(e) => self.fail_address(connector, ("connect to", e)),
        }
    }

    /// Tries again after a pause, because a Unix server's queue is full. No event announces room in it.
    fn retry_when_queue_has_room(&mut self, connector: Connector) {
        let now = self.time.clock.now();
        let Some(attempt) = self.clients.attempt(connector) else { return };
        let pause = attempt.pause.map_or(FIRST_PAUSE, |last| (last * 2).min(LAST_PAUSE));
        attempt.pause = Some(pause);
        let (timer, left) = (attempt.timer, attempt.deadline.saturating_duration_since(now));
        self.time.timers.reset(timer, now, pause.min(left));
    }

    /// Handles an event of an attempt's socket.
    pub(crate) fn check_attempt(&mut self, token: u64, ready: Readiness) {
        let connector = Connector(self.clients.all.id(token & !token::CONNECTORS));
        let Some(Attempt { socket: Some(socket), session, .. }) = self.clients.attempt(connector) else { return };
        if session.is_some() {
            return self.shake_hands(connector);
        }
        match socket::is_connected(socket.as_fd()) {
            Ok(true) => self.finish_attempt(connector),
            Ok(false) if !ready.hangup => {}
            Ok(false) => self.fail_address(connector, ("connect to", io::ErrorKind::ConnectionReset.into())),
            Err(e) => self.fail_address(connector, ("connect to", e)),
        }
    }

    /// Handles a client's timer: the time of an address is over, or the next attempt is due.
    pub(crate) fn continue_client(&mut self, connector: Connector) {
        let now = self.time.woke;
        let Some(client) = self.clients.all.get_mut(connector.0) else { return };
        let attempt = match &mut client.stage {
            Stage::Trying(attempt) => attempt,
            Stage::Waiting(_) => return self.begin_attempt(connector),
            _ => return self.continue_connecting(connector),
        };
        let is_over = attempt.deadline <= now;
        // A timer that has fired is gone. The attempt needs another one for what follows.
        attempt.timer =
            self.time.timers.set(now, attempt.deadline.saturating_duration_since(now), TimerTask::Connect(connector));
        if attempt.current.is_none() {
            let why = format!("no answer within {:?}", client.to.timeout);
            self.fail_attempt(connector, ConnectFailure::Resolve(io::Error::new(io::ErrorKind::TimedOut, why)));
        } else if attempt.pause.is_some() && !is_over {
            self.connect_socket(connector);
        } else {
            self.fail_address(connector, ("connect to", io::ErrorKind::TimedOut.into()));
        }
    }

    /// Goes on with the next address after one has failed, or ends the attempt.
    pub(crate) fn fail_address(&mut self, connector: Connector, (act, e): Failed) {
        let now = self.time.clock.now();
        let Some(client) = self.clients.all.get_mut(connector.0) else { return };
        let Stage::Trying(attempt) = &mut client.stage else { return };
        attempt.socket.take().into_iter().for_each(|socket| self.poller.forget(&socket));
        (attempt.session, attempt.pause) = (None, None);
        let addr = attempt.current.take().unwrap_or(Addr::Unnamed);
        if !attempt.rest.is_empty() {
            attempt.tried.push((addr, e));
            return self.try_next(connector);
        }
        let spent = now.saturating_duration_since(attempt.since).min(client.to.timeout);
        self.fail_attempt(connector, ConnectFailure::of(act, e, spent));
    }

    /// Hands the connected socket over to a connection, unless the socket has connected to itself.
    fn finish_attempt(&mut self, connector: Connector) {
        let Some(attempt) = self.clients.attempt(connector) else { return };
        let (Some(socket), Some(addr)) = (attempt.socket.take(), attempt.current.clone()) else { return };
        self.poller.remove(&socket); // from here on it is watched for another purpose

        // The kernel chose the very port that the socket connects to, because no server had it. That is a refusal.
        if matches!(socket, Socket::Tcp(_)) && socket.local_addr().is_ok_and(|local| local == addr) {
            let _ = socket::reset_at_close(socket.as_fd());
            drop(socket);
            let refused = io::Error::from_raw_os_error(nix::libc::ECONNREFUSED);
            return self.fail_address(connector, ("connect to", refused));
        }
        let Some(client) = self.clients.all.get(connector.0) else { return };
        match client.to.session() {
            Ok(None) => self.serve_connected(connector, Io::Socket(socket), addr),
            Ok(session) => {
                let Some(attempt) = self.clients.attempt(connector) else { return };
                (attempt.socket, attempt.session) = (Some(socket), session);
                self.shake_hands(connector);
            }
            Err(e) => self.fail_attempt(connector, ConnectFailure::Tls(e)),
        }
    }

    /// Goes on with the handshake of a client. Then the connection begins.
    fn shake_hands(&mut self, connector: Connector) {
        let Some(attempt) = self.clients.attempt(connector) else { return };
        let (Some(socket), Some(session)) = (&attempt.socket, &attempt.session) else { return };
        match session.handshake(&socket.as_fd()) {
            Ok(()) => self.finish_handshake(connector),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                let write = session.wants_write();
                let wanted = Readiness { write, read: !write, ..Readiness::default() };
                let token = token::CONNECTORS | connector.0.token();
                self.poller.remove(socket);
                if let Err(e) = self.poller.add(socket, wanted, token) {
                    self.fail_address(connector, ("watch the socket to connect to", e));
                }
            }
            Err(e) => self.fail_attempt(connector, ConnectFailure::Tls(e)),
        }
    }

    /// Begins the connection of a client whose handshake is done.
    fn finish_handshake(&mut self, connector: Connector) {
        let now = self.time.clock.now();
        let Some(attempt) = self.clients.attempt(connector) else { return };
        let (socket, session) = (attempt.socket.take(), attempt.session.take());
        let (Some(socket), Some(session), Some(addr)) = (socket, session, attempt.current.clone()) else { return };
        self.poller.remove(&socket);
        let secured = Secured::new(Io::Socket(socket), session, Vec::new(), now, Duration::ZERO);
        self.serve_connected(connector, Io::Tls(Box::new(secured)), addr);
    }
}
