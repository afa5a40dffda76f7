//! The loop's listeners: each accepts one connection a turn, with a permit in hand.
//!
//! All loops of a server share its listeners. With a listener for each loop (`SO_REUSEPORT`), the kernel would assign
//! clients by their addresses, also to a loop that hangs. A queue that closes would reset its clients. A shared queue
//! is served by the loop that is free, and its length at a stop is counted once for all.

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
use crate::finish::{self, refuse};
use crate::lifecycle::AtGate;
use crate::listen::Listener;
use crate::net::{Accepted, Arrival};
use crate::panics::forget;

impl State {
    /// Watches the listeners exactly while there is a permit for another connection. Without one, clients wait in the
    /// kernel's queue.
    pub(crate) fn sync_listeners(&mut self) -> Result<()> {
        // The loop of a solo connection has no listeners, and takes no permit.
        if self.solo.is_some() {
            return Ok(());
        }
        let full = self.is_full();
        let core = &self.core;
        let listen = !(full || self.ports.rests || core.control.paused() || self.stop.drain.is_some());
        // A system call for each listener, so only at a change.
        if listen != self.ports.listening {
            self.ports.listening = listen;
            for place in self.ports.list.ids() {
                self.watch_port(place, listen)?;
            }
        }
        Ok(())
    }

    /// True if there is no permit. From then on, a permit that another loop gives back wakes this one.
    fn is_full(&mut self) -> bool {
        let full = !self.has_permit();
        // A loop alone gets its permits back itself, in its own turn.
        if self.loops.group.is_alone() || full == self.ports.at_gate.is_some() {
            return full;
        }
        self.ports.at_gate = full.then(|| AtGate::enter(&self.core));
        // Mark, then look again; a loop that gives a permit back looks at the mark afterwards. So one of the two sees
        // the other, and while no loop waits, a returned permit costs no system call.
        full && !self.has_permit()
    }

    fn has_permit(&mut self) -> bool {
        match self.core.settings.at_limit {
            AtLimit::Refuse(_) => true, // without a permit, the connection is accepted and refused
            AtLimit::Wait if self.core.is_worker() => self.reserve_permit(),
            AtLimit::Wait => !self.core.admission.permits.full(),
        }
    }

    /// Reserves a permit before the wait, in a worker process. True if the loop has one. The kernel wakes only one
    /// worker for a connection; without a permit it could not accept, although another worker is free.
    fn reserve_permit(&mut self) -> bool {
        // The master has lowered the limit, and wants unused permits back.
        if self.ports.reserved.is_some() && self.core.admission.permits.exceeded() {
            self.ports.reserved.take().into_iter().for_each(Permit::give_back_unused);
        }
        if self.ports.reserved.is_none() {
            self.ports.reserved = Permit::reserve(&self.core);
        }
        self.ports.reserved.is_some()
    }

