//! The production loop, with connections in memory and a clock that the test moves.
//!
//! A fake transport would be a second implementation, and its differences would be found in production. So two things
//! only are replaced, each by one more variant of an enum: the socket by two byte queues, and the clock. Without the
//! feature `testing` they are not compiled, so a server has neither a branch nor a method of them.

use std::cell::Cell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant};
use std::{fmt, io};

use crate::config::{Limits, LingeringClose, ServerSettings};
use crate::error::Result;
use crate::event_loop::io::memory::{Memory, Script};
use crate::event_loop::io::Io;
use crate::event_loop::primitives::clock::Clock;
use crate::event_loop::primitives::slab::ConnId;
use crate::event_loop::reactor::Reactor;
use crate::event_loop::state::conn::{Conn, Origin, Phase};
use crate::event_loop::state::context::Context;
use crate::event_loop::state::factory::Factory;
use crate::event_loop::state::protocol::Protocol;
use crate::event_loop::state::settings::EventLoop;
use crate::lifecycle::Hooks;
use crate::net::Addr;

/// The most turns that [`TestLoop::settle`] runs until nothing is left to do.
const TURNS: usize = 1000;

/// A loop for tests of protocols. Everything is the production code, except the socket and the clock. Input that is fed
/// is delivered at once, and nothing happens by itself. (It replaces Twisted's `StringTransport` and `Clock`.)
///
/// ```
/// use std::time::Duration;
/// use socketserver::testing::TestLoop;
/// use socketserver::{HandlerResult, Protocol, Transport};
/// use socketserver::event_loop::TimerId;
///
/// /// Repeats what it hears, a second later.
/// #[derive(Default)]
/// struct Echo(Vec<u8>);
/// impl Protocol for Echo {
///     fn data_received(
///         &mut self,
///         transport: &mut Transport<'_>,
///         data: &[u8],
///     ) -> HandlerResult {
///         self.0 = data.to_vec();
///         transport.set_timer(Duration::from_secs(1));
///         Ok(())
///     }
///     fn timer(
///         &mut self,
///         transport: &mut Transport<'_>,
///         _timer: TimerId,
///     ) -> HandlerResult {
///         Ok(transport.write(&self.0)?)
///     }
/// }
///
/// let mut test = TestLoop::new()?;
/// let client = test.connect(Echo::default());
/// test.feed(client, b"hallo");
/// test.advance(Duration::from_millis(999));
/// assert_eq!(test.output(client), b"");
/// test.advance(Duration::from_millis(1));
/// assert_eq!(test.output(client), b"hallo");
/// # Ok::<(), socketserver::Error>(())
/// ```
pub struct TestLoop {
    reactor: Reactor,
    now: Rc<Cell<Instant>>,
    peers: HashMap<ConnId, Memory>,
}

impl TestLoop {
    /// Makes a loop with the defaults.
    ///
    /// # Errors
    /// [`Error::System`](crate::Error::System) if the system has no descriptors left.
    pub fn new() -> Result<Self> {
        Self::with(EventLoop::new())
    }

    /// Makes a loop with these settings.
    ///
    /// # Errors
    /// As [`new`](Self::new), and [`Error::Setting`](crate::Error::Setting).
    pub fn with(settings: EventLoop) -> Result<Self> {
        let now = Rc::new(Cell::new(Instant::now()));
        let limits = Limits { write: Some(Duration::from_secs(30)), ..Limits::default() };
        let config = ServerSettings { limits, lingering_close: LingeringClose::IfUnread, ..ServerSettings::default() };
        let mut reactor = Reactor::with_clock(settings, config, Hooks::default(), Clock::Manual(now.clone()))?;
        reactor.state.clients.script = Some(Script::default());
        Ok(Self { reactor, now, peers: HashMap::new() })
    }

    /// Connects a client, which this protocol serves.
    pub fn connect(&mut self, protocol: impl Protocol + 'static) -> ConnId {
        let id = self.new_client(Addr::Unnamed);
        self.reactor.state.begin(id, Box::new(protocol));
        self.settle();
        id
    }

    /// Connects a client from this address, which a protocol of this factory serves. `None` if the factory refuses it.
    pub fn connect_to(&mut self, factory: &dyn Factory, peer: Addr) -> Option<ConnId> {
        let id = self.new_client(peer);
        self.reactor.state.build_and_begin(factory, id);
        self.settle();
        (!self.is_lost(id)).then_some(id)
    }

