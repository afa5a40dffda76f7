//! The end of a turn for each connection that it has touched, and the end of a connection.

use std::io;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::time::Duration;

use crate::config::{Limit, LimitExceeded, LingeringClose, FIRST_LOOK, LAST_LOOK, LINGER_IDLE, LINGER_TOTAL};
use crate::event_loop::conns::call::take_message;
use crate::event_loop::io::Io;
use crate::event_loop::primitives::slab::ConnId;
use crate::event_loop::state::conn::{Conn, Phase};
use crate::event_loop::state::context::Context;
use crate::event_loop::state::lost::{Lost, LostReason};
use crate::event_loop::state::{Drain, State};
use crate::observe::Outcome;
use crate::panics::forget;

impl State {
    /// Looks after every connection that something has happened to. What that sets off is for the next turn.
    pub(crate) fn settle(&mut self) {
        self.came_across = 0;
        let mut ids = std::mem::replace(&mut self.dirty, std::mem::take(&mut self.spare_list));
        for id in ids.drain(..) {
            self.settle_one(id);
        }
        self.spare_list = ids;
    }

    pub(crate) fn settle_one(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        conn.dirty = false;
        if std::mem::take(&mut conn.resumed) && conn.is_open() {
            self.call(id, "reading_resumed", |p, t| p.reading_resumed(t));
        }
        if self.conns.get(id).is_some_and(|conn| conn.paused.by_switch) {
            self.hand_over(id);
        }
        self.mind_the_rise(id);
        self.flush(id);
        self.mind_the_fall(id);
        self.mind_the_rare(id);
        if self.drain.is_some() {
            self.drain_one(id);
        }
        self.advance(id);
        self.watch(id);
        self.mind_limits(id);
    }

    /// What few connections want.
    fn mind_the_rare(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get(id) else { return };
        if conn.rare.is_some() {
            self.tell_of_transfers(id);
            self.mind_the_linked(id);
        }
        self.shut_when_sent(id);
    }

    /// Tells a protocol that has written more than it should at once. It is told of the fall in any case, perhaps
    /// before this turn is over.
    pub(crate) fn mind_the_rise(&mut self, id: ConnId) {
        let high = self.settings.high_water;
        let Some(conn) = self.conns.get_mut(id).filter(|conn| conn.is_open()) else { return };
        if !conn.told_to_pause && conn.out.load() > high {
            conn.told_to_pause = true;
            conn.paused.by_output = !conn.is_linked();
            self.call(id, "pause_writing", |p, t| p.pause_writing(t));
        }
    }

    fn mind_the_fall(&mut self, id: ConnId) {
        let low = self.settings.low_water;
        let Some(conn) = self.conns.get_mut(id).filter(|conn| conn.is_open()) else { return };
        if conn.told_to_pause && conn.out.load() <= low {
            conn.told_to_pause = false;
            conn.paused.by_output = false;
            if conn.paused.by_switch {
                self.mark(id);
            }
            self.call(id, "resume_writing", |p, t| p.resume_writing(t));
        }
    }

    /// Begins the end of a connection. The first cause holds, but for an orderly end that then fails.
    pub(crate) fn end(&mut self, id: ConnId, reason: LostReason) {
        let Some(conn) = self.conns.get_mut(id) else { return forget(reason) };
        let holds = conn.reason.as_ref().is_some_and(|first| !first.is_orderly() || reason.is_orderly());
        match conn.phase {
            Phase::Open | Phase::Flushing if !holds => {
                conn.phase = if reason.flushes() { Phase::Flushing } else { Phase::Over };
                if reason.resets() {
                    conn.io.reset_at_close();
                }
                conn.reason.replace(reason).into_iter().for_each(forget);
            }
            // The first cause holds, but what is left cannot be sent.
            Phase::Flushing if !reason.flushes() => {
                conn.phase = Phase::Over;
                if reason.resets() {
                    conn.io.reset_at_close();
                }
                forget(reason);
            }
            // An abort is no failure; that of the callback which has asked for it is one.
            Phase::Over if matches!(conn.reason, Some(LostReason::Aborted)) && reason.is_of_a_callback() => {
                conn.reason.replace(reason).into_iter().for_each(forget);
            }
            // All has been sent: nothing that happens now is a reason, but the end.
            Phase::Acknowledging { .. } | Phase::Lingering { .. } if !reason.is_orderly() => {
                conn.phase = Phase::Over;
                forget(reason);
            }
            _ => forget(reason),
        }
        self.mark(id);
    }

