//! [`Context`]: the loop, as callbacks see it.

use std::fmt;

use crate::event_loop::state::State;

/// The loop, as callbacks see it: other connections by their [`ConnId`](crate::event_loop::ConnId), groups, timers, the
/// stop. A [`Transport`](crate::Transport) is one as well, by `Deref`.
///
/// A method that acts on another connection touches its queue and its flags only. No callback of that connection runs
/// before this one has returned. If the connection is gone, the method returns `false` or `None`.
///
/// With [`EventLoops`](crate::EventLoops), ids of connections of the other loops work as well. The act is sent to the
/// connection's loop, and done there in order. `true` then means only that the loop exists, because this loop does
/// not know if the connection does. Methods that work for this loop only say so. An id from the reactor of another
/// server is not valid.
pub struct Context<'a> {
    pub(crate) state: &'a mut State,
}

impl fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("connections", &self.state.conns.len()).finish_non_exhaustive()
    }
}
