//! [`Transport`]: a connection, as its protocol sees it.

use std::fmt;
use std::ops::{Deref, DerefMut};

use crate::event_loop::primitives::slab::ConnId;
use crate::event_loop::state::conn::Conn;
use crate::event_loop::state::context::Context;
use crate::event_loop::state::State;

/// The protocol's own connection, lent to each callback. By `Deref` it is also the [`Context`].
///
/// A write is queued. After the callback, everything is sent in one system call. Bytes that other connections have
/// written to this one are sent at the end of the turn. If the queue is empty, a piece of 16 KiB or more goes to the
/// kernel at once, and only the rest is copied.
///
/// For formatted text use `write!(transport, "...")?`, which needs no trait in scope.
pub struct Transport<'a> {
    pub(crate) cx: Context<'a>,
    pub(crate) id: ConnId,
}

impl<'a> Transport<'a> {
    pub(crate) fn new(state: &'a mut State, id: ConnId) -> Self {
        Self { cx: Context { state }, id }
    }

    /// Returns the same transport for a shorter time, for adapters that lend it on.
    pub fn reborrow(&mut self) -> Transport<'_> {
        Transport { cx: Context { state: self.cx.state }, id: self.id }
    }

    pub(crate) fn conn(&self) -> Option<&Conn> {
        self.cx.state.conns.get(self.id)
    }

    pub(crate) fn conn_mut(&mut self) -> Option<&mut Conn> {
        self.cx.state.conns.get_mut(self.id)
    }
}

impl<'a> Deref for Transport<'a> {
    type Target = Context<'a>;

    fn deref(&self) -> &Context<'a> {
        &self.cx
    }
}

impl<'a> DerefMut for Transport<'a> {
    fn deref_mut(&mut self) -> &mut Context<'a> {
        &mut self.cx
    }
}

impl fmt::Debug for Transport<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport").field("id", &self.id).finish_non_exhaustive()
    }
}