    /// A connection that is being closed, one step on.
    fn advance(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get(id) else { return };
        let phase = match conn.phase {
            Phase::Flushing if conn.out.is_empty() => self.after_the_last_byte(conn),
            phase => phase,
        };
        if let Some(conn) = self.conns.get_mut(id) {
            conn.phase = phase;
        }
        if phase == Phase::Over {
            self.finish(id);
        }
    }

    /// All is sent: closed at once, unless the peer might lose some of it by that.
    fn after_the_last_byte(&self, conn: &Conn) -> Phase {
        if conn.paused.at_eof || self.is_cut() || conn.io.is_lent() {
            return Phase::Over; // a lent one is closed by who has lent it
        }
        if matches!(conn.reason, Some(LostReason::Shutdown)) {
            return if conn.io.is_acknowledged() {
                Phase::Over
            } else {
                Phase::Acknowledging { pause: FIRST_LOOK, until: self.now + LINGER_TOTAL }
            };
        }
        let lingers = match self.core.settings.lingering_close {
            LingeringClose::Never => false,
            LingeringClose::Always => true,
            LingeringClose::IfUnread => conn.left_unread || conn.io.has_unread(),
        };
        if !lingers {
            return Phase::Over;
        }
        conn.io.shut_write();
        let patience = if matches!(conn.reason, Some(LostReason::TimedOut(_))) { LINGER_IDLE } else { LINGER_TOTAL };
        Phase::Lingering { idle: self.now + LINGER_IDLE, until: self.now + patience }
    }

    /// Input of a connection that is half-closed; whether there was any.
    pub(crate) fn discarded(&mut self, id: ConnId, n: usize) -> bool {
        let now = self.now;
        if let Some(conn) = self.conns.get_mut(id) {
            match &mut conn.phase {
                Phase::Lingering { idle, .. } if n > 0 => *idle = now + LINGER_IDLE,
                phase => *phase = Phase::Over,
            }
        }
        self.mark(id);
        n > 0
    }

    /// Has epoll watch for what the connection waits for. A connection that never waits, it never hears of.
    fn watch(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        let wanted = conn.wanted();
        if conn.watched == Some(wanted) {
            if conn.unread && wanted.read && wanted.edge && !std::mem::replace(&mut conn.listed, true) {
                self.unread.push(id);
            }
            return;
        }
        if conn.hung_up && !wanted.read {
            return;
        }
        let watched = conn.watched.replace(wanted);
        let done = conn.io.with_fd(|fd| match watched {
            None => self.poller.add(fd, wanted, id.token()),
            Some(_) => self.poller.modify(fd, wanted, id.token()),
        });
        if let Some(Err(e)) = done {
            let e = io::Error::new(e.kind(), format!("cannot watch the socket: {e}"));
            self.end(id, LostReason::Error(e.into()));
            if let Some(conn) = self.conns.get_mut(id) {
                conn.phase = Phase::Over; // nobody would hear of it any more
            }
        }
    }

    /// Sets the timer for the connection's next limit. It is left where it is when the limit has moved away: most
    /// reads then cost nothing.
    fn mind_limits(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get(id) else { return };
        let due = match conn.phase {
            Phase::Acknowledging { pause, until } => Some((self.now + pause).min(until)),
            Phase::Lingering { idle, until } => Some(idle.min(until)),
            _ => conn.deadline(&self.limits_of(conn)).map(|(at, _)| at),
        };
        let Some(due) = due else { return };
        let (now, armed) = (self.now, conn.limit_timer);
        if armed.is_some_and(|(_, at)| at <= due) {
            return;
        }
        let delay = due.saturating_duration_since(now);
        let timer = match armed {
            Some((timer, _)) if self.timers.reset(timer, now, delay) => timer,
            _ => self.timers.set(now, delay, crate::event_loop::state::Task::Limit(id)),
        };
        if let Some(conn) = self.conns.get_mut(id) {
            conn.limit_timer = Some((timer, due));
        }
    }

    /// The timer for a limit has fired; the limit itself may be later. Time counts until the wait of this turn: input
    /// that has come while another callback held the loop up is read first.
    pub(crate) fn limit_is_due(&mut self, id: ConnId) {
        let now = self.woke;
        let Some(conn) = self.conns.get_mut(id) else { return };
        conn.limit_timer = None;
        match &mut conn.phase {
            Phase::Acknowledging { pause, until } if *until > now && !conn.io.is_acknowledged() => {
                *pause = (*pause * 2).min(LAST_LOOK);
            }
            Phase::Lingering { idle, until } if (*idle).min(*until) > now => {}
            Phase::Acknowledging { .. } | Phase::Lingering { .. } | Phase::Over => conn.phase = Phase::Over,
            Phase::Open | Phase::Flushing => {
                let exceeded = self.conns.get(id).and_then(|conn| conn.deadline(&self.limits_of(conn)));
                if let Some((_, limit)) = exceeded.filter(|(at, _)| *at <= now) {
                    self.exceed(id, limit);
                }
            }
        }
        self.mark(id);
    }

