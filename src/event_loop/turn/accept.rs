//! The loop's listeners: one connection is accepted from each at a time, with a permit in hand.

use std::io;
use std::sync::Arc;

use crate::accept::{after_failure, NextStep};
use crate::admit::Permit;
use crate::config::AtLimit;
use crate::error::{Error, Result};
use crate::event_loop::io::Io;
use crate::event_loop::primitives::slab::Place;
use crate::event_loop::primitives::token;
use crate::event_loop::services::ports::queued_at_stop;
use crate::event_loop::state::conn::{Conn, Origin};
use crate::event_loop::state::ports::{AcceptedOn, Port};
use crate::event_loop::state::work::TimerTask;
use crate::event_loop::state::State;
use crate::finish::refuse;
use crate::lifecycle::AtGate;
use crate::listen::{AcceptError, Listener};
use crate::net::Accepted;
use crate::panics::forget;

impl State {
    /// Watches the listeners while there is a place for another connection, and not otherwise: the kernel's queue
    /// waits.
    pub(crate) fn sync_listeners(&mut self) -> Result<()> {
        if self.lent.is_some() {
            return Ok(()); // it has none, and takes no place for a connection
        }
        let full = self.is_full();
        let core = &self.core;
        let listen = !(full || self.ports.rests || core.control.paused() || self.stop.drain.is_some());
        if listen != self.ports.listening {
            self.ports.listening = listen;
            for place in self.ports.list.ids() {
                self.watch_port(place, listen)?;
            }
        }
        Ok(())
    }

    /// Whether there is no place. The loop hears of one that another loop gives back from then on.
    fn is_full(&mut self) -> bool {
        let full = !self.has_permit();
        if self.loops.group.is_alone() || full == self.ports.at_gate.is_some() {
            return full;
        }
        self.ports.at_gate = full.then(|| AtGate::enter(&self.core));
        full && !self.has_permit() // it may have been given back before
    }

    fn has_permit(&mut self) -> bool {
        match self.core.settings.at_limit {
            AtLimit::Refuse(_) => true, // or one to be refused
            AtLimit::Wait if self.core.is_worker() => self.reserve_permit(),
            AtLimit::Wait => !self.core.admission.permits.full(),
        }
    }

    /// In a worker process, a loop that listens has a place already: the connection that wakes it is told to no other
    /// worker. Whether it has one.
    fn reserve_permit(&mut self) -> bool {
        if self.ports.reserved.is_some() && self.core.admission.permits.exceeded() {
            self.ports.reserved.take().into_iter().for_each(Permit::give_back_unused);
        }
        if self.ports.reserved.is_none() {
            self.ports.reserved = Permit::reserve(&self.core);
        }
        self.ports.reserved.is_some()
    }

    /// A listener is readable: one connection, as level-triggered readiness tells again of the next.
    pub(crate) fn accept(&mut self, token: u64) -> Result<()> {
        let (index, number) = token::place(token::PORTS, token);
        let told_before_the_stop = self.ports.reserved.is_some() && self.core.ends_alone();
        if self.core.control.paused() || self.ports.rests || (self.stop.drain.is_some() && !told_before_the_stop) {
            return Ok(());
        }
        let Some(place) = self.ports.list.at(index) else { return Ok(()) }; // closed in this turn
        let Some((listeners, accepted_on)) = self.accepted_on(place, number) else { return Ok(()) };
        let Some(listener) = listeners.get(number) else { return Ok(()) };
        let permit = self.ports.reserved.take().or_else(|| Permit::reserve(&self.core));
        if permit.is_none() && !matches!(self.core.settings.at_limit, AtLimit::Refuse(_)) {
            return Ok(());
        }
        let accepted = listener.accept();
        self.ports.rests |= self.ports.accepts_one && accepted.is_ok();
        match (accepted, permit) {
            (Ok(accepted), Some(mut permit)) => {
                permit.engage();
                self.core.backoff.is_over();
                self.admit(accepted_on, accepted, permit);
                self.queue_up_anew(listener, token)?;
            }
            (Ok(accepted), None) => {
                refuse(&self.core, accepted, &io::Error::other("the connection limit is reached"));
            }
            (Err(e), permit) => {
                permit.into_iter().for_each(Permit::give_back_unused);
                self.accept_failed(listener, e)?;
            }
        }
        Ok(())
    }

    fn accepted_on(&self, place: Place, number: usize) -> Option<(Arc<Vec<Listener>>, AcceptedOn)> {
        let Port { listeners, factory, .. } = self.ports.list.get(place)?;
        Some((listeners.clone(), AcceptedOn { place, number, factory: factory.clone() }))
    }

