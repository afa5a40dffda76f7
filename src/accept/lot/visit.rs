//! [`Visit`]: a connection that is served request by request, and all that it owns.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::Arc;
use std::time::Instant;

use super::places::NotParked;
use super::Lot;
use crate::admit::Permit;
use crate::config::{FIRST_LOOK, LAST_LOOK};
use crate::connection::{Connection, Heard, Look, Patience};
use crate::error::HandlerResult;
use crate::finish;
use crate::handler::{Next, Session, StreamRequestHandler};
use crate::lifecycle::Core;
use crate::observe::{contain, InHandler, Outcome};
use crate::panics::forget;
use crate::sys::{socket, Epoll};

/// A connection, its session and its permit. The thread that serves a request owns it, and the lot between two requests.
pub(in crate::accept) struct Visit {
    connection: Connection,
    /// `None` until `setup` has succeeded, and after `finish`.
    session: Option<Box<dyn Session>>,
    permit: Permit,
    patience: Patience,
    /// How many more waits for a request begin with a short one, on this thread: see [`look`].
    short_waits: u8,
    /// True if the lot's set has the descriptor.
    is_known: bool,
    /// True if it was parked, and has not been looked at since.
    is_resumed: bool,
    /// True if somebody has had it taken up while it is parked.
    is_poked: bool,
    /// True if a request has begun, and its handler has asked for more of it.
    is_within: bool,
}

impl Visit {
    /// Serves a new connection, until it ends or is parked.
    pub(in crate::accept) fn begin(
        connection: Connection,
        handler: &dyn StreamRequestHandler,
        permit: Permit,
        lot: &Arc<Lot>,
    ) {
        let mut visit = Box::new(Self {
            connection,
            session: None,
            permit,
            patience: Patience::default(),
            short_waits: SHORT_WAITS,
            is_known: false,
            is_resumed: false,
            is_poked: false,
            is_within: false,
        });
        let set_up = visit.contained(|visit| {
            if let Some(mut session) = handler.session() {
                session.setup(&mut visit.connection)?;
                visit.session = Some(session);
            }
            Ok(())
        });
        match set_up {
            Outcome::Served => visit.run(lot),
            failed => visit.end(failed),
        }
    }

    /// Serves the connection, until it ends or is parked.
    pub(in crate::accept) fn run(mut self: Box<Self>, lot: &Arc<Lot>) {
        loop {
            let mut parks = false;
            let outcome = self.contained(|visit| {
                parks = visit.serve(lot)?;
                Ok(())
            });
            if !parks || !matches!(outcome, Outcome::Served) {
                return self.end(outcome);
            }
            let between = !self.is_within;
            (self.is_resumed, self.is_poked) = (true, false);
            // The stop may have come: then one more look.
            if self.connection.rest(between) {
                match lot.park(self) {
                    Ok(()) => return,
                    Err((visit, NotParked::Wanted)) => self = visit,
                    Err((visit, NotParked::Over)) => return visit.stop(),
                    Err((visit, NotParked::Failed(e))) => return visit.end(Outcome::Failed(e.into())),
                }
            }
        }
    }

    /// Serves the requests that have come. True if the connection is to be parked, false if it ends.
    fn serve(&mut self, lot: &Lot) -> HandlerResult<bool> {
        let Self { connection, patience, short_waits, is_resumed, is_within, .. } = self;
        let Some(session) = &mut self.session else { return Ok(false) };
        loop {
            let resumed = std::mem::take(is_resumed);
            if resumed {
                connection.rise(!*is_within);
            }
            if *is_within {
                if !connection.hear_more(patience, resumed)? {
                    return Ok(true);
                }
            } else {
                match connection.hear(patience, look(resumed, short_waits, lot))? {
                    Heard::Request => {}
                    Heard::End => return Ok(false),
                    Heard::Nothing => return Ok(true),
                }
            }
            let next = session.request(connection)?;
            if connection.is_detached() {
                return Ok(false);
            }
            match next {
                Next::Request => {
                    connection.check_progress()?;
                    *is_within = false;
                }
                Next::More => *is_within = true,
                Next::Close => return Ok(false),
            }
        }
    }

    /// Runs code of the user.
    fn contained(&mut self, run: impl FnOnce(&mut Self) -> HandlerResult) -> Outcome {
        let _inside = InHandler::of(self.permit.core().monitor.server);
        contain(|| run(self))
    }

    /// Calls the session's `finish`, if it has begun. An earlier error or panic stays.
    fn finish(&mut self, outcome: Outcome) -> Outcome {
        let Some(mut session) = self.session.take() else { return outcome };
        let finished = self.contained(|visit| session.finish(&mut visit.connection));
        // The session is the user's value, and its drop may panic.
        forget(session);
        match outcome {
            Outcome::Served => finished,
            outcome => {
                forget(finished);
                outcome
            }
        }
    }

