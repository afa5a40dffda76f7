//! The event loop as a server's strategy.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::event_loop::primitives::clock::Clock;
use crate::event_loop::reactor::Reactor;
use crate::event_loop::state::factory::{Factory, SharedFactory};
use crate::event_loop::state::settings::EventLoop;
use crate::event_loop::state::State;
use crate::observe::InHandler;
use crate::server::{Bound, Engine, Single};

/// The descriptors of a loop: its epoll set and its inbox.
pub(super) const OF_A_LOOP: usize = 2;

impl<F: Factory + 'static> Engine<F> for EventLoop {
    fn connection_limits(&self, _factory: &F) -> Result<(usize, usize)> {
        self.checked()?;
        Ok((Self::default_limit(), usize::MAX))
    }

    /// An epoll set and an inbox, and the connections.
    fn descriptors(&self, connections: usize) -> usize {
        OF_A_LOOP + connections
    }

    fn run(&mut self, bound: &Bound, factory: &Arc<F>) -> Result<u64> {
        let _inside = InHandler::of(bound.core.monitor.server);
        let mut reactor = self.reactor(bound, factory)?;
        bound.core.worker().into_iter().for_each(|worker| worker.beat());
        reactor.state.schedule_duties();
        reactor.run_to_the_end()?;
        Ok(0)
    }

    /// Serves one connection to its end.
    fn run_once(&mut self, bound: &Bound, factory: &Arc<F>, timeout: Option<Duration>) -> Result<Single> {
        let mut reactor = self.reactor(bound, factory)?;
        let deadline = timeout.and_then(|t| Instant::now().checked_add(t));
        reactor.serve_one(deadline)
    }
}

impl EventLoop {
    /// Makes the reactor on the thread that serves. Only settings were needed before, so a server is `Send`.
    fn reactor<F: Factory + 'static>(self, bound: &Bound, factory: &Arc<F>) -> Result<Reactor> {
        let state = State::new(bound.core.clone(), self.checked()?, Clock::System)
            .map_err(Error::system("make an event loop"))?;
        let mut reactor = Reactor::of(state)?;
        reactor.listen(bound.listeners.clone(), Rc::new(SharedFactory(factory.clone())))?;
        Ok(reactor)
    }
}
