//! A turn of the loop: wait, then all that has come, then all that follows from it.
//!
//! The order is fixed, and every step is bounded: what is set off in a turn and can wait is done in the next, so that
//! nobody is kept waiting for ever by somebody else.

pub(crate) mod accept;
pub(crate) mod drain;
pub(crate) mod verify;

use std::io;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::event_loop::io::Io;
use crate::event_loop::primitives::slab::ConnId;
use crate::event_loop::primitives::token;
use crate::event_loop::state::conn::WriteHalf;
use crate::event_loop::state::lost::LostReason;
use crate::event_loop::state::{Soon, State, Task};
use crate::panics::forget;
use crate::sys::Readiness;

impl State {
    /// One turn.
    pub(crate) fn turn(&mut self, timeout: Option<Duration>) -> Result<()> {
        self.mind_listeners()?;
        self.mind_datagrams();
        self.core.worker().into_iter().for_each(|worker| worker.report_ready());
        let events = self.wait(timeout)?;
        let unread = self.unread.len();
        let mark = self.timers.mark();
        self.follow_the_cut();
        for place in 0..events {
            match self.poller.event(place) {
                (token::STOP, _) => self.begin_drain(),
                (token::NOW, _) => self.poller.remove(&self.core.control.now),
                (token::GATE, _) => self.gate_rung(),
                (token::INBOX, _) => self.take_calls(),
                (socket, _) if socket >= token::DATAGRAMS => self.receive(socket),
                (port, _) if port >= token::PORTS => self.accept(port)?,
                (connector, ready) if connector >= token::CONNECTORS => self.connect_is_ready(connector, ready),
                (connection, ready) => self.ready(self.conns.id(connection), ready),
            }
        }
        self.read_unread(unread);
        self.serve_ahead();
        self.serve_memory();
        self.read_files();
        self.fire_timers(mark);
        self.do_what_was_put_off();
        self.settle();
        self.go_on_draining();
        Ok(())
    }

    fn wait(&mut self, timeout: Option<Duration>) -> Result<usize> {
        let patience = self.patience(timeout);
        let events = self.poller.wait(patience).map_err(Error::system("wait for events"))?;
        self.now = self.clock.now();
        self.woke = self.now;
        Ok(events)
    }

    /// A socket has something to tell. What its own callback writes is sent at once, while the socket is warm in the
    /// caches (a tenth of an echo's cost); what others have written to it waits for the end of the turn, as more may
    /// come.
    pub(crate) fn ready(&mut self, id: ConnId, ready: Readiness) {
        // An event of a connection that was closed in this turn has an id that stands for nothing.
        let Some(conn) = self.conns.get_mut(id) else { return };
        let is_listed = std::mem::replace(&mut conn.dirty, true);
        if ready.write || ready.hangup {
            conn.blocked = false;
        }
        conn.more |= ready.more || ready.hangup;
        conn.unread |= ready.read || ready.hangup;
        let reads = conn.wanted().read;
        if conn.listed && reads {
            // It is read in this turn, once.
        } else if reads && (ready.read || ready.hangup) {
            self.read(id);
        } else if ready.hangup {
            self.hung_up(id);
        }
        if !is_listed {
            self.settle_one(id);
        }
    }

    /// A connection that is not read from is broken, or the peer has closed it in order.
    fn hung_up(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        let broken = conn.io.hang_up(conn.write_half == WriteHalf::Shut);
        let is_input = matches!(conn.io, Io::Input(_));
        let reason = match broken {
            None if is_input || (conn.paused.holds_input() && !conn.paused.at_eof) => {
                // It is read when reading goes on. Until then epoll would tell of it in every turn.
                conn.io.with_fd(|fd| self.poller.remove(fd));
                (conn.hung_up, conn.watched) = (true, None);
                return;
            }
            None if conn.paused.at_eof && conn.out.is_empty() => LostReason::PeerClosed,
            error => LostReason::of_broken(error.unwrap_or_else(|| io::ErrorKind::ConnectionReset.into())),
        };
        self.end(id, reason);
    }

