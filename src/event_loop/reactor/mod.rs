//! The loop as a value.
//!
//! Here are [`Reactor`], which owns a `State` and runs its turns, and [`ReactorHandle`], the only way in from other
//! threads. What a turn does is in `turn`. The walk: `Reactor::run` → `run_to_the_end` → `step` → `State::turn`.
//!
//! A global reactor can be neither made nor run twice, and every test inherits the state of the last one. A value has
//! none of that. Neither the reactor nor what it lends to callbacks is `Send`. Calling a loop from another thread is
//! the classic mistake with such servers; here it does not compile.

pub(crate) mod handle;

use std::fmt;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::ServerSettings;
use crate::error::{Error, Result};
use crate::event_loop::primitives::clock::Clock;
use crate::event_loop::reactor::handle::ReactorHandle;
use crate::event_loop::state::context::Context;
use crate::event_loop::state::datagram_protocol::{DatagramPort, DatagramProtocol};
use crate::event_loop::state::factory::Factory;
use crate::event_loop::state::ports::ListeningPort;
use crate::event_loop::state::settings::EventLoop;
use crate::event_loop::state::work::Deferred;
use crate::event_loop::state::State;
use crate::lifecycle::{Core, Hooks, ServerHandle};
use crate::listen::{bind, BindOptions, Listener};
use crate::net::Address;
use crate::observe::{InHandler, Report};
use crate::server::Single;
use crate::sys::signal;

/// An event loop: listeners, connections and timers on one thread (Twisted's `reactor`, asyncio's event loop).
///
/// It is a plain value: a process may have any number, each on its thread. It is not `Send`, but its [`ReactorHandle`]
/// is. It may be run, stopped, and run again. For one server with the usual limits and signals, a
/// [`TcpServer`](crate::TcpServer) with the strategy [`EventLoop`] is shorter.
///
/// ```
/// use std::cell::Cell;
/// use std::{rc::Rc, time::Duration};
/// use socketserver::Reactor;
///
/// let mut reactor = Reactor::new()?;
/// let ticks = Rc::new(Cell::new(0));
/// let counted = ticks.clone();
/// reactor.call_when_running(move |cx| {
///     cx.call_later(Duration::from_millis(1), move |cx| {
///         counted.set(counted.get() + 1);
///         cx.stop();
///     });
/// });
/// reactor.run()?;
/// assert_eq!(ticks.get(), 1);
/// # Ok::<(), socketserver::Error>(())
/// ```
///
/// It stays on its thread:
/// ```compile_fail,E0277
/// let mut reactor = socketserver::Reactor::new()?;
/// std::thread::spawn(move || reactor.run());
/// # Ok::<(), socketserver::Error>(())
/// ```
pub struct Reactor {
    pub(crate) state: State,
    signals: Option<signal::Guard>,
}

impl Reactor {
    /// Makes a loop with the defaults. The limit of connections is 64 less than `RLIMIT_NOFILE`, the write limit 30
    /// s, the drain limit 10 s. The water marks are those of [`EventLoop`].
    ///
    /// # Errors
    /// [`Error::System`] if the system has no descriptors left.
    pub fn new() -> Result<Self> {
        Self::with(EventLoop::new())
    }

    /// Makes a loop with these settings.
    ///
    /// # Errors
    /// As [`new`](Self::new), and [`Error::Setting`].
    pub fn with(settings: EventLoop) -> Result<Self> {
        Self::with_clock(settings, ServerSettings::default(), Hooks::default(), Clock::System)
    }

    pub(crate) fn with_clock(settings: EventLoop, config: ServerSettings, hooks: Hooks, clock: Clock) -> Result<Self> {
        let settings = settings.checked()?;
        let state = Core::new(config, hooks, EventLoop::default_limit(), usize::MAX)
            .and_then(|core| State::new(core, settings, clock))
            .map_err(Error::system("make an event loop"))?;
        Self::of(state)
    }

    pub(crate) fn of(mut state: State) -> Result<Self> {
        state.watch_stop()?;
        Ok(Self::bare(state))
    }

    pub(crate) fn bare(state: State) -> Self {
        Self { state, signals: None }
    }

