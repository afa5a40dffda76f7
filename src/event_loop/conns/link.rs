//! Back-pressure from one connection to another: a forwarder reads no faster than it can write.

use crate::event_loop::primitives::slab::ConnId;
use crate::event_loop::state::conn::Conn;
use crate::event_loop::state::transport::Transport;
use crate::event_loop::state::State;

impl Transport<'_> {
    /// Links this connection to `other`, to which its protocol copies the input. This connection is then read only as
    /// fast as `other` takes it. Reading pauses while the queue of `other` is above the high-water mark, until the
    /// low one. For both ways, link each to the other. (Twisted's port forwarder does this by `registerProducer`.)
    ///
    /// This pause is independent of [`pause_reading`](Self::pause_reading) and
    /// [`resume_reading`](Self::resume_reading). A long queue of this connection *itself* no longer pauses its reading,
    /// because the two directions are independent. Linked to several connections, it waits for the slowest.
    ///
    /// The link ends with either connection. `false` if there is no other connection with this id.
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
            cold.holds_linked = long; // no other connection waits for a change
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

    /// Decides anew if reading waits for the queues of linked connections.
    fn pause_or_resume_by_links(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get(id) else { return };
        let links = conn.cold.as_ref().map_or(&[][..], |cold| &cold.links);
        let waits = links.iter().any(|link| self.conns.get(*link).is_some_and(|other| other.flow.told_to_pause));
        let now = self.time.now;
        let Some(conn) = self.conns.get_mut(id) else { return };
        // A pause for its own long queue protects a protocol that answers what it reads. A forwarder writes elsewhere:
        // a client that reads nothing until it has sent everything would wait for ever.
        let by_output = conn.flow.told_to_pause && !conn.is_linked();
        let before = (conn.paused.by_link, conn.paused.by_output);
        (conn.paused.by_link, conn.paused.by_output) = (waits, by_output);
        if before != (waits, by_output) {
            conn.limits.since = now; // this pause was not the peer's fault
            self.mark(id);
        }
    }

    /// Pauses or resumes the connections that are linked to this one, after its queue has risen or fallen.
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

    /// Removes the links of a connection that is gone. Connections that waited for it go on.
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
