//! One turn of the loop: wait, then handle the events, then what follows from them.
//!
//! Here are the order of a turn and the steps that concern the whole loop. What concerns one connection is in
//! `conns`; nothing below calls a turn.
//!
//! The walk: `State::turn` → `sync_listeners` → `wait` → for each event `begin_drain`, `run_sent_calls`, `receive`,
//! `accept`, `hear_greeting`, `check_attempt` or `handle_readiness` → `read_left_unread` → `fire_timers` → `run_deferred` → `settle` →
//! `continue_drain`.
//!
//! A loop is fair only if each step ends. So a connection is read a few times in a turn, and a listener accepts once. Calls,
//! timers and messages are those that were there when their step began. A protocol that posts to itself for ever
//! keeps the loop busy, and no other connection waiting.

pub(crate) mod accept;
pub(crate) mod drain;
pub(crate) mod greet;
pub(crate) mod serve_here;
pub(crate) mod solo;
pub(crate) mod timers;
pub(crate) mod verify;

use std::time::Duration;

use crate::error::{Error, Result};
use crate::event_loop::primitives::token;
use crate::event_loop::state::work::Deferred;
use crate::event_loop::state::State;
use crate::lifecycle::Restarts;
use crate::panics::forget;
use crate::sys::Readiness;

impl State {
    /// Runs one turn. It waits for at most `timeout`.
    pub(crate) fn turn(&mut self, timeout: Option<Duration>) -> Result<()> {
        // Listeners are watched only while there is a permit: beyond the limit, connections wait in the kernel.
        self.sync_listeners()?;
        self.sync_datagrams();
        // A server is ready once its loop listens.
        self.core.report_ready();

        // The only wait. It ends for an event, the next timer, or at once if work is left from the last turn.
        let events = self.wait(timeout)?;

        // The bounds of this turn: what is listed or set from here on belongs to the next one.
        let unread = self.queues.unread.len();
        let mark = self.time.timers.mark();

        // A solo connection's server may have cut its connections while the loop waited.
        self.adopt_server_cut();

        self.handle_events(events)?;
        // A time is over, and the wait may have ended for that alone. The process may also have been stopped in it
        // (SIGSTOP, a frozen container). So what has come meanwhile is handled before the time counts.
        if self.is_anything_due() {
            let events = self.poller.wait(Some(Duration::ZERO)).map_err(Error::system("wait for events"))?;
            self.handle_events(events)?;
        }
        // Input that no event announces: the rest of the last turn, bytes read ahead, memory, regular files.
        self.read_left_unread(unread);
        self.serve_memory();
        self.read_files();

        // After the input: data that came in time counts before a time limit does.
        self.fire_timers(mark);

        // Calls that callbacks have asked for. No callback runs within another.
        self.run_deferred();

        // Each connection that this turn has touched: send, pause or resume, end, watch.
        self.settle();

        // At a stop: one more queued connection, the cut at the limit, and the end of the run.
        self.continue_drain();
        Ok(())
    }

    /// Handles each event of a wait. A connection that ended earlier in this turn has a stale id, so its event finds
    /// nothing.
    fn handle_events(&mut self, events: usize) -> Result<()> {
        for place in 0..events {
            match self.poller.event(place) {
                (connection, ready) if connection < token::CONNECTORS => {
                    self.handle_readiness(self.conns.id(connection), ready);
                }
                (token::STOP, _) => self.begin_drain(),
                (token::NOW, _) => self.poller.remove(&self.core.control.now),
                (token::GATE, _) => self.hear_gate(),
                (token::INBOX, _) => self.run_sent_calls(),
                (token::RESTART, _) => self.core.restarts().into_iter().for_each(Restarts::step),
                (socket, _) if socket >= token::DATAGRAMS => self.receive(socket),
                (port, _) if port >= token::PORTS => self.accept(port)?,
                (greeting, _) if greeting >= token::GREETINGS => self.hear_greeting(greeting),
                (connector, ready) => self.check_attempt(connector, ready),
            }
        }
        Ok(())
    }

    /// Waits for events, and reads the clock once for the whole turn.
    fn wait(&mut self, timeout: Option<Duration>) -> Result<usize> {
        let patience = self.patience(timeout);
        let events = self.poller.wait(patience).map_err(Error::system("wait for events"))?;
        self.time.now = self.time.clock.now();
        self.time.woke = self.time.now;
        Ok(events)
    }

    /// True if a timer or the drain limit was due when the wait of this turn ended.
    fn is_anything_due(&mut self) -> bool {
        let (timer, drain) = (self.time.timers.next(), self.drain_deadline().filter(|_| !self.is_cut()));
        timer.into_iter().chain(drain).any(|at| at <= self.time.woke)
    }

    /// Reads the connections that had more input, or their end, behind the read of the last turn. Edge-triggered epoll
    /// does not announce that input again.
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

    /// Runs the calls that other threads have sent. Calls that arrive meanwhile wait for the next turn.
    fn run_sent_calls(&mut self) {
        for call in self.loops.inbox.take_all() {
            self.call_free("a call from a thread", call);
        }
    }

    /// Runs what callbacks have put off. The queue's length is taken once, so new entries wait for the next turn.
    fn run_deferred(&mut self) {
        for _ in 0..self.queues.deferred.len() {
            match self.queues.deferred.pop_front() {
                Some(Deferred::Call(call)) => self.call_free("a call", call),
                Some(Deferred::Message(id, message)) if self.is_open(id) => {
                    self.call(id, "message", |p, t| p.message(t, message));
                    self.mark(id);
                }
                Some(Deferred::Message(_, message)) => forget(message),
                Some(Deferred::DatagramMessage(place, message)) => self.deliver_datagram_message(place, message),
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

    /// Serves the connections of the test kit, which have no sockets. Each is ready when a socket would be.
    #[cfg(feature = "testing")]
    fn serve_memory(&mut self) {
        for id in std::mem::take(&mut self.unpolled.memory) {
            let Some(conn) = self.conns.get(id) else { continue };
            self.unpolled.memory.push(id);
            if let (Some(memory), Some(watched)) = (conn.io.memory(), conn.watch.interest) {
                if let Some(ready) = memory.readiness(watched) {
                    self.handle_readiness(id, ready);
                }
            }
        }
    }

    /// Returns how long the next wait may last; `None` for ever. A loop without timers sleeps until something
    /// happens: nothing ticks.
    pub(crate) fn patience(&mut self, timeout: Option<Duration>) -> Option<Duration> {
        // Work that no event announces: then the loop only looks, and does not wait.
        let may_accept = self.has_queued() && !self.ports.rests && !self.core.admission.permits.full();
        let has_more =
            !self.queues.dirty.is_empty() || !self.queues.deferred.is_empty() || !self.queues.unread.is_empty();
        if self.stop.asked || may_accept || has_more || self.has_readable_file() {
            return Some(Duration::ZERO);
        }
        let due = self.time.timers.next().into_iter().chain(self.drain_deadline().filter(|_| !self.is_cut())).min();
        let left = due.map(|due| due.saturating_duration_since(self.time.clock.now()));
        left.into_iter().chain(timeout).min()
    }
}
