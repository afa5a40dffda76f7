//! Back-pressure from one connection to another: who forwards reads no faster than it can write.

use crate::event_loop::primitives::slab::ConnId;
use crate::event_loop::state::conn::Conn;
use crate::event_loop::state::transport::Transport;
use crate::event_loop::state::State;

impl Transport<'_> {
    /// From now on this connection is read from only as fast as another one takes it: reading pauses while the
    /// other's queue is above its high-water mark, until it has fallen to the low one (what Twisted's port forwarder
    /// does by `registerProducer`). For what is copied from here to there; for both ways, each links to the other.
    ///
    /// It is a reason of its own to pause: [`resume_reading`](Self::resume_reading) does not undo it, nor does it
    /// undo a [`pause_reading`](Self::pause_reading). In its stead, a long queue of this connection *itself* no
    /// longer pauses its reading: the two directions are independent. The link ends with either connection; `false`
    /// if there is no other of this id. Linking to several waits for the slowest.
    pub fn link(&mut self, other: ConnId) -> bool {
        let id = self.id();
        self.state.link(id, other)
    }
}

impl Conn {
    pub(crate) fn is_linked(&self) -> bool {
        self.cold.as_ref().is_some_and(|cold| !cold.links.is_empty())
    }
}

impl State {
    fn link(&mut self, id: ConnId, other: ConnId) -> bool {
        let Some(target) = self.conns.get_mut(other) else { return false };
        if id == other {
            return false;
        }
        let long = target.flow.told_to_pause;
        let cold = target.cold();
        if cold.linked.is_empty() {
            cold.holds_linked = long; // nobody else is still to be told
        }
        if !cold.linked.contains(&id) {
            cold.linked.push(id);
        }
        if let Some(conn) = self.conns.get_mut(id) {
            let links = &mut conn.cold().links;
            if !links.contains(&other) {
                links.push(other);
            }
        }
        self.pause_or_resume_by_links(id);
        true
    }

    /// Whether reading waits for others follows from their queues.
    fn pause_or_resume_by_links(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get(id) else { return };
        let links = conn.cold.as_ref().map_or(&[][..], |cold| &cold.links);
        let waits = links.iter().any(|link| self.conns.get(*link).is_some_and(|other| other.flow.told_to_pause));
        let now = self.time.now;
        let Some(conn) = self.conns.get_mut(id) else { return };
        let by_output = conn.flow.told_to_pause && !conn.is_linked();
        let before = (conn.paused.by_link, conn.paused.by_output);
        (conn.paused.by_link, conn.paused.by_output) = (waits, by_output);
        if before != (waits, by_output) {
            conn.limits.since = now; // it was not the peer who was waited for
            self.mark(id);
        }
    }

    /// The queue has risen or fallen: those that are linked to it pause or go on.
    pub(crate) fn pause_or_resume_linked(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        let long = conn.flow.told_to_pause;
        let Some(cold) = conn.cold.as_mut().filter(|cold| cold.holds_linked != long) else { return };
        cold.holds_linked = long;
        for place in 0..cold.linked.len() {
            let Some(linked) = self.linked_to(id, place) else { return };
            self.pause_or_resume_by_links(linked);
        }
    }

    fn linked_to(&self, id: ConnId, place: usize) -> Option<ConnId> {
        self.conns.get(id)?.cold.as_ref()?.linked.get(place).copied()
    }

    /// A connection is gone, and its links with it.
    pub(crate) fn unlink(&mut self, id: ConnId, links: &[ConnId], linked: &[ConnId]) {
        for link in links {
            let cold = self.conns.get_mut(*link).and_then(|conn| conn.cold.as_mut());
            cold.into_iter().for_each(|cold| cold.linked.retain(|other| *other != id));
        }
        for other in linked {
            let cold = self.conns.get_mut(*other).and_then(|conn| conn.cold.as_mut());
            cold.into_iter().for_each(|cold| cold.links.retain(|link| *link != id));
            self.pause_or_resume_by_links(*other);
        }
    }
}