    /// Sets the results of the next attempts of clients ([`Context::connect`]), in order: a connection in memory, or
    /// this error. Further attempts get no answer until their time is over. No name is resolved.
    ///
    /// ```
    /// use std::io::ErrorKind;
    /// use std::time::Duration;
    /// use socketserver::testing::TestLoop;
    /// use socketserver::{factory, HandlerResult, Protocol, Transport};
    /// use socketserver::event_loop::{Connect, Reconnect};
    ///
    /// struct Greeter;
    /// impl Protocol for Greeter {
    ///     fn connection_made(&mut self, transport: &mut Transport<'_>) -> HandlerResult {
    ///         Ok(transport.write(b"hello")?)
    ///     }
    ///     fn data_received(&mut self, _: &mut Transport<'_>, _: &[u8]) -> HandlerResult {
    ///         Ok(())
    ///     }
    /// }
    ///
    /// let mut test = TestLoop::new()?;
    /// test.answer_connects([Err(ErrorKind::ConnectionRefused.into()), Ok(())]);
    /// // It connects again in a second, or a little less.
    /// let to = Connect::to("server:80").reconnect(Reconnect::new());
    /// let connector = test.act(|cx| cx.connect(to, factory(|_| Greeter)));
    /// test.advance(Duration::from_secs(1));
    /// let server = test.act(|cx| cx.connection_of(connector)).unwrap();
    /// assert_eq!(test.output(server), b"hello");
    /// # Ok::<(), socketserver::Error>(())
    /// ```
    pub fn answer_connects(&mut self, outcomes: impl IntoIterator<Item = io::Result<()>>) {
        self.reactor.state.clients.script.get_or_insert_with(Script::default).outcomes.extend(outcomes);
    }

    /// Returns how many attempts to connect have begun.
    pub fn attempts(&self) -> u64 {
        self.reactor.state.clients.attempts()
    }

    fn new_client(&mut self, peer: Addr) -> ConnId {
        let (memory, now) = (Memory::default(), self.now.get());
        let state = &mut self.reactor.state;
        state.time.now = now;
        let id = state.conns.insert(Conn::new(Io::Memory(memory.clone()), peer, Origin::Accepted(None), None, now));
        state.unpolled.memory.push(id);
        self.peers.insert(id, memory);
        id
    }

    /// Has the client send this, as one piece.
    pub fn feed(&mut self, client: ConnId, bytes: &[u8]) {
        self.hold(client, bytes);
        self.settle();
    }

