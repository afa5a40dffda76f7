//! The end of a turn for each connection that it has touched.

use std::io;

use crate::event_loop::primitives::slab::ConnId;
use crate::event_loop::state::conn::{Origin, Phase};
use crate::event_loop::state::lost::LostReason;
use crate::event_loop::state::State;

impl State {
    /// Looks after every connection that something has happened to. What that sets off is for the next turn.
    pub(crate) fn settle(&mut self) {
        self.loops.came_across = 0;
        let mut ids = std::mem::replace(&mut self.queues.dirty, std::mem::take(&mut self.queues.spare_list));
        for id in ids.drain(..) {
            self.settle_one(id);
        }
        self.queues.spare_list = ids;
    }

    pub(crate) fn settle_one(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        conn.dirty = false;
        if std::mem::take(&mut conn.paused.resumed) && conn.is_open() {
            self.call(id, "reading_resumed", |p, t| p.reading_resumed(t));
        }
        if self.conns.get(id).is_some_and(|conn| conn.paused.by_switch) {
            self.deliver_leftover(id);
        }
        self.pause_above_high_water(id);
        self.flush(id);
        self.resume_below_low_water(id);
        self.settle_cold(id);
        if self.stop.drain.is_some() {
            self.drain_one(id);
        }
        self.advance(id);
        self.watch(id);
        self.rearm_limit_timer(id);
    }

    /// What few connections want.
    fn settle_cold(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get(id) else { return };
        if conn.cold.is_some() {
            self.report_transfers(id);
            self.pause_or_resume_linked(id);
        }
        self.shut_write_when_sent(id);
    }

    /// Tells a protocol that has written more than it should at once. It is told of the fall in any case, perhaps
    /// before this turn is over.
    pub(crate) fn pause_above_high_water(&mut self, id: ConnId) {
        let high = self.settings.high_water;
        let Some(conn) = self.conns.get_mut(id).filter(|conn| conn.is_open()) else { return };
        if !conn.flow.told_to_pause && conn.out.load() > high {
            conn.flow.told_to_pause = true;
            conn.paused.by_output = !conn.is_linked();
            self.call(id, "pause_writing", |p, t| p.pause_writing(t));
        }
    }

    fn resume_below_low_water(&mut self, id: ConnId) {
        let low = self.settings.low_water;
        let Some(conn) = self.conns.get_mut(id).filter(|conn| conn.is_open()) else { return };
        if conn.flow.told_to_pause && conn.out.load() <= low {
            conn.flow.told_to_pause = false;
            conn.paused.by_output = false;
            if conn.paused.by_switch {
                self.mark(id);
            }
            self.call(id, "resume_writing", |p, t| p.resume_writing(t));
        }
    }

    /// Has epoll watch for what the connection waits for. A connection that never waits, it never hears of.
    fn watch(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        let wanted = conn.wanted();
        if conn.watch.interest == Some(wanted) {
            if conn.watch.unread && wanted.read && wanted.edge && !std::mem::replace(&mut conn.watch.listed, true) {
                self.queues.unread.push(id);
            }
            return;
        }
        if conn.watch.hung_up && !wanted.read {
            return;
        }
        let watched = conn.watch.interest.replace(wanted);
        let done = conn.io.with_fd(|fd| match watched {
            None => self.poller.add(fd, wanted, id.token()),
            Some(_) => self.poller.modify(fd, wanted, id.token()),
        });
        if let Some(Err(e)) = done {
            let e = io::Error::new(e.kind(), format!("cannot watch the socket: {e}"));
            self.end(id, LostReason::Error(e.into()));
            if let Some(conn) = self.conns.get_mut(id) {
                conn.end.phase = Phase::Over; // nobody would hear of it any more
            }
        }
    }

    /// A connection of a loop that drains, at the end of a turn: it is told once, and closed when it is idle. What the
    /// peer has sent before is still served.
    pub(crate) fn drain_one(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(id).filter(|conn| conn.is_open()) else { return };
        if !std::mem::replace(&mut conn.told_to_shut_down, true) {
            self.call(id, "shutting_down", |p, t| p.shutting_down(t));
        }
        let Some(conn) = self.conns.get(id).filter(|conn| conn.is_idle()) else { return };
        if !conn.request.heard && matches!(conn.entry.origin, Origin::Accepted(_)) && self.core.ends_alone() {
            return; // its first request is on its way
        }
        let has_more = !conn.paused.any() && self.read(id);
        if has_more {
            self.mark(id);
        } else if !self.conns.get(id).is_some_and(|conn| conn.paused.by_rate) {
            self.end(id, LostReason::Shutdown);
        }
    }
}
