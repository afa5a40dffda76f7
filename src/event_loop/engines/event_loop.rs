//! The event loop as a server's strategy.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::event_loop::primitives::clock::Clock;
use crate::event_loop::reactor::Reactor;
use crate::event_loop::state::factory::{Factory, Kept};
use crate::event_loop::state::settings::Settings;
use crate::event_loop::state::State;
use crate::observe::InHandler;
use crate::server::{Bound, Engine, Single};
use crate::sys::limits;

/// All connections on one thread: readiness instead of a flow for each. Its handler is a [`Factory`] of
/// [`Protocol`](crate::Protocol)s.
///
/// ```
/// use std::io::{Read, Write};
/// use socketserver::{factory, EventLoop, HandlerResult, Protocol, ServerBuilder, Transport};
///
/// struct Echo;
/// impl Protocol for Echo {
///     fn data_received(&mut self, transport: &mut Transport<'_>, data: &[u8]) -> HandlerResult {
///         Ok(transport.write(data)?)
///     }
/// }
///
/// let mut server = ServerBuilder::new()
///     .strategy(EventLoop::new())
///     .max_connections(10_000)
///     .bind_tcp("127.0.0.1:0", factory(|_peer| Echo))?;
/// let (addr, handle) = (server.local_addr().socket_addr().unwrap(), server.handle());
/// let serving = std::thread::spawn(move || server.serve_forever());
///
/// let mut client = std::net::TcpStream::connect(addr)?;
/// client.write_all(b"hello")?;
/// client.shutdown(std::net::Shutdown::Write)?;
/// assert_eq!(std::io::read_to_string(client)?, "hello");
///
/// handle.shutdown();
/// assert_eq!(serving.join().unwrap()?.served, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Limits, time limits, stop, counters and hooks are the server's, as with every strategy. Buffer sizes are not: a loop
/// reads into one buffer of 64 KiB, and queues what a peer does not take.
#[derive(Debug, Clone, Copy, Default)]
pub struct EventLoop {
    settings: Settings,
}

impl EventLoop {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes queued for one connection above which its protocol is told to pause writing, and is read from no more,
    /// and those down to which the queue must fall before it goes on. Defaults to 16 KiB and 64 KiB, as asyncio's.
    #[must_use]
    pub fn water_marks(mut self, low: usize, high: usize) -> Self {
        (self.settings.low_water, self.settings.high_water) = (low, high);
        self
    }

    /// The most bytes that are queued for one connection: more is refused, and the connection aborted. Defaults to 8
    /// MiB.
    #[must_use]
    pub fn max_queued(mut self, bytes: usize) -> Self {
        self.settings.max_queued = bytes;
        self
    }

    /// From which time on a callback is reported that holds up the loop: each to the hook
    /// ([`Failure::Stalled`](crate::Failure::Stalled)), and a warning, at most one a second. Defaults to 100 ms, as
    /// asyncio's `slow_callback_duration`.
    #[must_use]
    pub fn slow_callback(mut self, time: Duration) -> Self {
        self.settings.slow_callback = time;
        self
    }

    pub(crate) fn checked(self) -> Result<Settings> {
        let Settings { low_water, high_water, max_queued, slow_callback } = self.settings;
        if low_water >= high_water || high_water > max_queued {
            let why = format!("not low {low_water} < high {high_water} <= max_queued {max_queued}");
            return Err(Error::setting("water_marks", why));
        }
        if slow_callback.is_zero() {
            return Err(Error::setting("slow_callback", "a time of zero would report every callback"));
        }
        Ok(self.settings)
    }

    /// How many connections a loop takes by default: 64 less than the process may have descriptors.
    pub(crate) fn default_limit() -> usize {
        limits::descriptors().saturating_sub(64).clamp(1, i32::MAX as usize)
    }

    fn reactor<F: Factory + 'static>(self, bound: &Bound, factory: &Arc<F>) -> Result<Reactor> {
        let state = State::new(bound.core.clone(), self.checked()?, Clock::System)
            .map_err(Error::system("make an event loop"))?;
        let mut reactor = Reactor::of(state)?;
        reactor.listen(bound.listeners.clone(), Rc::new(Kept(factory.clone())))?;
        Ok(reactor)
    }
}

impl<F: Factory + 'static> Engine<F> for EventLoop {
    fn connection_limits(&self) -> Result<(usize, usize)> {
        self.checked()?;
        Ok((Self::default_limit(), usize::MAX))
    }

    fn run(&mut self, bound: &Bound, factory: &Arc<F>) -> Result<u64> {
        let _inside = InHandler::of(bound.core.monitor.server);
        let mut reactor = self.reactor(bound, factory)?;
        bound.core.worker().into_iter().for_each(|worker| worker.beat());
        reactor.state.pace_actions();
        reactor.run_to_the_end()?;
        Ok(0)
    }

    /// One connection, to its end.
    fn run_once(&mut self, bound: &Bound, factory: &Arc<F>, timeout: Option<Duration>) -> Result<Single> {
        bound.core.control.begin();
        let mut reactor = self.reactor(bound, factory)?;
        let deadline = timeout.and_then(|t| Instant::now().checked_add(t));
        let came = reactor.turn_until_accepted(deadline)?;
        if came == Single::Stopped {
            bound.core.control.end(); // so that a stop is told once, as serve_forever does
        }
        Ok(came)
    }
}
