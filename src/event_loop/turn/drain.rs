//! The end of a run: nothing more is accepted, idle connections close, busy ones may finish, the rest is cut.
//!
//! The walk: `begin_drain` counts the kernel's queues and marks all connections. Each turn, `drain_one` closes idle
//! connections, and `continue_drain` serves one of the queue. At the limit comes `cut`; `stop.asked` ends the run.

use std::time::{Duration, Instant};

use log::Level;

use crate::accept::Accepting;
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
use crate::lifecycle::Restarts;
use crate::observe::log_line;
use crate::sys::Readiness;

impl State {
    /// Watches for the server's stop, at the start of a run. Several loops share the two eventfds, so no loop clears
    /// them: each watches until it has seen the stop.
    pub(crate) fn watch_stop(&mut self) -> Result<()> {
        let (control, read) = (&self.core.control, Readiness::READABLE);
        // An earlier run may have left them watched.
        self.poller.remove(control.stop_fd());
        self.poller.remove(&control.now);
        // The first loop of a server starts its successor.
        let restarts = self.core.restarts().filter(|_| self.loops.number == 0).map(Restarts::watch);
        restarts.into_iter().for_each(|restarts| self.poller.remove(restarts));
        self.poller
            .add(control.stop_fd(), read, token::STOP)
            .and_then(|()| self.poller.add(&control.now, read, token::NOW))
            .and_then(|()| restarts.map_or(Ok(()), |restarts| self.poller.add(restarts, read, token::RESTART)))
            .map_err(Error::system("watch for the stop"))
    }

    /// Stops the server, and cuts what is left after `grace`, in all loops of the server. It shortens a drain that is
    /// under way, and never prolongs it.
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
        // A protocol on a blocking strategy stops the server, not only the loop of its own connection.
        let core = if self.solo.is_some() { self.core.server() } else { &self.core };
        core.control.request_stop();
        self.drain_within(deadline, grace);
    }

    /// Begins the drain, or moves the deadline of one that is under way to an earlier time.
    pub(crate) fn drain_within(&mut self, deadline: Instant, grace: Duration) {
        let before = self.drain_deadline();
        self.begin_drain();
        if let Some(drain) = &mut self.stop.drain {
            drain.deadline = Some(before.map_or(deadline, |before| before.min(deadline)));
            drain.grace = grace;
        }
    }

    /// Begins the drain: counts the queues, cancels attempts to connect, and has every connection looked at.
    pub(crate) fn begin_drain(&mut self) {
        // The eventfd stays readable for the other loops. This one has seen it.
        self.poller.remove(self.core.control.stop_fd());
        if self.stop.drain.is_some() {
            return;
        }
        self.core.report_stopping();

        // How long: as another loop was told, as the test's clock says, or as the server is set.
        let grace = self.core.settings.drain_timeout;
        let by_hand = self.time.clock.set_by_hand().map(|now| now + grace);
        let (deadline, grace) = match self.loops.group.drain_limit() {
            Some((deadline, grace)) => (Some(deadline), grace),
            None => (by_hand, grace),
        };
        self.stop.drain = Some(Drain { deadline, grace, cut: false });

        // A paused server accepts nothing, at a stop neither.
        if !self.core.control.paused() && !self.ports.accepts_one {
            self.count_queued();
        }

        // The next settle calls `drain_one` for each.
        self.watch_end_of_grace();
        for id in self.conns.ids() {
            self.mark(id);
        }

        // A connection that is still greeted has said nothing yet.
        self.end_greetings_at_stop();

        // A drain is for conversations that are under way. Attempts and waits of clients are none.
        self.stop_connecting_all();
    }

    /// Handles a wake-up at the gate: a permit came back, or the server stops while a worker of it drains already. The
    /// turn itself looks for the permit.
    pub(crate) fn hear_gate(&mut self) {
        // The stop is level-triggered, and stays readable: it would end every wait.
        if self.solo.is_some() {
            self.poller.remove(self.core.server().control.stop_fd());
        }
        // A worker that was recycled has spared connections without a request. At a stop of the server it does not.
        if self.stop.drain.is_some() && self.core.is_worker() {
            self.conns.ids().into_iter().for_each(|id| self.mark(id));
            self.end_greetings_at_stop();
        }
    }

    /// Takes the drain one step on, once a turn.
    pub(crate) fn continue_drain(&mut self) {
        if self.stop.drain.is_none() {
            return;
        }

        // The loop waits for no new connection any more, so another worker may have its permit.
        self.ports.reserved.take().into_iter().for_each(Permit::give_back_unused);
        self.stop_all_datagrams();

        // One a turn, as in `accept`: the connections that are served must not wait for the queue.
        self.accept_one_queued();

        // At the limit, what is left is cut. As of the wake-up: input that came in time has been handled.
        if self.drain_deadline().is_some_and(|at| at <= self.time.woke) && !self.is_cut() {
            self.cut();
        }

        // Nothing is left: the run ends with this turn.
        if !self.has_connections() && !self.has_queued() {
            self.end_clients();
            self.stop_listening_all();
            self.stop.asked = true;
        }
    }

    /// Ends every connection that is left, because the drain limit has passed.
    pub(crate) fn cut(&mut self) {
        // The limit of one solo connection is no cut of its whole server, unless its thread is the one that drains the
        // server. The parent of a child cuts by itself.
        let drains_server = || Accepting::is_here() && !self.core.control.in_child() && self.is_server_drain_over();
        if self.solo.is_none() || drains_server() {
            self.core.control.cut();
        }
        let Some(drain) = &mut self.stop.drain else { return };
        drain.cut = true;
        let exceeded = LimitExceeded { limit: Limit::Drain, after: drain.grace };
        let left = self.conns.len() + self.verdicts.len() + self.greetings.len();
        self.refuse_all_greetings();
        self.refuse_all_pending();
        if left > 0 && self.solo.is_none() {
            log_line(Level::Warn, "socketserver::drain", format_args!("the drain is over: cut {left} connections"));
        }
        for id in self.conns.ids() {
            // A connection that has begun its end keeps its first reason.
            self.end(id, LostReason::TimedOut(exceeded));
            if let Some(conn) = self.conns.get_mut(id) {
                conn.end.phase = Phase::Over;
                // The peer must not take a part of an answer for the whole.
                if !conn.out.is_empty() {
                    conn.reset_at_close();
                }
            }
        }
        self.settle();
    }

    /// Ends every connection at once, together with the loop.
    pub(crate) fn end_all(&mut self) {
        // A loop that drains begins nothing: callbacks that run from here on can connect to no peer.
        let (deadline, grace) = (None, Duration::ZERO);
        self.stop.drain.get_or_insert(Drain { deadline, grace, cut: true });
        self.refuse_all_greetings();
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
    /// Stops the loop in order, and ends [`Reactor::run`](crate::Reactor::run). It stops listening, and calls
    /// `shutting_down` of every protocol. Connections close when they are idle; after `grace` the rest is cut.
    pub fn shutdown(&mut self, grace: Duration) {
        self.state.shutdown(grace);
    }
}
