//! Time limits of a connection.
//!
//! A limit is a timer of the loop that is hardly ever touched. When a read moves the limit away, the timer stays; when
//! it fires too early, it is set anew. So most reads cost no timer.
//!
//! A loop sees bytes, and no requests. Receivers of lines and strings mark where a request begins and is complete,
//! and a protocol may do the same. Without marks the loop guesses, each time on the safe side. The request limit
//! counts from the first byte to the end of the answer, so that it catches a client that trickles. A drain takes the
//! connection to be idle when nothing is queued, so that it does not wait for a silent client.

use std::time::{Duration, Instant};

use crate::config::{Limit, LimitExceeded, LAST_LOOK};
use crate::event_loop::primitives::slab::ConnId;
use crate::event_loop::state::conn::{Phase, RequestMarks};
use crate::event_loop::state::lost::LostReason;
use crate::event_loop::state::transport::Transport;
use crate::event_loop::state::State;

impl Transport<'_> {
    /// Marks the beginning of a request, for the request limit and for a drain. It lasts until
    /// [`request_ends`](Self::request_ends). Receivers of lines and strings call both by themselves.
    ///
    /// Without these calls, the request limit counts from the first byte after an answer to the last byte of the next
    /// answer. For a drain, the connection is then idle when nothing is queued and reading is not paused.
    pub fn request_begins(&mut self) {
        let now = self.cx.now();
        if let Some(conn) = self.conn_mut() {
            conn.request.marks = RequestMarks::Explicit;
            conn.limits.request_since = Some(now);
            conn.request.ends_when_sent = false;
        }
        self.cx.state.mark(self.id);
    }

    /// Marks the end of a request. It is over when what is queued is sent, because an answer belongs to its request.
    /// Then the idle limit counts, and a drain closes the connection.
    pub fn request_ends(&mut self) {
        let now = self.cx.now();
        if let Some(conn) = self.conn_mut() {
            conn.request.marks = RequestMarks::Explicit;
            // The answer is still on its way, so the request limit goes on.
            if !conn.out.is_empty() {
                conn.limits.request_since.get_or_insert(now);
                conn.request.ends_when_sent = true;
            } else if conn.limits.request_since.take().is_some() {
                conn.limits.since = now;
            }
        }
        self.cx.state.mark(self.id);
    }

    /// Sets how long the connection may wait for a request; `None` for ever. It overrides the server's setting.
    ///
    /// At this limit, as at the others, the connection ends with [`LostReason::TimedOut`] and counts as failed. What is
    /// queued is sent first, except at the write limit.
    pub fn set_idle_timeout(&mut self, limit: Option<Duration>) {
        self.set_limit(Limit::Idle, limit);
    }

    /// Sets how long each wait for more of a request may last; `None` for ever. It overrides the server's setting.
    pub fn set_read_timeout(&mut self, limit: Option<Duration>) {
        self.set_limit(Limit::Read, limit);
    }

    /// Sets how long the peer may take nothing of what is queued; `None` for ever. It overrides the server's setting.
    pub fn set_write_timeout(&mut self, limit: Option<Duration>) {
        self.set_limit(Limit::Write, limit);
    }

    /// Sets how long a request may take in all; `None` for ever. It overrides the server's setting.
    pub fn set_request_timeout(&mut self, limit: Option<Duration>) {
        self.set_limit(Limit::Request, limit);
    }

    /// Sets how long the connection may last in all; `None` for ever, which is the default. At this limit it ends even
    /// in the middle of an answer. What is queued is sent as far as the kernel takes it at once.
    pub fn set_total_timeout(&mut self, limit: Option<Duration>) {
        self.set_limit(Limit::Total, limit);
    }

    fn set_limit(&mut self, limit: Limit, value: Option<Duration>) {
        let default = self.cx.state.core.settings.limits;
        if let Some(conn) = self.conn_mut() {
            conn.limits.own.get_or_insert_with(|| Box::new(default)).set(limit, value);
        }
        self.cx.state.mark(self.id);
    }
}

