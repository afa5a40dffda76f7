//! The loop's listeners: opened, watched, closed.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::event_loop::primitives::slab::Place;
use crate::event_loop::primitives::token::{self, AT_A_TIME, PER_PORT};
use crate::event_loop::state::context::Context;
use crate::event_loop::state::factory::Factory;
use crate::event_loop::state::ports::{ListeningPort, Port};
use crate::event_loop::state::work::Deferred;
use crate::event_loop::state::State;
use crate::lifecycle::{Core, WorkerRole};
use crate::listen::{Listener, QueuedAtStop};

impl Context<'_> {
    /// Accepts no more on this port. Connections stay.
    pub fn stop_listening(&mut self, port: &ListeningPort) {
        self.state.stop_listening(port.place);
    }
}

impl State {
    pub(crate) fn listen(&mut self, listeners: Arc<Vec<Listener>>, factory: Rc<dyn Factory>) -> Result<ListeningPort> {
        let queued = queued_at_stop(&self.core);
        self.listen_with(listeners, factory, queued)
    }

    /// As one of several loops, which serve what is queued at a stop together.
    pub(crate) fn listen_with(
        &mut self,
        listeners: Arc<Vec<Listener>>,
        factory: Rc<dyn Factory>,
        queued: Arc<QueuedAtStop>,
    ) -> Result<ListeningPort> {
        if listeners.len() > PER_PORT || self.ports.list.len() >= AT_A_TIME {
            let why =
                format!("a loop takes {PER_PORT} listeners in one port, and {AT_A_TIME} ports at a time, at most");
            return Err(Error::setting("listen", why));
        }
        let port = Port { factory: factory.clone(), listeners, queued };
        let addr = port.local_addr(0);
        let place = self.ports.list.insert(port);
        if self.ports.listening {
            if let Err(e) = self.watch_port(place, true) {
                self.ports.list.remove(place);
                return Err(e);
            }
        }
        // One that has several ports is told of the first and of the last.
        if self.ports.factory_refs.add(&factory) {
            self.start_factory(&factory);
        }
        Ok(ListeningPort { place, addr })
    }

    /// The factory is told when no callback runs.
    pub(crate) fn stop_listening(&mut self, place: Place) {
        if let Some(factory) = self.close_port(place) {
            self.queues.deferred.push_back(Deferred::Stop(factory));
        }
    }

    pub(crate) fn stop_factory(&mut self, factory: Rc<dyn Factory>) {
        self.call_free("stop_factory", move |cx| factory.stop_factory(cx)); // and dropped in there, too
    }

    /// Calls `stop_factory` and `stop_protocol` of closed ports now, and not in the next turn.
    pub(crate) fn end_closed_ports(&mut self) {
        let is_an_end = |soon: &Deferred| matches!(soon, Deferred::Stop(_) | Deferred::EndDatagrams(_));
        let (ends, others): (VecDeque<_>, VecDeque<_>) =
            std::mem::take(&mut self.queues.deferred).into_iter().partition(is_an_end);
        self.queues.deferred = others;
        for end in ends {
            match end {
                Deferred::Stop(factory) => self.stop_factory(factory),
                Deferred::EndDatagrams(place) => self.end_datagrams(place),
                _ => {}
            }
        }
    }

    /// The factory, if this was its last port.
    fn close_port(&mut self, place: Place) -> Option<Rc<dyn Factory>> {
        let Port { factory, listeners, .. } = self.ports.list.remove(place)?;
        if self.ports.listening {
            listeners.iter().for_each(|listener| self.poller.remove(listener));
        }
        Some(factory).filter(|factory| self.ports.factory_refs.remove(factory))
    }

    pub(crate) fn stop_listening_all(&mut self) {
        self.ports.list.ids().into_iter().for_each(|place| self.stop_listening(place));
        self.end_closed_ports();
    }

    pub(crate) fn watch_port(&self, place: Place, watch: bool) -> Result<()> {
        let Some(port) = self.ports.list.get(place) else { return Ok(()) };
        for (number, listener) in port.listeners.iter().enumerate().filter(|(_, listener)| !listener.is_lost()) {
            if watch {
                self.poller
                    .add_exclusive(listener, token::of(token::PORTS, place.index(), number))
                    .map_err(Error::system("watch a listener"))?;
            } else {
                self.poller.remove(listener);
            }
        }
        Ok(())
    }

    pub(crate) fn start_factory(&mut self, factory: &Rc<dyn Factory>) {
        self.call_free("start_factory", |cx| factory.start_factory(cx));
    }
}

/// For the listeners of a port; in a worker process its master counts for all.
pub(crate) fn queued_at_stop(core: &Core) -> Arc<QueuedAtStop> {
    Arc::new(QueuedAtStop::new(core.worker().map(WorkerRole::queue_counts)))
}