    /// Of the loops that wait for a connection, the kernel wakes the one that has begun to wait first. One that has more
    /// than another queues up anew.
    fn queue_up_anew(&self, listener: &Listener, token: u64) -> Result<()> {
        if self.loops.group.is_alone()
            || !self.ports.listening
            || !self.loops.group.note_load(self.loops.number, self.conns.len())
        {
            return Ok(());
        }
        self.poller.remove(listener);
        self.poller.add_exclusive(listener, token).map_err(Error::system("watch a listener"))
    }

    fn accept_failed(&mut self, listener: &Listener, e: io::Error) -> Result<()> {
        match after_failure(&self.core, listener, e) {
            NextStep::GoOn => {}
            NextStep::Rest(time) => {
                if !std::mem::replace(&mut self.ports.rests, true) {
                    self.time.timers.set(self.time.now, time, TimerTask::Rested);
                }
            }
            NextStep::Lost(error)
                if self.ports.list.values().flat_map(|p| p.listeners.iter()).all(Listener::is_lost) =>
            {
                return Err(error);
            }
            NextStep::Lost(_) => self.poller.remove(listener),
        }
        Ok(())
    }

    /// A new connection: it is served, unless the server's hook is to decide about that first.
    fn admit(&mut self, accepted_on: AcceptedOn, accepted: Accepted, permit: Permit) {
        self.core.note_accepted(&accepted.peer);
        if self.core.hooks.verify_request.is_some() {
            self.await_verdict(accepted_on, accepted, permit);
        } else {
            self.serve(accepted_on, accepted, permit);
        }
    }

    /// Its protocol is made, and told.
    pub(crate) fn serve(&mut self, accepted_on: AcceptedOn, accepted: Accepted, permit: Permit) {
        let (Accepted { socket, peer }, AcceptedOn { place, number, factory }) = (accepted, accepted_on);
        let origin = Origin::Accepted(Some((place, number as u32))); // less than PER_PORT
        let id = self.conns.insert(Conn::new(Io::Socket(socket), peer, origin, Some(permit), self.time.now));
        self.build_and_begin(&*factory, id);
        forget(factory);
    }

    /// At a stop: what the kernel's queues hold now is still served.
    pub(crate) fn count_queued(&mut self) {
        for port in self.ports.list.values_mut() {
            if self.loops.group.is_alone() {
                port.queued = queued_at_stop(&self.core); // not that of an earlier run
            }
            port.queued.count(&port.listeners, self.core.settings.backlog);
        }
    }

    /// Serves one of them, if there is a place for it.
    pub(crate) fn accept_one_queued(&mut self) {
        if !self.has_queued() {
            return;
        }
        for place in self.ports.list.ids() {
            let Some(port) = self.ports.list.get(place) else { break };
            let queued = port.queued.clone();
            let Some(number) = queued.next() else { continue };
            let Some(permit) = Permit::take(&self.core) else { return };
            let Some((listeners, accepted_on)) = self.accepted_on(place, number) else { break };
            let Some(listener) = listeners.get(number) else { continue };
            if !queued.take(number) {
                return; // another worker was faster
            }
            match listener.accept() {
                Ok(accepted) => self.admit(accepted_on, accepted, permit),
                Err(e) if AcceptError::of(&e) == AcceptError::Gone => {}
                Err(_) => queued.clear(number), // no time is left to wait for better
            }
            return;
        }
    }

    pub(crate) fn has_queued(&self) -> bool {
        let serves = !self.is_cut() && !self.ports.accepts_one && !self.core.control.paused();
        serves && self.ports.list.values().any(|port| !port.queued.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;
    use crate::event_loop::{Context, Factory, Peer, Protocol, Reactor};

    /// Serves nobody.
    struct Refusing;

    impl Factory for Refusing {
        fn build_protocol(&self, _: &mut Context<'_>, _: &Peer) -> Option<Box<dyn Protocol>> {
            None
        }
    }

    #[test]
    fn an_event_of_a_port_that_is_closed_is_of_no_effect() {
        let mut reactor = Reactor::new().unwrap();
        reactor.server().set_max_connections(1).unwrap();
        let gone = reactor.listen_tcp("127.0.0.1:0", Refusing).unwrap();
        let event = token::of(token::PORTS, gone.place.index(), 0);
        reactor.context().stop_listening(&gone);
        reactor.state.accept(event).unwrap();
        let port = reactor.listen_tcp("127.0.0.1:0", Refusing).unwrap();
        assert_eq!((port.place.index(), reactor.state.ports.list.len()), (gone.place.index(), 1));
        reactor.state.accept(event).unwrap();
        assert!(!reactor.state.core.admission.permits.full(), "no place is lost by it");
        let _client = TcpStream::connect(port.addr.socket_addr().unwrap()).unwrap();
        reactor.state.accept(event).unwrap();
        assert_eq!(reactor.server().stats().refused, 1);
    }
}
