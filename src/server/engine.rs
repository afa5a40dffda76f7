//! [`Engine`]: it lets one server type run handlers on threads, in processes, or in an event loop.
//!
//! A strategy says where one request runs, and knows nothing of handlers. An engine says how a whole server
//! with handlers of type `H` runs. Every strategy is an engine, by one blanket implementation. `EventLoop` is
//! an engine for every `Factory`, without a change of `TcpServer`. A handler that does not fit is found here,
//! at compile time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::bound::Bound;
use super::drain::drain;
use super::udp::Datagrams;
use crate::accept::{AcceptEvent, Accepting, Acceptor, Rejected, Service, ServingStrategy, OF_A_LOT};
use crate::error::{Error, Result};
use crate::handler::{DatagramRequestHandler, StreamRequestHandler};
use crate::sync::left;
use crate::sys::limits;

/// An engine says how a whole server with handler `H` runs. Every [`ServingStrategy`] is an engine for every
/// [`StreamRequestHandler`]. Users see the trait in bounds only.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot serve with `{H}` as the handler",
    label = "this strategy does not take this handler",
    note = "a strategy is a value: `Sequential`, `Threading::new()`, `ThreadPool::new(16)`, `Forking::new()`, `EventLoop::new()`",
    note = "a handler implements `StreamRequestHandler`; `handler(|conn| ...)` makes one of a closure",
    note = "`per_connection(|| MyHandler::new())` makes a handler of a type with `&mut self` methods",
    note = "a factory of protocols needs the strategy `EventLoop`, or `EventLoops` if it is `Send` and `Sync`; for any other strategy, wrap it in `Blocking(factory)`"
)]
pub trait Engine<H> {
    /// Returns the default connection limit, and the most connections that are possible.
    #[doc(hidden)]
    fn connection_limits(&self, handler: &H) -> Result<(usize, usize)>;

    /// True if it runs worker processes. Then it cannot be the engine of a worker.
    #[doc(hidden)]
    fn has_workers(&self) -> bool {
        false
    }

    /// Returns the descriptors that a run needs besides those of the listeners, with this number of connections.
    #[doc(hidden)]
    fn descriptors(&self, connections: usize) -> usize;

    /// Called when the server has been made. `follows` is true if the user has set no connection limit.
    #[doc(hidden)]
    fn prepare(&self, bound: &Bound, follows: bool, handler: &H) -> Result<()> {
        let _ = (bound, follows, handler);
        Ok(())
    }

    /// Serves until the stop, and drains. Returns the number of handlers that are left running.
    #[doc(hidden)]
    fn run(&mut self, bound: &Bound, handler: &Arc<H>) -> Result<u64>;

    /// Waits for one connection, and gives it to the strategy.
    #[doc(hidden)]
    fn run_once(&mut self, bound: &Bound, handler: &Arc<H>, timeout: Option<Duration>) -> Result<Single>;
}

/// The result of a wait for one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Single {
    /// A connection came, and the strategy has it.
    Taken,
    /// No connection came in time.
    TimedOut,
    /// The server was asked to stop.
    Stopped,
}

impl<H: StreamRequestHandler, S: ServingStrategy> Engine<H> for S {
    fn connection_limits(&self, handler: &H) -> Result<(usize, usize)> {
        let (default, capacity) = limits_of(self)?;
        Ok(match self.parks() && handler.is_per_request() {
            // A parked connection needs a descriptor, and nothing else that is scarce.
            true => (limits::descriptors().saturating_sub(64).max(1), usize::MAX),
            false => (default, capacity),
        })
    }

    /// Waits need none, if there is a lack: see `accept::Seat`.
    fn descriptors(&self, connections: usize) -> usize {
        let of_a_lot = if self.parks() { OF_A_LOT } else { 0 };
        connections.saturating_mul(H::descriptors()) + ServingStrategy::descriptors(self) + of_a_lot
    }

    fn run(&mut self, bound: &Bound, handler: &Arc<H>) -> Result<u64> {
        serve(self, bound, Service::Connections(handler.clone()))
    }

    fn run_once(&mut self, bound: &Bound, handler: &Arc<H>, timeout: Option<Duration>) -> Result<Single> {
        serve_one(self, bound, Service::Connections(handler.clone()), timeout)
    }
}

/// `Datagrams<H>` is no `StreamRequestHandler`, so both implementations can stand side by side.
impl<H: DatagramRequestHandler, S: ServingStrategy> Engine<Datagrams<H>> for S {
    fn connection_limits(&self, _handler: &Datagrams<H>) -> Result<(usize, usize)> {
        limits_of(self)
    }

    /// A datagram needs none.
    fn descriptors(&self, _connections: usize) -> usize {
        ServingStrategy::descriptors(self)
    }

    fn run(&mut self, bound: &Bound, handler: &Arc<Datagrams<H>>) -> Result<u64> {
        serve(self, bound, Service::Datagrams(handler.0.clone()))
    }

    fn run_once(&mut self, bound: &Bound, handler: &Arc<Datagrams<H>>, timeout: Option<Duration>) -> Result<Single> {
        serve_one(self, bound, Service::Datagrams(handler.0.clone()), timeout)
    }
}

fn limits_of(strategy: &impl ServingStrategy) -> Result<(usize, usize)> {
    Ok((strategy.max_connections()?, strategy.capacity()))
}

fn serve(strategy: &impl ServingStrategy, bound: &Bound, service: Service) -> Result<u64> {
    let acceptor = Acceptor::for_strategy(&bound.core, &bound.listeners, service, strategy)?;
    let lot = acceptor.lot();
    let _at_cut = lot.map(|lot| bound.core.waiting.enter(lot.clone()));
    let served = {
        let _here = Accepting::here();
        strategy.serve(&acceptor)
    };
    // The last listener has failed, or the strategy cannot begin. Connections in progress still get their
    // drain.
    if served.is_err() {
        bound.core.control.request_stop();
    }
    let abandoned = drain(&bound.core, strategy).map_err(Error::system("drain"));
    lot.into_iter().for_each(|lot| lot.close());
    let abandoned = abandoned?;
    served.map(|()| abandoned)
}

fn serve_one(
    strategy: &impl ServingStrategy,
    bound: &Bound,
    service: Service,
    timeout: Option<Duration>,
) -> Result<Single> {
    let acceptor = Acceptor::new(&bound.core, &bound.listeners, service);
    let _here = Accepting::here();
    let deadline = timeout.and_then(|t| Instant::now().checked_add(t));
    loop {
        strategy.service_actions();
        match acceptor.seat_for(strategy)?.next(left(deadline))? {
            AcceptEvent::Request(request) => {
                strategy.process_request(request).unwrap_or_else(Rejected::refuse);
                strategy.service_actions();
                return Ok(Single::Taken);
            }
            AcceptEvent::Watched => {}
            AcceptEvent::Timeout => return Ok(Single::TimedOut),
            // The stop stays, until a run of `serve_forever` has drained.
            AcceptEvent::Stopped => return Ok(Single::Stopped),
        }
    }
}
