//! A connection, as its protocol sees it.

use std::fmt;
use std::ops::{Deref, DerefMut};

use crate::event_loop::primitives::slab::ConnId;
use crate::event_loop::state::conn::Conn;
use crate::event_loop::state::context::Context;
use crate::event_loop::state::State;

/// The protocol's own connection, lent to each callback; by `Deref` also the [`Context`], for all the rest.
///
/// What is written is queued, and sent in one system call when the callback has returned; what others write to the
/// connection, when the turn ends. A piece of 16 KiB and more with nothing before it is offered to the kernel at once, and
/// only what that does not take is copied into the queue. Formatted text goes by
/// `write!(transport, "...")?`, without any trait in scope.
pub struct Transport<'a> {
    pub(crate) cx: Context<'a>,
    pub(crate) id: ConnId,
}

impl<'a> Transport<'a> {
    pub(crate) fn new(state: &'a mut State, id: ConnId) -> Self {
        Self { cx: Context { state }, id }
    }

    /// The same transport for a shorter time, as adapters that lend it on need it.
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
