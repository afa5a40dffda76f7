//! A loop for one connection, which a blocking strategy has handed over.

use crate::connection::{Happened, ParentDeadline};
use crate::event_loop::primitives::slab::ConnId;
use crate::net::Socket;
use crate::observe::Outcome;
use crate::tls::Session;

/// The connection that the loop is for. Its socket goes back when it has ended.
pub(crate) struct Solo {
    pub(crate) id: ConnId,
    /// In a forked child: where the parent reads when the request must have ended.
    pub(crate) parent_deadline: Option<ParentDeadline>,
    pub(crate) ended: Option<SoloEnd>,
}

/// How that connection has ended, and what its owner needs to close it.
pub(crate) struct SoloEnd {
    pub(crate) outcome: Outcome,
    pub(crate) socket: Option<(Socket, Option<Session>)>,
    pub(crate) happened: Happened,
}
