//! Time limits of a connection.

use std::time::Duration;

use crate::config::{Limit, LimitExceeded, LAST_LOOK};
use crate::event_loop::primitives::slab::ConnId;
use crate::event_loop::state::conn::{Phase, RequestMarks};
use crate::event_loop::state::lost::LostReason;
use crate::event_loop::state::transport::Transport;
use crate::event_loop::state::State;

impl Transport<'_> {
    /// Tells the request limit and the drain that a request is in progress from here on, until
    /// [`request_ends`](Self::request_ends). A protocol that calls neither has a request, for the request limit, from
    /// the first byte after an answer was sent until the last byte of the next; for a drain it is idle whenever nothing
    /// is queued
    /// and reading is not paused. Receivers of lines and strings tell by themselves.
    pub fn request_begins(&mut self) {
        let now = self.cx.now();
        if let Some(conn) = self.conn_mut() {
            conn.request.marks = RequestMarks::Explicit;
            conn.limits.request_since = Some(now);
            conn.request.ends_when_sent = false;
        }
        self.cx.state.mark(self.id);
    }

    /// The request is over as soon as what is queued is sent, since an answer belongs to its request: then the idle
    /// limit counts, and a drain closes the connection.
    pub fn request_ends(&mut self) {
        let now = self.cx.now();
        if let Some(conn) = self.conn_mut() {
            conn.request.marks = RequestMarks::Explicit;
            if !conn.out.is_empty() {
                conn.limits.request_since.get_or_insert(now);
                conn.request.ends_when_sent = true;
            } else if conn.limits.request_since.take().is_some() {
                conn.limits.since = now;
            }
        }
        self.cx.state.mark(self.id);
    }

    /// How long the connection may wait for a request; `None`: for ever. Overrides the server's setting. At this limit,
    /// as at the others, the connection is closed as [`LostReason::TimedOut`] and counted as failed; what is queued is
    /// sent before, but at the write limit.
    pub fn set_idle_timeout(&mut self, limit: Option<Duration>) {
        self.set_limit(Limit::Idle, limit);
    }

    /// How long it may wait for more of a request, each time; `None`: for ever. Overrides the server's setting.
    pub fn set_read_timeout(&mut self, limit: Option<Duration>) {
        self.set_limit(Limit::Read, limit);
    }

    /// How long the peer may take nothing of what is queued; `None`: for ever. Overrides the server's setting.
    pub fn set_write_timeout(&mut self, limit: Option<Duration>) {
        self.set_limit(Limit::Write, limit);
    }

    /// How long a request may take in all; `None`: for ever. Overrides the server's setting.
    pub fn set_request_timeout(&mut self, limit: Option<Duration>) {
        self.set_limit(Limit::Request, limit);
    }

    /// How long the connection may last in all, from its beginning; `None`: for ever, the default. At this limit it
    /// ends whatever is under way, an answer included: what is queued is sent as far as the kernel takes it at once.
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
    /// Sets the timer for the connection's next limit. It is left where it is when the limit has moved away: most
    /// reads then cost nothing.
    pub(crate) fn rearm_limit_timer(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get(id) else { return };
        let due = match conn.end.phase {
            Phase::Acknowledging { pause, until } => Some((self.time.now + pause).min(until)),
            Phase::Lingering { idle, until } => Some(idle.min(until)),
            _ => conn.deadline(&self.limits_of(conn)).map(|(at, _)| at),
        };
        let Some(due) = due else { return };
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

    /// The timer for a limit has fired; the limit itself may be later. Time counts until the wait of this turn: input
    /// that has come while another callback held the loop up is read first.
    pub(crate) fn check_limits(&mut self, id: ConnId) {
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
                let exceeded = self.conns.get(id).and_then(|conn| conn.deadline(&self.limits_of(conn)));
                if let Some((_, limit)) = exceeded.filter(|(at, _)| *at <= now) {
                    self.end_at_limit(id, limit);
                }
            }
        }
        self.mark(id);
    }

    /// A limit is over. What is queued then is sent if the kernel takes it at once, and given up otherwise.
    fn end_at_limit(&mut self, id: ConnId, exceeded: LimitExceeded) {
        if exceeded.limit == Limit::Write && self.sends_more(id) {
            return;
        }
        let was_open = self.is_open(id);
        self.end(id, LostReason::TimedOut(exceeded));
        if let Some(conn) = self.conns.get_mut(id).filter(|_| !was_open) {
            conn.io.reset_at_close();
            conn.end.phase = Phase::Over;
        }
    }

    /// epoll tells of room when a third of the buffer is free: a slow reader may have taken something before. Where
    /// nothing is sent since a rate limit is against it, it is not the peer who is waited for.
    fn sends_more(&mut self, id: ConnId) -> bool {
        self.pause_above_high_water(id);
        self.conns.get_mut(id).into_iter().for_each(|conn| conn.flow.blocked = false);
        let sent = self.flush(id);
        sent > 0 || self.conns.get(id).is_some_and(|conn| !conn.flow.blocked)
    }
}