    /// Those of the last turn that have more to give than one read takes, or their end.
    fn read_unread(&mut self, listed: usize) {
        for place in 0..listed {
            let Some(id) = self.unread.get(place).copied() else { break };
            let Some(conn) = self.conns.get_mut(id) else { continue };
            conn.listed = false;
            if conn.unread && conn.wanted().read {
                self.ready(id, Readiness::READABLE);
            }
        }
        self.unread.drain(..listed.min(self.unread.len()));
    }

    /// Reads once; whether something has come.
    pub(crate) fn read(&mut self, id: ConnId) -> bool {
        let Some(conn) = self.conns.get_mut(id) else { return false };
        let is_open = conn.is_open();
        let mut buffer = std::mem::take(&mut self.buffer);
        let read = match conn.rare {
            None => conn.recv(&mut buffer),
            Some(_) => self.recv_limited(id, &mut buffer),
        };
        let came = match read {
            Ok(n) if is_open => {
                self.received(id, buffer.get(..n).unwrap_or_default());
                true
            }
            Ok(n) => self.discarded(id, n),
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => false,
            Err(e) => {
                self.end(id, LostReason::of_broken(e));
                false
            }
        };
        self.buffer = buffer;
        came
    }

    pub(crate) fn received(&mut self, id: ConnId, data: &[u8]) {
        let now = self.now;
        let Some(conn) = self.conns.get_mut(id) else { return };
        if data.is_empty() {
            conn.paused.at_eof = true;
            return self.stream_ended(id);
        }
        conn.since = now;
        conn.heard = true;
        if conn.marks == crate::event_loop::state::conn::Marks::None && conn.request_since.is_none() {
            conn.request_since = Some(now);
        }
        self.call(id, "data_received", |p, t| p.data_received(t, data));
        let now = self.now;
        self.conns.get_mut(id).into_iter().for_each(|conn| conn.since = now); // its own time is no idling
    }

    /// Those that are due, and were set before this turn.
    fn fire_timers(&mut self, mark: u64) {
        let now = self.woke;
        while let Some((timer, task)) = self.timers.pop(now, mark) {
            match task {
                Task::Call(call) => self.call_free("a timer's call", call),
                Task::Limit(id) => self.limit_is_due(id),
                Task::Throttle(id, direction) => self.may_go_on(id, direction),
                Task::Connect(connector) => self.connect_is_due(connector),
                Task::Rested => self.rests = false,
                Task::Verify(key) => self.verdict_is_late(key),
                Task::Actions => self.act(),
                Task::Protocol(id) => {
                    if self.is_open(id) {
                        self.call(id, "timer", |p, t| p.timer(t, timer));
                    }
                    self.mark(id);
                }
            }
        }
    }

    /// From other threads: what is there now; what comes meanwhile is for the next turn.
    fn take_calls(&mut self) {
        for call in self.inbox.take() {
            self.call_free("a call from a thread", call);
        }
    }

    fn do_what_was_put_off(&mut self) {
        for _ in 0..self.soon.len() {
            match self.soon.pop_front() {
                Some(Soon::Call(call)) => self.call_free("a call", call),
                Some(Soon::Message(id, message)) if self.is_open(id) => {
                    self.call(id, "message", |p, t| p.message(t, message));
                    self.mark(id);
                }
                Some(Soon::Message(_, message)) => forget(message),
                Some(Soon::Connect(connector)) => self.go_on_connecting(connector),
                Some(Soon::Start(factory)) => self.start_factory(&factory),
                Some(Soon::Stop(factory)) => self.stop_factory(factory),
                Some(Soon::EndDatagrams(place)) => self.end_datagrams(place),
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
        for id in std::mem::take(&mut self.in_memory) {
            let Some(conn) = self.conns.get(id) else { continue };
            self.in_memory.push(id);
            if let (crate::event_loop::io::Io::Memory(memory), Some(watched)) = (&conn.io, conn.watched) {
                if let Some(ready) = memory.readiness(watched) {
                    self.ready(id, ready);
                }
            }
        }
    }
}