    /// Accepts one connection from a readable listener. Readiness is level-triggered, so the next turn accepts the
    /// next one. A batch would end with a call that fails, and a burst of new clients would hold up the others.
    pub(crate) fn accept(&mut self, token: u64) -> Result<()> {
        let (index, number) = token::place(token::PORTS, token);

        // The stop came together with the event, and other processes go on to accept. None was woken for it.
        let told_before_the_stop = self.core.spares_newcomers();
        if self.core.control.paused() || self.ports.rests || (self.stop.drain.is_some() && !told_before_the_stop) {
            return Ok(());
        }

        // A token has no room for a generation. An event of a port that has closed finds its successor instead, which
        // is looked at once in vain.
        let Some(place) = self.ports.list.at(index) else { return Ok(()) };
        let Some((listeners, accepted_on)) = self.accepted_on(place, number) else { return Ok(()) };
        let Some(listener) = listeners.get(number) else { return Ok(()) };

        // The permit before the accept: so the limit is exact.
        let permit = self.ports.reserved.take().or_else(|| Permit::reserve(&self.core));
        if permit.is_none() && !matches!(self.core.settings.at_limit, AtLimit::Refuse(_)) {
            // It waits for a permit with those that were queued at the stop.
            if let Some(port) = self.ports.list.get(place).filter(|_| self.stop.drain.is_some()) {
                port.queued.put_back(number);
            }
            return Ok(());
        }

        let accepted = listener.accept();
        // `handle_request` serves one connection to its end. A loop has no other thread that could finish it.
        self.ports.rests |= self.ports.accepts_one && accepted.is_ok();
        match (accepted, permit) {
            (Ok(accepted), Some(mut permit)) => {
                permit.engage();
                // An accept has worked: the next failure begins with the shortest rest again.
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

    /// Returns the listeners of a port, and what the new connection keeps of the port. The factory is cloned, because
    /// the port may close before the connection begins.
    fn accepted_on(&self, place: Place, number: usize) -> Option<(Arc<Vec<Listener>>, AcceptedOn)> {
        let Port { listeners, factory, .. } = self.ports.list.get(place)?;
        Some((listeners.clone(), AcceptedOn { place, number, factory: factory.clone() }))
    }

    /// Moves this loop to the end of the listener's wait queue, if it has more connections than another loop.
    /// `EPOLLEXCLUSIVE` wakes the loop that began to wait first, which would always be the same one. Price: two system
    /// calls, paid only by the loop that has more.
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

    /// Rests, if that helps after this failure. The loop stops watching and goes on with its connections. A timer ends
    /// the rest.
    fn rest_after(&mut self, listener: &Listener, e: io::Error) -> NextStep {
        let next = after_failure(&self.core, listener, e);
        if let NextStep::Rest(time) = next {
            if !std::mem::replace(&mut self.ports.rests, true) {
                self.time.timers.set(self.time.now, time, TimerTask::Rested);
            }
        }
        next
    }

    fn accept_failed(&mut self, listener: &Listener, e: io::Error) -> Result<()> {
        match self.rest_after(listener, e) {
            NextStep::GoOn | NextStep::Rest(_) => {}
            // The loop goes on while one listener is left.
            NextStep::Lost(error)
                if self.ports.list.values().flat_map(|p| p.listeners.iter()).all(Listener::is_lost) =>
            {
                return Err(error);
            }
            NextStep::Lost(_) => self.poller.remove(listener),
        }
        Ok(())
    }

    /// Takes a new connection in: greets it first, if the server expects that.
    fn admit(&mut self, accepted_on: AcceptedOn, mut accepted: Accepted, permit: Permit) {
        accepted.birth = self.core.note_accepted(&accepted.peer, || accepted.local_addr());
        match self.ports.list.get(accepted_on.place).and_then(|port| port.proxies.clone()) {
            Some(proxies) => self.expect_header(&proxies, accepted_on, accepted, permit),
            None => self.verify(accepted_on, accepted, permit),
        }
    }

    /// Serves a connection. First it counts it for its source, and asks `verify_request` about it.
    pub(crate) fn verify(&mut self, accepted_on: AcceptedOn, mut accepted: Accepted, mut permit: Permit) {
        // Here the client is known, also behind a proxy.
        if let Err(why) = permit.admit_source(&accepted) {
            return finish::refuse_source(&self.core, accepted, why);
        }
        self.core.tell_opened(&mut accepted);
        if self.core.hooks.verify_request.is_some() {
            self.await_verdict(accepted_on, accepted, permit);
        } else {
            self.secure(accepted_on, accepted, permit);
        }
    }

    /// Enters the connection into the loop, builds its protocol and begins.
    pub(crate) fn serve(&mut self, accepted_on: AcceptedOn, accepted: Accepted, permit: Permit) {
        let (Accepted { socket, peer, proxy, tls, birth }, AcceptedOn { place, number, factory }) =
            (accepted, accepted_on);
        let origin = Origin::Accepted(Some((place, number as u32))); // less than PER_PORT
        let io = Io::connected(socket, tls, self.time.now);
        let mut conn = Conn::new(io, peer, origin, Some(permit), self.time.now);
        (conn.entry.proxy, conn.entry.birth) = (proxy, birth);
        let id = self.conns.insert(conn);
        self.build_and_begin(&*factory, id);
        forget(factory);
    }

    /// Counts the connections that the kernel's queues hold at the stop. These are still served: a close would reset
    /// them.
    pub(crate) fn count_queued(&mut self) {
        for port in self.ports.list.values_mut() {
            // A count of an earlier run would be wrong now. Several loops share one count, which the run has made.
            if self.loops.group.is_alone() {
                port.queued = queued_at_stop(&self.core);
            }
            port.queued.count(&port.listeners, self.core.settings.backlog);
        }
    }

    /// Serves one connection that was queued at the stop, if there is a permit for it.
    pub(crate) fn accept_one_queued(&mut self) {
        if !self.has_queued() || self.ports.rests {
            return;
        }
        for place in self.ports.list.ids() {
            let Some(port) = self.ports.list.get(place) else { break };
            let queued = port.queued.clone();
            let Some(number) = queued.next() else { continue };
            let Some(permit) = Permit::take(&self.core) else { return };
            let Some((listeners, accepted_on)) = self.accepted_on(place, number) else { break };
            let Some(listener) = listeners.get(number) else { continue };
            // Another loop or worker was faster.
            if !queued.take(number) {
                return;
            }
            match listener.accept() {
                Ok(accepted) => self.admit(accepted_on, accepted, permit),
                Err(e) => {
                    queued.note_failure(number, &e);
                    permit.give_back_unused();
                    self.rest_after(listener, e);
                }
            }
            return;
        }
    }

    /// True if connections that were queued at the stop are still to be served.
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

    /// Refuses every connection.
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
