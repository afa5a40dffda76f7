//! The loop's listeners: opened, watched, closed.
//!
//! Nothing of a closed port is kept, neither its factory nor its slot. A program that opens a port for each transfer
//! can go on for ever.

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
use crate::proxy::ProxyProtocol;

impl Context<'_> {
    /// Closes a port: the loop accepts no more there. Its connections stay.
    pub fn stop_listening(&mut self, port: &ListeningPort) {
        self.state.stop_listening(port.place);
    }

    /// Serves a port behind a proxy: connections that it accepts from now on begin with a header of the PROXY protocol.
    /// Networks, refusals and the time limit (10 s) are as for a server, see
    /// [`ServerBuilder::proxy_protocol`](crate::ServerBuilder::proxy_protocol). A port that is closed stays closed.
    ///
    /// # Errors
    /// [`Error::Setting`](crate::Error::Setting) for a network that is none.
    ///
    /// ```
    /// use socketserver::{factory, lines, HandlerResult, LineReceiver, Reactor};
    /// use socketserver::event_loop::FramedTransport;
    ///
    /// struct Greeter;
    /// impl LineReceiver for Greeter {
    ///     fn line_received(
    ///         &mut self,
    ///         transport: &mut FramedTransport<'_>,
    ///         _line: &[u8],
    ///     ) -> HandlerResult {
    ///         let client = transport.peer_addr();
    ///         transport.send_line(format!("hello {client}"))
    ///     }
    /// }
    ///
    /// let mut reactor = Reactor::new()?;
    /// let port = reactor.listen_tcp("127.0.0.1:0", factory(|_peer| lines(Greeter)))?;
    /// reactor.context().set_proxy_protocol(&port, ["127.0.0.1"])?;
    /// # Ok::<(), socketserver::Error>(())
    /// ```
    pub fn set_proxy_protocol(&mut self, port: &ListeningPort, networks: impl Into<ProxyProtocol>) -> Result<()> {
        let proxies = networks.into();
        proxies.check()?;
        if let Some(port) = self.state.ports.list.get_mut(port.place) {
            port.proxies = Some(Arc::new(proxies));
        }
        Ok(())
    }
}

impl State {
    /// Opens a port with these listeners.
    pub(crate) fn listen(&mut self, listeners: Arc<Vec<Listener>>, factory: Rc<dyn Factory>) -> Result<ListeningPort> {
        let queued = queued_at_stop(&self.core);
        self.listen_with(listeners, factory, queued)
    }

    /// Opens a port as one of several loops, which share the count of connections queued at a stop.
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
        let proxies = self.core.settings.proxy_protocol.clone();
        let port = Port { factory: factory.clone(), listeners, queued, proxies };
        let addr = port.local_addr(0);
        let place = self.ports.list.insert(port);
        if self.ports.listening {
            if let Err(e) = self.watch_port(place, true) {
                self.ports.list.remove(place);
                return Err(e);
            }
        }
        // A factory with several ports is started with the first, and stopped with the last. Its starts and stops that
        // were put off come first: the port may build a protocol before the deferred work of a turn is run.
        self.end_closed_ports();
        let is_new = self.ports.factory_refs.add(&factory);
        if self.cancel_start(&factory) || is_new {
            self.start_factory(&factory);
        }
        Ok(ListeningPort { place, addr })
    }

    /// Closes a port. `stop_factory` follows when no callback runs.
    pub(crate) fn stop_listening(&mut self, place: Place) {
        if let Some(factory) = self.close_port(place) {
            self.queues.deferred.push_back(Deferred::Stop(factory));
        }
    }

    /// Calls `stop_factory`, and drops the factory within the call, where a panic is contained.
    pub(crate) fn stop_factory(&mut self, factory: Rc<dyn Factory>) {
        self.call_free("stop_factory", move |cx| factory.stop_factory(cx));
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

    /// Removes a port. Returns the factory if this was its last use.
    fn close_port(&mut self, place: Place) -> Option<Rc<dyn Factory>> {
        let Port { factory, listeners, .. } = self.ports.list.remove(place)?;
        if self.ports.listening {
            listeners.iter().for_each(|listener| self.poller.remove(listener));
        }
        Some(factory).filter(|factory| self.ports.factory_refs.remove(factory))
    }

    /// Closes all ports, and stops their factories.
    pub(crate) fn stop_listening_all(&mut self) {
        self.ports.list.ids().into_iter().for_each(|place| self.stop_listening(place));
        self.end_closed_ports();
    }

    /// Watches the listeners of a port, or watches them no more. They are level-triggered, and the kernel wakes only
    /// one of the loops for a connection.
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

    /// Calls `start_factory`.
    pub(crate) fn start_factory(&mut self, factory: &Rc<dyn Factory>) {
        self.call_free("start_factory", |cx| factory.start_factory(cx));
    }
}

/// Makes the count of connections queued at a stop. In a worker process, the master's memory has it, for all workers.
pub(crate) fn queued_at_stop(core: &Core) -> Arc<QueuedAtStop> {
    Arc::new(QueuedAtStop::new(core.worker().map(WorkerRole::queue_counts)))
}