impl State {
    /// Sets the timer for the connection's next limit. It stays where it is if the limit has moved away, so most reads
    /// cost nothing.
    pub(crate) fn rearm_limit_timer(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get(id) else { return };
        let due = match conn.end.phase {
            // The kernel does not announce the last acknowledgement. So the loop looks again, ever less often.
            Phase::Acknowledging { pause, until } => Some((self.time.now + pause).min(until)),
            Phase::Lingering { idle, until } => Some(idle.min(until)),
            _ => conn.deadline(self.limits_of(conn)).map(|(at, _)| at),
        };
        let Some(due) = due else { return };

        // A timer that fires earlier stays: `check_limits` then sets it anew.
        let (now, armed) = (self.time.now, conn.limits.timer);
        if armed.is_some_and(|(_, at)| at <= due) {
            return;
        }
        let delay = due.saturating_duration_since(now);
        let timer = match armed {
            Some((timer, _)) if self.time.timers.reset(timer, now, delay) => timer,
            _ => self.time.timers.set(now, delay, crate::event_loop::state::work::TimerTask::Limit(id)),
        };
        if let Some(conn) = self.conns.get_mut(id) {
            conn.limits.timer = Some((timer, due));
        }
    }

    /// Handles the timer for a limit. The limit itself may be later by now.
    pub(crate) fn check_limits(&mut self, id: ConnId) {
        // As of the wake-up: input that came while a callback held the loop up is read first.
        let now = self.time.woke;
        let Some(conn) = self.conns.get_mut(id) else { return };
        conn.limits.timer = None;
        match &mut conn.end.phase {
            Phase::Acknowledging { pause, until } if *until > now && !conn.io.is_acknowledged() => {
                *pause = (*pause * 2).min(LAST_LOOK);
            }
            Phase::Lingering { idle, until } if (*idle).min(*until) > now => {}
            Phase::Acknowledging { .. } | Phase::Lingering { .. } | Phase::Over => conn.end.phase = Phase::Over,
            Phase::Open | Phase::Flushing => {
                let exceeded = self.conns.get(id).and_then(|conn| conn.deadline(self.limits_of(conn)));
                if let Some((_, limit)) = exceeded.filter(|(at, _)| *at <= now) {
                    self.end_at_limit(id, limit);
                }
            }
        }
        self.mark(id);
    }

    /// Ends a connection at a limit. A connection that was ending already is cut.
    fn end_at_limit(&mut self, id: ConnId, exceeded: LimitExceeded) {
        if exceeded.limit == Limit::Write && self.sends_more(id) {
            return;
        }
        // A connection that is ending already has sent what the kernel takes. The rest is given up.
        let was_open = self.is_open(id);
        self.end(id, LostReason::TimedOut(exceeded));
        if let Some(conn) = self.conns.get_mut(id).filter(|_| !was_open) {
            conn.reset_at_close();
            conn.end.phase = Phase::Over;
        }
    }

    /// True if the peer has taken something after all. epoll reports room only when a third of the buffer is free. So
    /// a slow reader may have taken some unnoticed. It is also true if a rate limit holds the output back.
    fn sends_more(&mut self, id: ConnId) -> bool {
        self.pause_above_high_water(id);
        self.conns.get_mut(id).into_iter().for_each(|conn| conn.flow.blocked = false);
        let sent = self.flush(id);
        sent > 0 || self.conns.get(id).is_some_and(|conn| !conn.flow.blocked)
    }

    /// In a forked child: tells the parent when the request of the solo connection must have ended. The parent ends a
    /// child that hangs.
    pub(crate) fn share_request(&self, since: Option<Instant>) {
        let Some(solo) = &self.solo else { return };
        let (Some(deadline), Some(conn)) = (&solo.parent_deadline, self.conns.get(solo.id)) else { return };
        let at = |since: Instant| since.checked_add(self.limits_of(conn).request?);
        deadline.set(since.and_then(at).map_or(0, |at| self.core.control.millis(at).max(1)));
    }
}
