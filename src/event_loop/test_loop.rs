//! The production loop, with connections in memory and a clock that stands still.

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

/// Most turns that [`TestLoop::settle`] runs until nothing is left to do.
const TURNS: usize = 1000;

/// A loop for tests of protocols: everything is the production code, but for the socket below and the clock. What is
/// fed is delivered at once, and nothing happens by itself. (Twisted's `StringTransport` and `Clock`, without their
/// differences from the real ones.)
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
///     fn data_received(&mut self, transport: &mut Transport<'_>, data: &[u8]) -> HandlerResult {
///         self.0 = data.to_vec();
///         transport.set_timer(Duration::from_secs(1));
///         Ok(())
///     }
///     fn timer(&mut self, transport: &mut Transport<'_>, _timer: TimerId) -> HandlerResult {
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
    /// A loop with the defaults.
    ///
    /// # Errors
    /// [`Error::System`](crate::Error::System) where the system has no descriptors left.
    pub fn new() -> Result<Self> {
        Self::with(EventLoop::new())
    }

    /// A loop with these settings.
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

    /// A client connects, and is served by this protocol.
    pub fn connect(&mut self, protocol: impl Protocol + 'static) -> ConnId {
        let id = self.new_client(Addr::Unnamed);
        self.reactor.state.begin(id, Box::new(protocol));
        self.settle();
        id
    }

    /// A client connects from this address, and is served by a protocol of this factory; `None` if that refuses it.
    pub fn connect_to(&mut self, factory: &dyn Factory, peer: Addr) -> Option<ConnId> {
        let id = self.new_client(peer);
        self.reactor.state.build_and_begin(factory, id);
        self.settle();
        (!self.is_lost(id)).then_some(id)
    }

    /// What becomes of the next attempts of clients ([`Context::connect`]), one after the other: a connection in memory,
    /// or this error. Further attempts get no answer, until their time is over. No name is resolved.
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
    /// let to = Connect::to("server:80").reconnect(Reconnect::new());       // in a second, or a little less
    /// let connector = test.act(|cx| cx.connect(to, factory(|_| Greeter)));
    /// test.advance(Duration::from_secs(1));
    /// let server = test.act(|cx| cx.connection_of(connector)).unwrap();
    /// assert_eq!(test.output(server), b"hello");
    /// # Ok::<(), socketserver::Error>(())
    /// ```
    pub fn answer_connects(&mut self, outcomes: impl IntoIterator<Item = io::Result<()>>) {
        self.reactor.state.clients.script.get_or_insert_with(Script::default).outcomes.extend(outcomes);
    }

    /// How many attempts to connect have begun.
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

    /// The client sends this, as one piece.
    pub fn feed(&mut self, client: ConnId, bytes: &[u8]) {
        self.hold(client, bytes);
        self.settle();
    }

    /// As [`feed`](Self::feed), but nothing runs yet: for several events in one turn.
    pub fn hold(&mut self, client: ConnId, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.at(client, |pipe| pipe.input.push_back(bytes.to_vec()));
        }
    }

    /// The client sends this byte by byte.
    pub fn feed_bytewise(&mut self, client: ConnId, bytes: &[u8]) {
        bytes.chunks(1).for_each(|byte| self.feed(client, byte));
    }

    /// The client ends its stream, and reads on.
    pub fn eof(&mut self, client: ConnId) {
        self.at(client, |pipe| pipe.eof = true);
        self.settle();
    }

    /// The client resets the connection.
    pub fn reset(&mut self, client: ConnId) {
        self.at(client, |pipe| pipe.broken = true);
        self.settle();
    }

    /// The client takes so many more bytes, and then none, until it is told again.
    pub fn take_at_most(&mut self, client: ConnId, bytes: usize) {
        self.at(client, |pipe| pipe.room = bytes);
        self.settle();
    }

    /// What the client has received since the last call.
    pub fn output(&mut self, client: ConnId) -> Vec<u8> {
        self.at(client, |pipe| std::mem::take(&mut pipe.output))
    }

    /// How many system calls the output has been sent with since the last call.
    pub fn sends(&mut self, client: ConnId) -> usize {
        self.at(client, |pipe| std::mem::take(&mut pipe.sends))
    }

    /// Whether the connection is being closed, or gone.
    pub fn is_closing(&self, client: ConnId) -> bool {
        !self.reactor.state.is_open(client)
    }

    /// Whether the connection is gone.
    pub fn is_lost(&self, client: ConnId) -> bool {
        self.reactor.state.conns.get(client).is_none()
    }

    /// Whether the client reads the end of the stream: the loop has half-closed, or closed.
    pub fn is_ended(&self, client: ConnId) -> bool {
        let shut = self.peers.get(&client).is_some_and(|memory| memory.with(|pipe| pipe.shut));
        shut || self.is_lost(client)
    }

    /// Whether the client sees a reset.
    pub fn is_reset(&self, client: ConnId) -> bool {
        self.peers.get(&client).is_some_and(|memory| memory.with(|pipe| pipe.reset))
    }

    /// Whether the loop reads from the client.
    pub fn is_reading(&self, client: ConnId) -> bool {
        let conn = self.reactor.state.conns.get(client);
        conn.is_some_and(|conn| conn.end.phase == Phase::Open && conn.wanted().read)
    }

    /// How long a request has been in progress, if one is: see
    /// [`Transport::request_begins`](crate::Transport::request_begins).
    pub fn request_age(&self, client: ConnId) -> Option<Duration> {
        let since = self.reactor.state.conns.get(client)?.limits.request_since?;
        Some(self.now.get().saturating_duration_since(since))
    }

    /// Time passes, and what becomes due is done, in its order.
    pub fn advance(&mut self, time: Duration) {
        let until = self.now.get() + time;
        while let Some(due) = self.next_due().filter(|due| *due <= until) {
            self.now.set(due.max(self.now.get()));
            self.settle();
        }
        self.now.set(until);
        self.settle();
    }

    /// The next timer, or the drain limit.
    fn next_due(&mut self) -> Option<Instant> {
        let state = &mut self.reactor.state;
        let drain = state.drain_deadline().filter(|_| !state.is_cut());
        state.time.timers.next().into_iter().chain(drain).min()
    }

    /// How many timers are pending, those of limits included.
    pub fn timers(&self) -> usize {
        self.reactor.state.time.timers.len()
    }

    /// How many connections there are.
    pub fn connections(&self) -> usize {
        self.reactor.state.conns.len()
    }

    /// Does something with the loop, as a callback might.
    pub fn act<R>(&mut self, act: impl FnOnce(&mut Context<'_>) -> R) -> R {
        let done = act(&mut Context { state: &mut self.reactor.state });
        self.settle();
        done
    }

    /// The reactor, for what a reactor can do.
    pub fn reactor(&mut self) -> &mut Reactor {
        &mut self.reactor
    }

    /// One turn, without a wait.
    ///
    /// # Panics
    /// When the system refuses.
    #[allow(clippy::expect_used)] // a test wants to fail here
    pub fn turn(&mut self) {
        self.reactor.turn(Some(Duration::ZERO)).expect("a turn of the loop");
        let script = self.reactor.state.clients.script.iter_mut();
        self.peers.extend(script.flat_map(|script| script.made.drain(..)));
    }

    /// Turns until nothing is left to do at this time.
    ///
    /// # Panics
    /// When that never comes: something calls itself again and again.
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
