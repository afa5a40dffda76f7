//! What lets one server type run handlers on threads, in processes, or in an event loop.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::drain::drain;
use super::udp::Datagrams;
use crate::accept::{AcceptEvent, Accepting, Acceptor, Rejected, Service, ServingStrategy};
use crate::error::{Error, Result};
use crate::handler::{DatagramRequestHandler, StreamRequestHandler};
use crate::lifecycle::Core;
use crate::listen::Listener;
use crate::sync::left;

/// A server's listeners and what its parts share.
#[derive(Debug)]
pub struct Bound {
    pub(crate) core: Arc<Core>,
    pub(crate) listeners: Arc<Vec<Listener>>,
}

/// How a whole server with handler `H` runs. Every [`ServingStrategy`] is one for every [`StreamRequestHandler`];
/// users meet the trait in bounds only.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot serve with `{H}` as the handler",
    label = "this strategy does not take this handler",
    note = "a handler implements `StreamRequestHandler`; a closure is made one by `handler(|conn| ...)`",
    note = "a type with `&mut self` methods is made one by `per_connection(|| MyHandler::new())`",
    note = "a factory of protocols wants the strategy `EventLoop`, or `EventLoops` if it is `Send` and `Sync`; for any other one, wrap it in `Blocking(factory)`"
)]
pub trait Engine<H> {
    /// The default limit on connections, and the most that there can be.
    #[doc(hidden)]
    fn connection_limits(&self) -> Result<(usize, usize)>;

    /// True if it runs worker processes: then it can be no worker's engine.
    #[doc(hidden)]
    fn has_workers(&self) -> bool {
        false
    }

    /// When the server has been made. `follows`: nobody has set the limit on connections.
    #[doc(hidden)]
    fn prepare(&self, bound: &Bound, follows: bool) -> Result<()> {
        let _ = (bound, follows);
        Ok(())
    }

    /// Serves until the stop, and drains; how many handlers were left running.
    #[doc(hidden)]
    fn run(&mut self, bound: &Bound, handler: &Arc<H>) -> Result<u64>;

    #[doc(hidden)]
    fn run_once(&mut self, bound: &Bound, handler: &Arc<H>, timeout: Option<Duration>) -> Result<Single>;
}

/// What has come of waiting for a single connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Single {
    /// It came, and the strategy has it.
    Taken,
    /// None came in time.
    TimedOut,
    /// The server was told to stop.
    Stopped,
}

impl<H: StreamRequestHandler, S: ServingStrategy> Engine<H> for S {
    fn connection_limits(&self) -> Result<(usize, usize)> {
        limits_of(self)
    }

    fn run(&mut self, bound: &Bound, handler: &Arc<H>) -> Result<u64> {
        serve(self, bound, Service::Connections(handler.clone()))
    }

    fn run_once(&mut self, bound: &Bound, handler: &Arc<H>, timeout: Option<Duration>) -> Result<Single> {
        serve_one(self, bound, Service::Connections(handler.clone()), timeout)
    }
}

/// One flow per datagram.
impl<H: DatagramRequestHandler, S: ServingStrategy> Engine<Datagrams<H>> for S {
    fn connection_limits(&self) -> Result<(usize, usize)> {
        limits_of(self)
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
    let acceptor = Acceptor::new(&bound.core, &bound.listeners, service);
    let served = {
        let _here = Accepting::here();
        strategy.serve(&acceptor)
    };
    if served.is_err() {
        bound.core.control.request_stop();
    }
    let abandoned = drain(&bound.core, strategy).map_err(Error::system("drain"))?;
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
    bound.core.control.begin();
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
            AcceptEvent::Stopped => {
                bound.core.control.end(); // so that it is told once, as serve_forever does
                return Ok(Single::Stopped);
            }
        }
    }
}
