//! The end of a turn for each connection that it has touched: callbacks that are due, sending, and what epoll watches.

use std::io;

use crate::event_loop::primitives::slab::ConnId;
use crate::event_loop::state::conn::{Conn, Origin, Phase};
use crate::event_loop::state::lost::LostReason;
use crate::event_loop::state::State;

impl State {
    /// Settles every connection that this turn has marked. A mark that is set meanwhile is for the next turn.
    ///
    /// Output that other connections have queued goes out here. Ten texts of a chat to one member in one turn are one
    /// system call.
    pub(crate) fn settle(&mut self) {
        self.loops.came_across = 0;
        // Two lists change places, so that neither is allocated anew.
        let mut ids = std::mem::replace(&mut self.queues.dirty, std::mem::take(&mut self.queues.spare_list));
        for id in ids.drain(..) {
            if self.settle_one(id) {
                self.list_unread(id);
            }
        }
        self.queues.spare_list = ids;
    }

    /// Settles one connection: callbacks that are due, sending, the end, and what epoll watches. True if it is to be
    /// read on: epoll has reported the rest of its input already.
    pub(crate) fn settle_one(&mut self, id: ConnId) -> bool {
        let Some(conn) = self.conns.get_mut(id) else { return false };
        conn.dirty = false;

        // A pause is over: the protocol looks at data that it has kept, before it gets more.
        if std::mem::take(&mut conn.paused.resumed) && conn.is_open() {
            self.call(id, "reading_resumed", |p, t| p.reading_resumed(t));
        }

        // A protocol that has taken over gets what its predecessor has left.
        if self.conns.get(id).is_some_and(|conn| conn.paused.by_switch) {
            self.deliver_leftover(id);
        }

        // Send. `pause_writing` comes before it and `resume_writing` after it, even if the kernel takes everything: a
        // protocol that stops at `is_writing_paused` must be called again.
        self.pause_above_high_water(id);
        self.flush(id);
        self.resume_below_low_water(id);

        // Finished readers, linked connections, the half-close.
        self.settle_cold(id);

        // At a stop an idle connection ends here.
        let leaves = |conn: &Conn| conn.home().is_some_and(|home| home.is_stopping);
        if self.stop.drain.is_some() || self.conns.get(id).is_some_and(leaves) {
            self.drain_one(id);
        }

        // A connection that is ending goes a step on, and may be gone after it.
        self.advance(id);

        // What the connection waits for now: events, and its next time limit.
        let has_more = self.watch(id);
        self.rearm_limit_timer(id);
        has_more
    }

    /// Settles what few connections have.
    fn settle_cold(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get(id) else { return };
        if conn.cold.is_some() {
            self.report_transfers(id);
            self.pause_or_resume_linked(id);
        }
        self.shut_write_when_sent(id);
    }

    /// Calls `pause_writing` if the queue is long, and pauses reading. So a peer that does not read cannot make the
    /// queue grow, without a line of the protocol.
    pub(crate) fn pause_above_high_water(&mut self, id: ConnId) {
        let high = self.settings.high_water;
        let Some(conn) = self.conns.get_mut(id).filter(|conn| conn.is_open()) else { return };
        if !conn.flow.told_to_pause && conn.out.load() > high {
            conn.flow.told_to_pause = true;
            conn.paused.by_output = !conn.is_linked();
            self.call(id, "pause_writing", |p, t| p.pause_writing(t));
        }
    }

    /// Calls `resume_writing` when the queue has fallen to the low-water mark.
    fn resume_below_low_water(&mut self, id: ConnId) {
        let low = self.settings.low_water;
        let Some(conn) = self.conns.get_mut(id).filter(|conn| conn.is_open()) else { return };
        if conn.flow.told_to_pause && conn.out.load() <= low {
            conn.flow.told_to_pause = false;
            conn.paused.by_output = false;
            // The leftover of a switch has waited for the queue.
            if conn.paused.by_switch {
                self.mark(id);
            }
            self.call(id, "resume_writing", |p, t| p.resume_writing(t));
        }
    }

    /// Has epoll watch for what the connection waits for. True if there is input that it does not report any more.
    ///
    /// Registering is a system call, and so is each change. A connection that is greeted and closed never waits, and is
    /// never registered. In a dialogue with a peer that reads, nothing changes.
    fn watch(&mut self, id: ConnId) -> bool {
        let Some(conn) = self.conns.get_mut(id) else { return false };
        let wanted = conn.wanted();

        // Nothing changes.
        if conn.watch.interest == Some(wanted) {
            return conn.watch.unread && wanted.read && (wanted.edge || conn.io.holds_input());
        }

        // epoll would report the hang-up in every turn.
        if conn.watch.hung_up && !wanted.read {
            return false;
        }

        // A new interest has epoll look at what is there, so nothing is missed after a pause. It does not see what a
        // session has read.
        let holds_input = wanted.read && conn.io.holds_input();
        conn.watch.unread |= holds_input;
        let watched = conn.watch.interest.replace(wanted);
        let done = conn.io.with_fd(|fd| match watched {
            None => self.poller.add(fd, wanted, id.token()),
            Some(_) => self.poller.modify(fd, wanted, id.token()),
        });
        if let Some(Err(e)) = done {
            let e = io::Error::new(e.kind(), format!("cannot watch the socket: {e}"));
            self.end(id, LostReason::Error(e.into()));
            if let Some(conn) = self.conns.get_mut(id) {
                conn.end.phase = Phase::Over; // no event would reach it any more
            }
        }
        holds_input
    }

    /// Lists a connection to be read in the next turn.
    pub(crate) fn list_unread(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        if !std::mem::replace(&mut conn.watch.listed, true) {
            self.queues.unread.push(id);
        }
    }

    /// Takes one connection through the drain: `shutting_down` once, then the end as soon as it is idle.
    pub(crate) fn drain_one(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(id).filter(|conn| conn.is_open()) else { return };
        if !std::mem::replace(&mut conn.told_to_shut_down, true) {
            self.call(id, "shutting_down", |p, t| p.shutting_down(t));
        }

        // A busy connection may finish.
        let Some(conn) = self.conns.get(id).filter(|conn| conn.is_idle()) else { return };

        // Others go on to accept, and the first request may be on its way. The peer cannot know that it should try anew.
        if !conn.request.heard && matches!(conn.entry.origin, Origin::Accepted(_)) && self.core.spares_newcomers() {
            return;
        }

        // What the peer has sent before is still served.
        let has_more = !conn.paused.any() && self.read(id);
        if has_more {
            self.mark(id);
        } else if !self.conns.get(id).is_some_and(|conn| conn.paused.by_rate) {
            self.end(id, LostReason::Shutdown);
        }
    }
}
