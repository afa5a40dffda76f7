//! Not to be read from, for a while.

use crate::event_loop::primitives::slab::ConnId;
use crate::event_loop::state::transport::Transport;
use crate::event_loop::state::State;

impl State {
    pub(crate) fn pause(&mut self, id: ConnId) -> bool {
        let Some(conn) = self.conns.get_mut(id).filter(|conn| conn.is_open()) else { return false };
        conn.paused.by_protocol = true;
        conn.paused.resumed = false;
        self.mark(id);
        true
    }

    pub(crate) fn resume(&mut self, id: ConnId) -> bool {
        let Some(conn) = self.conns.get_mut(id).filter(|conn| conn.is_open()) else { return false };
        if std::mem::take(&mut conn.paused.by_protocol) {
            conn.paused.resumed = true;
            self.mark(id);
        }
        true
    }
}

impl Transport<'_> {
    /// Reads no more until [`resume_reading`](Self::resume_reading); the peer's data waits in the kernel. A broken
    /// connection is noticed all the same.
    pub fn pause_reading(&mut self) {
        self.cx.state.pause(self.id);
    }

    /// Reads again; [`reading_resumed`](crate::Protocol::reading_resumed) is called when this callback has returned.
    pub fn resume_reading(&mut self) {
        self.cx.state.resume(self.id);
    }

    /// Whether the protocol has paused reading.
    pub fn is_reading_paused(&self) -> bool {
        self.conn().is_some_and(|conn| conn.paused.by_protocol)
    }
}
