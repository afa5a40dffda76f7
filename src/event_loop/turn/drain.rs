//! The end of a run: no more is accepted, idle connections are closed, the others may finish, the rest is cut.

use std::time::{Duration, Instant};

use log::Level;

use crate::admit::Permit;
use crate::config::{Limit, LimitExceeded};
use crate::error::{Error, Result};
use crate::event_loop::primitives::timers::NEVER;
use crate::event_loop::primitives::token;
use crate::event_loop::state::conn::Phase;
use crate::event_loop::state::context::Context;
use crate::event_loop::state::lost::LostReason;
use crate::event_loop::state::stop::Drain;
use crate::event_loop::state::State;
use crate::observe::log_line;
use crate::sys::Readiness;

impl State {
    /// At the start of a run: hears of the server's stop.
    pub(crate) fn watch_stop(&mut self) -> Result<()> {
        let (control, read) = (&self.core.control, Readiness::READABLE);
        self.poller.remove(&control.stop);
        self.poller.remove(&control.now);
        self.poller
            .add(&control.stop, read, token::STOP)
            .and_then(|()| self.poller.add(&control.now, read, token::NOW))
            .map_err(Error::system("watch for the stop"))
    }

    /// A drain that is on already is not made longer. The limit holds for all loops of the server.
    pub(crate) fn shutdown(&mut self, grace: Duration) {
        let deadline = self.time.clock.now() + grace.min(NEVER);
        if !self.loops.group.is_alone() {
            self.loops.group.limit_drain(deadline, grace);
            self.loops
                .group
                .call_others(self.loops.number, || Box::new(move |cx| cx.state.limit_drain(deadline, grace)));
        }
        self.limit_drain(deadline, grace);
    }

    fn limit_drain(&mut self, deadline: Instant, grace: Duration) {
        let core = if self.lent.is_some() { self.core.server() } else { &self.core };
        core.control.request_stop();
        self.drain_within(deadline, grace);
    }

    pub(crate) fn drain_within(&mut self, deadline: Instant, grace: Duration) {
        let before = self.drain_deadline();
        self.begin_drain();
        if let Some(drain) = &mut self.stop.drain {
            drain.deadline = Some(before.map_or(deadline, |before| before.min(deadline)));
            drain.grace = grace;
        }
    }

    pub(crate) fn begin_drain(&mut self) {
        self.poller.remove(&self.core.control.stop);
        if self.stop.drain.is_some() {
            return;
        }
        let grace = self.core.settings.drain_timeout;
        let by_hand = self.time.clock.set_by_hand().map(|now| now + grace);
        let (deadline, grace) = match self.loops.group.drain_limit() {
            Some((deadline, grace)) => (Some(deadline), grace),
            None => (by_hand, grace),
        };
        self.stop.drain = Some(Drain { deadline, grace, cut: false });
        if !self.core.control.paused() && !self.ports.accepts_one {
            self.count_queued();
        }
        self.watch_end_of_grace();
        for id in self.conns.ids() {
            self.mark(id);
        }
        self.stop_connecting_all();
    }

    /// There is a place again; or the server ends after this worker, so that nobody is spared any more.
    pub(crate) fn hear_gate(&mut self) {
        if self.lent.is_some() {
            self.poller.remove(&self.core.server().control.stop); // it would be told of again and again
        }
        if self.stop.drain.is_some() && self.core.is_worker() {
            self.conns.ids().into_iter().for_each(|id| self.mark(id));
        }
    }

    /// Once a turn: takes in the last of the queue, cuts at the limit, and ends the run when nothing is left.
    pub(crate) fn continue_drain(&mut self) {
        if self.stop.drain.is_none() {
            return;
        }
        self.ports.reserved.take().into_iter().for_each(Permit::give_back_unused); // nobody is waited for any more
        self.stop_all_datagrams();
        self.accept_one_queued();
        if self.drain_deadline().is_some_and(|at| at <= self.time.clock.now()) && !self.is_cut() {
            self.cut();
        }
        if !self.has_connections() && !self.has_queued() {
            self.end_clients();
            self.stop_listening_all();
            self.stop.asked = true;
        }
    }

    pub(crate) fn cut(&mut self) {
        if self.lent.is_none() || self.is_server_drain_over() {
            self.core.control.cut();
        }
        let Some(drain) = &mut self.stop.drain else { return };
        drain.cut = true;
        let exceeded = LimitExceeded { limit: Limit::Drain, after: drain.grace };
        let left = self.conns.len() + self.verdicts.len();
        self.refuse_all_pending();
        if left > 0 && self.lent.is_none() {
            log_line(Level::Warn, "socketserver::drain", format_args!("the drain is over: cut {left} connections"));
        }
        for id in self.conns.ids() {
            self.end(id, LostReason::TimedOut(exceeded)); // no reason for one that had all but ended
            if let Some(conn) = self.conns.get_mut(id) {
                conn.end.phase = Phase::Over;
            }
        }
        self.settle();
    }

    /// Ends every connection at once; with the loop itself.
    pub(crate) fn end_all(&mut self) {
        let (deadline, grace) = (None, Duration::ZERO);
        self.stop.drain.get_or_insert(Drain { deadline, grace, cut: true }); // nothing begins any more
        self.refuse_all_pending();
        for id in self.conns.ids() {
            self.end(id, LostReason::Shutdown);
            if let Some(conn) = self.conns.get_mut(id) {
                conn.end.phase = Phase::Over;
            }
            self.finish(id);
        }
        self.end_clients();
    }
}

impl Context<'_> {
    /// Stops listening, tells every protocol, closes connections when they are idle, cuts those that are not when
    /// `grace` has passed, and ends [`Reactor::run`](crate::Reactor::run).
    pub fn shutdown(&mut self, grace: Duration) {
        self.state.shutdown(grace);
    }
}
