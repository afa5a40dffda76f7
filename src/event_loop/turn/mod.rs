//! A turn of the loop: wait, then all that has come, then all that follows from it.
//!
//! The order is fixed, and every step is bounded: what is set off in a turn and can wait is done in the next, so that
//! nobody is kept waiting for ever by somebody else.

pub(crate) mod accept;
pub(crate) mod drain;
pub(crate) mod one_connection;
pub(crate) mod timers;
pub(crate) mod verify;

use std::time::Duration;

use crate::error::{Error, Result};
use crate::event_loop::primitives::token;
use crate::event_loop::state::work::Deferred;
use crate::event_loop::state::State;
use crate::panics::forget;
use crate::sys::Readiness;

impl State {
    /// One turn.
    pub(crate) fn turn(&mut self, timeout: Option<Duration>) -> Result<()> {
        self.sync_listeners()?;
        self.sync_datagrams();
        self.core.worker().into_iter().for_each(|worker| worker.report_ready());
        let events = self.wait(timeout)?;
        let unread = self.queues.unread.len();
        let mark = self.time.timers.mark();
        self.adopt_server_cut();
        for place in 0..events {
            match self.poller.event(place) {
                (token::STOP, _) => self.begin_drain(),
                (token::NOW, _) => self.poller.remove(&self.core.control.now),
                (token::GATE, _) => self.hear_gate(),
                (token::INBOX, _) => self.run_sent_calls(),
                (socket, _) if socket >= token::DATAGRAMS => self.receive(socket),
                (port, _) if port >= token::PORTS => self.accept(port)?,
                (connector, ready) if connector >= token::CONNECTORS => self.check_attempt(connector, ready),
                (connection, ready) => self.handle_readiness(self.conns.id(connection), ready),
            }
        }
        self.read_left_unread(unread);
        self.serve_ahead();
        self.serve_memory();
        self.read_files();
        self.fire_timers(mark);
        self.run_deferred();
        self.settle();
        self.continue_drain();
        Ok(())
    }

    fn wait(&mut self, timeout: Option<Duration>) -> Result<usize> {
        let patience = self.patience(timeout);
        let events = self.poller.wait(patience).map_err(Error::system("wait for events"))?;
        self.time.now = self.time.clock.now();
        self.time.woke = self.time.now;
        Ok(events)
    }

    /// Those of the last turn that have more to give than one read takes, or their end.
    fn read_left_unread(&mut self, listed: usize) {
        for place in 0..listed {
            let Some(id) = self.queues.unread.get(place).copied() else { break };
            let Some(conn) = self.conns.get_mut(id) else { continue };
            conn.watch.listed = false;
            if conn.watch.unread && conn.wanted().read {
                self.handle_readiness(id, Readiness::READABLE);
            }
        }
        self.queues.unread.drain(..listed.min(self.queues.unread.len()));
    }

    /// From other threads: what is there now; what comes meanwhile is for the next turn.
    fn run_sent_calls(&mut self) {
        for call in self.loops.inbox.take_all() {
            self.call_free("a call from a thread", call);
        }
    }

    fn run_deferred(&mut self) {
        for _ in 0..self.queues.deferred.len() {
            match self.queues.deferred.pop_front() {
                Some(Deferred::Call(call)) => self.call_free("a call", call),
                Some(Deferred::Message(id, message)) if self.is_open(id) => {
                    self.call(id, "message", |p, t| p.message(t, message));
                    self.mark(id);
                }
                Some(Deferred::Message(_, message)) => forget(message),
                Some(Deferred::Connect(connector)) => self.continue_connecting(connector),
                Some(Deferred::Start(factory)) => self.start_factory(&factory),
                Some(Deferred::Stop(factory)) => self.stop_factory(factory),
                Some(Deferred::EndDatagrams(place)) => self.end_datagrams(place),
                None => {}
            }
        }
    }

    #[cfg(not(feature = "testing"))]
    #[allow(clippy::unused_self)]
    fn serve_memory(&mut self) {}

    /// Connections without sockets: ready when they would be.
    #[cfg(feature = "testing")]
    fn serve_memory(&mut self) {
        for id in std::mem::take(&mut self.unpolled.memory) {
            let Some(conn) = self.conns.get(id) else { continue };
            self.unpolled.memory.push(id);
            if let (crate::event_loop::io::Io::Memory(memory), Some(watched)) = (&conn.io, conn.watch.interest) {
                if let Some(ready) = memory.readiness(watched) {
                    self.handle_readiness(id, ready);
                }
            }
        }
    }

    /// How long the next wait may be.
    pub(crate) fn patience(&mut self, timeout: Option<Duration>) -> Option<Duration> {
        let may_accept = self.has_queued() && !self.core.admission.permits.full();
        let has_more =
            !self.queues.dirty.is_empty() || !self.queues.deferred.is_empty() || !self.queues.unread.is_empty();
        if self.stop.asked || may_accept || has_more || self.has_ahead() || self.has_readable_file() {
            return Some(Duration::ZERO);
        }
        let due = self.time.timers.next().into_iter().chain(self.drain_deadline().filter(|_| !self.is_cut())).min();
        let left = due.map(|due| due.saturating_duration_since(self.time.clock.now()));
        left.into_iter().chain(timeout).min()
    }
}