    fn end(mut self: Box<Self>, outcome: Outcome) {
        let outcome = self.finish(outcome);
        self.close(outcome);
    }

    /// Closes and counts. Last, the permit comes back.
    fn close(self: Box<Self>, outcome: Outcome) {
        let Self { connection, permit, .. } = *self;
        finish::finish_connection(&permit.core().clone(), connection, outcome, permit);
    }

    /// Ends a parked connection that has sent nothing, because the server stops.
    pub(super) fn stop(mut self: Box<Self>) {
        self.connection.stop_parked();
        self.end(Outcome::Served);
    }

    /// Ends a parked connection at the drain limit.
    pub(super) fn cut(self: Box<Self>) {
        let error = self.connection.wire().drain_exceeded();
        self.end(Outcome::Failed(error.into()));
    }

    /// Ends a parked connection that a strategy could not serve.
    pub(in crate::accept) fn give_up(self: Box<Self>, why: &io::Error) {
        self.end(Outcome::Failed(io::Error::new(why.kind(), why.to_string()).into()));
    }

    /// True if nobody has had it taken up before.
    pub(super) fn mark_poked(&mut self) -> bool {
        !std::mem::replace(&mut self.is_poked, true)
    }

    /// True if a stop has come that ends it between two requests.
    pub(super) fn is_stopping(&self) -> bool {
        !self.is_within && self.connection.wire().is_stopping_idle(true)
    }

    /// True if a stop ends it, because nothing has come.
    pub(super) fn ends_at_stop(&self) -> bool {
        !self.is_within && self.connection.wire().ends_at_stop()
    }

    /// True if the peer's kernel has all output.
    pub(super) fn is_acknowledged(&self) -> bool {
        let wire = self.connection.wire();
        !wire.is_tcp() || socket::unacknowledged(wire.as_fd()).map_or(true, |bytes| bytes == 0)
    }

    /// Watches the connection for input, in the set of its lot.
    pub(super) fn watch(&mut self, set: &Epoll, token: u64) -> io::Result<()> {
        if self.is_known {
            return set.arm(self.connection.wire(), token);
        }
        self.is_known = true;
        set.add_once(self.connection.wire(), token)
    }

    pub(in crate::accept) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Returns the time at which a limit ends its wait.
    pub(super) fn until(&self) -> Option<Instant> {
        self.patience.ends()
    }

    pub(in crate::accept) fn core(&self) -> &Arc<Core> {
        self.permit.core()
    }

    pub(super) fn fd(&self) -> RawFd {
        self.connection.as_fd().as_raw_fd()
    }
}

/// Returns how a connection looks for a request. A new client sends its first request soon, and often its last one: then
/// to be parked costs more than the request. So the thread waits for a moment, unless no other thread waits for work.
fn look(resumed: bool, short_waits: &mut u8, lot: &Lot) -> Look {
    if resumed {
        return Look::Resumed;
    }
    let may_wait = *short_waits > 0 && lot.has_waiting();
    *short_waits = short_waits.saturating_sub(1);
    if may_wait {
        Look::Soon
    } else {
        Look::Now
    }
}

/// For the first request, and for the end after it. The model's sockets have no timeouts.
const SHORT_WAITS: u8 = if cfg!(all(test, shuttle)) { 0 } else { 2 };

/// Ends parked connections because the server stops. Their peers' kernels must have acknowledged all output before the
/// close: see `finish::plan`. All are waited for together.
#[allow(clippy::vec_box)] // as `Lot::take_if` gives them
pub(super) fn end_together(core: &Core, visits: Vec<Box<Visit>>) {
    let ended = visits.into_iter().map(|mut visit| {
        visit.connection.stop_parked();
        let outcome = visit.finish(Outcome::Served);
        let sent = visit.connection.flush_last();
        (visit, outcome.and(sent))
    });
    let mut ended: Vec<_> = ended.collect();
    let mut pause = FIRST_LOOK;
    loop {
        let (done, waiting): (Vec<_>, Vec<_>) = ended.into_iter().partition(|(visit, _)| visit.is_acknowledged());
        done.into_iter().for_each(|(visit, outcome)| visit.close(outcome));
        let is_over = || core.control.is_cut() || core.drain_deadline().is_some_and(|at| at <= Instant::now());
        if waiting.is_empty() || is_over() {
            return waiting.into_iter().for_each(|(visit, outcome)| visit.close(outcome));
        }
        ended = waiting;
        std::thread::sleep(pause);
        pause = (pause * 2).min(LAST_LOOK);
    }
}

impl fmt::Debug for Visit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Visit").field("connection", &self.connection).finish_non_exhaustive()
    }
}