    /// A limit is over. What is queued then is sent if the kernel takes it at once, and given up otherwise.
    fn exceed(&mut self, id: ConnId, exceeded: LimitExceeded) {
        if exceeded.limit == Limit::Write && self.takes_more(id) {
            return;
        }
        let was_open = self.is_open(id);
        self.end(id, LostReason::TimedOut(exceeded));
        if let Some(conn) = self.conns.get_mut(id).filter(|_| !was_open) {
            conn.io.reset_at_close();
            conn.phase = Phase::Over;
        }
    }

    /// epoll tells of room when a third of the buffer is free: a slow reader may have taken something before. Where
    /// nothing is sent since a rate limit is against it, it is not the peer who is waited for.
    fn takes_more(&mut self, id: ConnId) -> bool {
        self.mind_the_rise(id);
        self.conns.get_mut(id).into_iter().for_each(|conn| conn.blocked = false);
        let sent = self.flush(id);
        sent > 0 || self.conns.get(id).is_some_and(|conn| !conn.blocked)
    }

    /// The very end: out of the loop, told, dropped, counted. The place is free when all that has been done.
    fn finish(&mut self, id: ConnId) {
        let Some(mut conn) = self.conns.remove(id) else { return };
        let unsent = conn.out.len() + conn.rare.as_ref().map_or(0, |rare| rare.given_up);
        conn.out.clear(&mut self.spares);
        self.forget_all_of(id, &mut conn);
        let Conn { origin, io, peer, protocol, permit, reason, paused, left_unread, .. } = conn;
        self.watch_no_more(&io);
        let is_lent = io.give_back(left_unread, matches!(reason, None | Some(LostReason::Shutdown)));
        let connector = origin.connector();
        connector.into_iter().for_each(|connector| self.has_lost_connection(connector));
        let mut lost = Lost { id, peer, reason: reason.unwrap_or(LostReason::Shutdown), unsent, connector };
        if let Some(mut protocol) = protocol {
            self.now = self.clock.now();
            let tell = || protocol.connection_lost(&mut Context { state: self }, &lost);
            let told = catch_unwind(AssertUnwindSafe(tell));
            self.note_stall("connection_lost", Some(&lost.peer));
            forget(protocol);
            if let Err(payload) = told {
                forget(std::mem::replace(&mut lost.reason, LostReason::Panic(take_message(payload))));
            }
        }
        drop(permit);
        if !self.team.is_alone() {
            self.team.note_load(self.number, self.conns.len());
        }
        self.rests &= self.accepts_one; // its descriptor may be what accepting waits for
        let (outcome, is_broken) = lost.reason.into_outcome();
        if is_lent {
            if let Some(lent) = &mut self.lent {
                lent.outcome = Some(outcome);
            }
            return;
        }
        origin.tell_end(&self.core, &lost.peer, is_broken || paused.at_eof, &outcome);
        if let Outcome::Failed(e) = outcome {
            forget(e);
        }
        connector.into_iter().for_each(|connector| self.after_the_connection(connector));
    }

    /// It is closed next.
    fn watch_no_more(&self, io: &Io) {
        io.with_fd(|fd| match io {
            Io::Input(_) => self.poller.remove(fd), // others may have the file open: then epoll would go on telling of it
            _ => self.poller.forget(fd),
        });
    }

    fn forget_all_of(&mut self, id: ConnId, conn: &mut Conn) {
        for group in conn.groups.drain(..) {
            self.leave(group, id);
        }
        if let Some(rare) = conn.rare.take() {
            self.unlink(id, &rare.links, &rare.linked);
            self.let_go(rare.reading);
            self.let_go(rare.writing);
            forget(rare.next);
        }
        let limit = conn.limit_timer.take().map(|(timer, _)| timer);
        for timer in conn.timers.drain(..).chain(limit) {
            self.timers.cancel(timer);
        }
    }

    /// Ends every connection at once; with the loop itself.
    pub(crate) fn end_all(&mut self) {
        let (deadline, grace) = (None, Duration::ZERO);
        self.drain.get_or_insert(Drain { deadline, grace, cut: true }); // nothing begins any more
        self.turn_all_away();
        for id in self.conns.ids() {
            self.end(id, LostReason::Shutdown);
            if let Some(conn) = self.conns.get_mut(id) {
                conn.phase = Phase::Over;
            }
            self.finish(id);
        }
        self.end_connectors();
    }
}
