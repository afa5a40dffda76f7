//! What a callback may do besides its own connection.

use std::fmt;

use crate::event_loop::state::State;

/// The loop, as callbacks see it: other connections by their [`ConnId`](crate::event_loop::ConnId), groups, timers, the stop. A
/// [`Transport`](crate::Transport) is one as well, by `Deref`.
///
/// What is done to another connection touches its queue and its flags only: no callback of it runs before this one has
/// returned. An id of a connection that is gone stands for nothing, and the method says so by `false` or `None`.
///
/// With [`EventLoops`](crate::EventLoops), ids of the other loops' connections work as well: what is done to such a
/// connection is sent to its loop, in order, and done there. That it is gone is not known here, so `true` then only
/// means that its loop is there. Where not even that can be, the method says so. An id of a reactor that does not belong
/// to the same server stands for nothing.
pub struct Context<'a> {
    pub(crate) state: &'a mut State,
}

impl fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("connections", &self.state.conns.len()).finish_non_exhaustive()
    }
}