    /// Has the client send this, as [`feed`](Self::feed) does, but runs nothing yet: for several events in one turn.
    pub fn hold(&mut self, client: ConnId, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.at(client, |pipe| pipe.input.push_back(bytes.to_vec()));
        }
    }

    /// Has the client send this byte by byte.
    pub fn feed_bytewise(&mut self, client: ConnId, bytes: &[u8]) {
        bytes.chunks(1).for_each(|byte| self.feed(client, byte));
    }

    /// Has the client end its stream, and read on.
    pub fn eof(&mut self, client: ConnId) {
        self.at(client, |pipe| pipe.eof = true);
        self.settle();
    }

    /// Has the client reset the connection.
    pub fn reset(&mut self, client: ConnId) {
        self.at(client, |pipe| pipe.broken = true);
        self.settle();
    }

    /// Has the client take this number of bytes more, and then none until the next call.
    pub fn take_at_most(&mut self, client: ConnId, bytes: usize) {
        self.at(client, |pipe| pipe.room = bytes);
        self.settle();
    }

    /// Returns what the client has received since the last call.
    pub fn output(&mut self, client: ConnId) -> Vec<u8> {
        self.at(client, |pipe| std::mem::take(&mut pipe.output))
    }

    /// Returns how many system calls have sent the output since the last call.
    pub fn sends(&mut self, client: ConnId) -> usize {
        self.at(client, |pipe| std::mem::take(&mut pipe.sends))
    }

    /// True if the connection is being closed, or is gone.
    pub fn is_closing(&self, client: ConnId) -> bool {
        !self.reactor.state.is_open(client)
    }

    /// True if the connection is gone.
    pub fn is_lost(&self, client: ConnId) -> bool {
        self.reactor.state.conns.get(client).is_none()
    }

    /// True if the client reads end of stream: the loop has half-closed, or closed.
    pub fn is_ended(&self, client: ConnId) -> bool {
        let shut = self.peers.get(&client).is_some_and(|memory| memory.with(|pipe| pipe.shut));
        shut || self.is_lost(client)
    }

    /// True if the client sees a reset.
    pub fn is_reset(&self, client: ConnId) -> bool {
        self.peers.get(&client).is_some_and(|memory| memory.with(|pipe| pipe.reset))
    }

    /// True if the loop reads from the client.
    pub fn is_reading(&self, client: ConnId) -> bool {
        let conn = self.reactor.state.conns.get(client);
        conn.is_some_and(|conn| conn.end.phase == Phase::Open && conn.wanted().read)
    }

    /// Returns how long a request has been in progress, see
    /// [`Transport::request_begins`](crate::Transport::request_begins). `None` if there is none.
    pub fn request_age(&self, client: ConnId) -> Option<Duration> {
        let since = self.reactor.state.conns.get(client)?.limits.request_since?;
        Some(self.now.get().saturating_duration_since(since))
    }

    /// Moves the clock on, and does what becomes due, in its order.
    pub fn advance(&mut self, time: Duration) {
        let until = self.now.get() + time;
        while let Some(due) = self.next_due().filter(|due| *due <= until) {
            self.now.set(due.max(self.now.get()));
            self.settle();
        }
        self.now.set(until);
        self.settle();
    }

    /// Returns when the next timer or the drain limit is due.
    fn next_due(&mut self) -> Option<Instant> {
        let state = &mut self.reactor.state;
        let drain = state.drain_deadline().filter(|_| !state.is_cut());
        state.time.timers.next().into_iter().chain(drain).min()
    }

    /// Returns how many timers are pending, those of limits included.
    pub fn timers(&self) -> usize {
        self.reactor.state.time.timers.len()
    }

    /// Returns how many connections there are.
    pub fn connections(&self) -> usize {
        self.reactor.state.conns.len()
    }

    /// Calls `act` with the loop, as a callback would have it.
    pub fn act<R>(&mut self, act: impl FnOnce(&mut Context<'_>) -> R) -> R {
        let done = act(&mut Context { state: &mut self.reactor.state });
        self.settle();
        done
    }

    /// Returns the reactor.
    pub fn reactor(&mut self) -> &mut Reactor {
        &mut self.reactor
    }

    /// Runs one turn, without a wait.
    ///
    /// # Panics
    /// If the system refuses.
    #[allow(clippy::expect_used)] // a test wants to fail here
    pub fn turn(&mut self) {
        self.reactor.turn(Some(Duration::ZERO)).expect("a turn of the loop");
        let script = self.reactor.state.clients.script.iter_mut();
        self.peers.extend(script.flat_map(|script| script.made.drain(..)));
    }

    /// Runs turns until nothing is left to do at this time.
    ///
    /// # Panics
    /// If that never comes, because a call asks for itself again and again.
    #[allow(clippy::panic)] // a test wants to fail here
    pub fn settle(&mut self) {
        for _ in 0..TURNS {
            self.turn();
            if self.is_settled() {
                return;
            }
        }
        panic!("the loop does not come to rest in {TURNS} turns");
    }

    fn is_settled(&mut self) -> bool {
        let (state, now) = (&mut self.reactor.state, self.now.get());
        let due = state.time.timers.next().is_some_and(|due| due <= now);
        let busy = !state.queues.dirty.is_empty() || !state.queues.deferred.is_empty() || due;
        let ready = self.peers.iter().any(|(id, memory)| {
            let watched = state.conns.get(*id).and_then(|conn| conn.watch.interest);
            watched.is_some_and(|watched| memory.readiness(watched).is_some())
        });
        !busy && !ready
    }

    #[allow(clippy::expect_used)] // a test wants to fail here
    fn at<R>(&self, client: ConnId, act: impl FnOnce(&mut crate::event_loop::io::memory::Pipe) -> R) -> R {
        let memory = self.peers.get(&client).expect("a client of this loop");
        memory.with(act)
    }
}

impl fmt::Debug for TestLoop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestLoop").field("reactor", &self.reactor).finish_non_exhaustive()
    }
}
