//! The protocol's own pause of reading.

use crate::event_loop::primitives::slab::ConnId;
use crate::event_loop::state::transport::Transport;
use crate::event_loop::state::State;

impl State {
    /// Pauses reading; `false` if the connection is not open.
    pub(crate) fn pause(&mut self, id: ConnId) -> bool {
        let Some(conn) = self.conns.get_mut(id).filter(|conn| conn.is_open()) else { return false };
        conn.paused.by_protocol = true;
        conn.paused.resumed = false;
        self.mark(id);
        true
    }

    /// Resumes reading; `false` if the connection is not open. `reading_resumed` follows in the settle.
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
    /// Pauses reading until [`resume_reading`](Self::resume_reading). The peer's data waits in the kernel. The loop
    /// still notices a broken connection.
    pub fn pause_reading(&mut self) {
        self.cx.state.pause(self.id);
    }

    /// Resumes reading. [`reading_resumed`](crate::Protocol::reading_resumed) is called after this callback.
    pub fn resume_reading(&mut self) {
        self.cx.state.resume(self.id);
    }

    /// True if the protocol has paused reading.
    pub fn is_reading_paused(&self) -> bool {
        self.conn().is_some_and(|conn| conn.paused.by_protocol)
    }
}