    /// Returns the loop as callbacks see it, from outside of a turn: clients, timers, blocking work and all else that a
    /// [`Context`] can do. Requests take effect in the next turn, as they would after a callback.
    ///
    /// ```
    /// use std::time::Duration;
    /// use socketserver::Reactor;
    ///
    /// let mut reactor = Reactor::new()?;
    /// let mut cx = reactor.context();
    /// let timer = cx.call_later(Duration::from_secs(60), |_| panic!("cancelled"));
    /// assert!(cx.cancel(timer));
    /// # Ok::<(), socketserver::Error>(())
    /// ```
    pub fn context(&mut self) -> Context<'_> {
        self.state.refresh_clock();
        // The stop that ended the last run is over, so that another one may be asked for.
        self.state.core.control.begin();
        Context { state: &mut self.state }
    }

    /// Listens on `HOST:PORT`, on every address of that name, and serves each connection with a protocol of this
    /// factory. Connections wait in the kernel's queue until the loop runs.
    ///
    /// # Errors
    /// [`Error::Listen`] with the address, the failed act and the system's answer.
    pub fn listen_tcp(
        &mut self,
        address: impl Into<Address>,
        factory: impl Factory + 'static,
    ) -> Result<ListeningPort> {
        self.listen(Arc::new(bind(&address.into(), BindOptions::default())?), Rc::new(factory))
    }

    /// Listens on a Unix socket, see [`ServerBuilder::bind_unix`](crate::ServerBuilder::bind_unix).
    ///
    /// # Errors
    /// As [`listen_tcp`](Self::listen_tcp).
    pub fn listen_unix(&mut self, path: impl Into<PathBuf>, factory: impl Factory + 'static) -> Result<ListeningPort> {
        self.listen_tcp(path.into(), factory)
    }

    /// Receives datagrams on `HOST:PORT`, on every address of that name, or on a Unix socket. `start_protocol` is
    /// called before this returns; datagrams are delivered when the loop runs.
    ///
    /// A server counts each datagram as accepted and served. Datagrams do not count against the connection limit, and
    /// `verify_request` is not called for them.
    ///
    /// # Errors
    /// As [`listen_tcp`](Self::listen_tcp).
    pub fn listen_udp(
        &mut self,
        address: impl Into<Address>,
        protocol: impl DatagramProtocol + 'static,
    ) -> Result<DatagramPort> {
        self.state.refresh_clock();
        self.state.end_closed_ports();
        let port = self.state.listen_udp(&address.into(), Box::new(protocol))?;
        self.state.start_datagrams(port.place);
        Ok(port)
    }

    /// Receives datagrams on a Unix socket, see
    /// [`ServerBuilder::bind_unix_datagram`](crate::ServerBuilder::bind_unix_datagram).
    ///
    /// # Errors
    /// As [`listen_tcp`](Self::listen_tcp).
    pub fn listen_unix_datagram(
        &mut self,
        path: impl Into<PathBuf>,
        protocol: impl DatagramProtocol + 'static,
    ) -> Result<DatagramPort> {
        self.listen_udp(path.into(), protocol)
    }

    pub(crate) fn listen(&mut self, listeners: Arc<Vec<Listener>>, factory: Rc<dyn Factory>) -> Result<ListeningPort> {
        self.state.refresh_clock();
        self.state.end_closed_ports(); // if the factory listens again, its `stop_factory` comes first
        self.state.listen(listeners, factory)
    }

    /// Calls `call` in the first turn, in the order of these calls.
    pub fn call_when_running(&mut self, call: impl FnOnce(&mut Context<'_>) + 'static) {
        self.state.queues.deferred.push_back(Deferred::Call(Box::new(call)));
    }

    /// Has SIGINT and SIGTERM shut the reactor down with the drain limit of 10 s, until it is dropped. A second signal
    /// ends the process at once, see [`ServerBuilder::handle_signals`](crate::ServerBuilder::handle_signals).
    /// A signal between two runs is for the next one.
    ///
    /// # Errors
    /// [`Error::System`] if the handlers cannot be installed.
    pub fn handle_signals(&mut self) -> Result<()> {
        if self.signals.is_none() {
            let switch = self.state.core.control.switch().clone();
            let guard = signal::Guard::install(switch).map_err(Error::system("handle SIGINT and SIGTERM"))?;
            self.signals = Some(guard);
        }
        Ok(())
    }

    /// Runs until [`Context::stop`], [`ReactorHandle::stop`], or the end of a shutdown. A stop leaves connections and
    /// listeners for the next `run`, a shutdown leaves none. Returns the account of this run.
    ///
    /// # Errors
    /// [`Error::Accept`] if a listener fails for good, [`Error::System`] if the system refuses to wait. A failed
    /// connection is not an error of the loop.
    pub fn run(&mut self) -> Result<Report> {
        self.state.serve_here()?;
        let core = self.state.core.clone();
        let serving = core.begin();
        let before = core.monitor.counters().totals();
        let inside = InHandler::of(core.monitor.server);
        let ended = self.run_to_the_end();
        core.monitor.report_left_out();
        drop((serving, inside));
        // Signals are handled between two runs as well. From here on, one is for the next run.
        if self.signals.is_some() {
            core.control.begin();
        }
        ended?;
        self.state.stop.drain = None;
        Ok(core.monitor.counters().totals().since(before))
    }

    /// Runs turns until the loop ends. A listener that fails for good ends it too, in order: by a drain.
    pub(crate) fn run_to_the_end(&mut self) -> Result<()> {
        self.state.watch_stop()?;
        if !self.state.core.control.stopping() {
            self.state.stop.drain = None; // a failed run may have left one
        }
        let mut failed = Ok(());
        let mut patience = None;
        loop {
            match self.step(patience.take()) {
                Ok(true) => {}
                Ok(false) => return failed,
                Err(e) if failed.is_ok() => {
                    failed = Err(e);
                    self.state.core.control.request_stop();
                    self.state.begin_drain();
                    patience = Some(Duration::ZERO); // if nothing is left, no event would end a wait
                }
                Err(e) => return failed.and(Err(e)),
            }
        }
    }

    /// Runs one turn, for a program with a loop of its own: waits up to `timeout` (`None` for ever), does what is
    /// due, and returns. `false` once the loop was stopped, or its shutdown is complete. It may then be used anew.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn turn(&mut self, timeout: Option<Duration>) -> Result<bool> {
        self.state.serve_here()?;
        let goes_on = self.step(timeout)?;
        // A complete shutdown is the end of a run, so the stop is taken back.
        if !goes_on && self.state.stop.drain.take().is_some() {
            let control = &self.state.core.control;
            control.end();
            control.begin();
            self.state.watch_stop()?;
        }
        Ok(goes_on)
    }

    fn step(&mut self, timeout: Option<Duration>) -> Result<bool> {
        let turned = self.state.turn(timeout);
        // Taken and not cleared before: a stop asked for by `context()` is for the next turn.
        let is_over = std::mem::take(&mut self.state.stop.asked);
        turned.map(|()| !is_over)
    }

    /// Shuts the next run down, as [`Context::shutdown`] does.
    pub fn shutdown(&mut self, grace: Duration) {
        self.state.core.control.begin(); // takes back the stop that ended the last run
        self.state.shutdown(grace);
    }

    /// Returns a handle for other threads.
    pub fn handle(&self) -> ReactorHandle {
        ReactorHandle::new(&self.state.loops.group, self.state.loops.number, &self.state.core)
    }

    /// Returns the handle that servers have: counters, limits, pause and stop.
    pub fn server(&self) -> ServerHandle {
        ServerHandle { core: self.state.core.clone() }
    }

    /// Accepts one connection and serves it to its end. A loop has no thread that could finish it later.
    pub(crate) fn serve_one(&mut self, deadline: Option<Instant>) -> Result<Single> {
        let accepted = |state: &State| state.core.monitor.counters().totals().accepted - state.datagrams.received;
        let before = accepted(&self.state);
        self.state.ports.accepts_one = true;
        while accepted(&self.state) == before {
            let left = deadline.map(|d| d.saturating_duration_since(Instant::now()));
            let goes_on = self.step(left)?;
            if !goes_on {
                return Ok(Single::Stopped);
            }
            if left == Some(Duration::ZERO) && accepted(&self.state) == before {
                return Ok(Single::TimedOut);
            }
        }
        // No other connection is accepted meanwhile.
        self.state.ports.rests = true;
        while self.state.has_connections() && self.step(None)? {}
        Ok(Single::Taken)
    }
}

impl fmt::Debug for Reactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reactor").field("connections", &self.state.conns.len()).finish_non_exhaustive()
    }
}

impl Drop for Reactor {
    /// Ends every connection, with `connection_lost`.
    fn drop(&mut self) {
        // Connections first: their callbacks still find ports and clients.
        self.state.refresh_clock();
        self.state.end_all();
        self.state.stop_all_datagrams();
        self.state.stop_listening_all();
        self.state.forget_all_work();
        self.state.loops.inbox.close();
        // Handles live on, and the inbox with them. The calls in it must not.
        drop(self.state.loops.inbox.take_all());
    }
}
