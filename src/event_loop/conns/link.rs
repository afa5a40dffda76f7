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
        self.rare.as_ref().is_some_and(|rare| !rare.links.is_empty())
    }
}

impl State {
    fn link(&mut self, id: ConnId, other: ConnId) -> bool {
        let Some(target) = self.conns.get_mut(other) else { return false };
        if id == other {
            return false;
        }
        let long = target.told_to_pause;
        let rare = target.rare();
        if rare.linked.is_empty() {
            rare.holds_linked = long; // nobody else is still to be told
        }
        if !rare.linked.contains(&id) {
            rare.linked.push(id);
        }
        if let Some(conn) = self.conns.get_mut(id) {
            let links = &mut conn.rare().links;
            if !links.contains(&other) {
                links.push(other);
            }
        }
        self.heed_links(id);
        true
    }

    /// Whether reading waits for others follows from their queues.
    fn heed_links(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get(id) else { return };
        let links = conn.rare.as_ref().map_or(&[][..], |rare| &rare.links);
        let waits = links.iter().any(|link| self.conns.get(*link).is_some_and(|other| other.told_to_pause));
        let now = self.time.now;
        let Some(conn) = self.conns.get_mut(id) else { return };
        let by_output = conn.told_to_pause && !conn.is_linked();
        let before = (conn.paused.by_link, conn.paused.by_output);
        (conn.paused.by_link, conn.paused.by_output) = (waits, by_output);
        if before != (waits, by_output) {
            conn.since = now; // it was not the peer who was waited for
            self.mark(id);
        }
    }

    /// The queue has risen or fallen: those that are linked to it pause or go on.
    pub(crate) fn mind_the_linked(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        let long = conn.told_to_pause;
        let Some(rare) = conn.rare.as_mut().filter(|rare| rare.holds_linked != long) else { return };
        rare.holds_linked = long;
        for place in 0..rare.linked.len() {
            let Some(linked) = self.linked_to(id, place) else { return };
            self.heed_links(linked);
        }
    }

    fn linked_to(&self, id: ConnId, place: usize) -> Option<ConnId> {
        self.conns.get(id)?.rare.as_ref()?.linked.get(place).copied()
    }

    /// A connection is gone, and its links with it.
    pub(crate) fn unlink(&mut self, id: ConnId, links: &[ConnId], linked: &[ConnId]) {
        for link in links {
            let rare = self.conns.get_mut(*link).and_then(|conn| conn.rare.as_mut());
            rare.into_iter().for_each(|rare| rare.linked.retain(|other| *other != id));
        }
        for other in linked {
            let rare = self.conns.get_mut(*other).and_then(|conn| conn.rare.as_mut());
            rare.into_iter().for_each(|rare| rare.links.retain(|link| *link != id));
            self.heed_links(*other);
        }
    }
}
