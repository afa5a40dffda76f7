//! What is still to be done: later in this turn, or in another.

use std::any::Any;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

use crate::event_loop::clients::connect::Connector;
use crate::event_loop::primitives::slab::{ConnId, Place};
use crate::event_loop::state::cold::Direction;
use crate::event_loop::state::context::Context;
use crate::event_loop::state::factory::Factory;
use crate::offload::Ticket;

/// What the loop does when the work that it has given away is done, by numbers that are never given again.
#[derive(Default)]
pub(crate) struct Offloaded {
    pub(crate) due: HashMap<u64, (Call, Ticket)>,
    pub(crate) next: u64,
}

pub(crate) type Call = Box<dyn FnOnce(&mut Context<'_>)>;

/// A call from another thread.
pub(crate) type SentCall = Box<dyn FnOnce(&mut Context<'_>) + Send>;

/// What a timer does.
pub(crate) enum TimerTask {
    Call(Call),
    Protocol(ConnId),
    /// A client's time is over, or its next attempt due.
    Connect(Connector),
    /// A limit of this connection may be over.
    Limit(ConnId),
    /// A rate limit lets this connection go on.
    Rate(ConnId, Direction),
    /// Accepting has rested enough.
    Rested,
    /// The time is over in which `verify_request` may decide about a connection.
    Verify(u64),
    /// The server's `service_actions`.
    Actions,
}

/// What is done later in this turn, or in the next.
pub(crate) enum Deferred {
    Call(Call),
    Message(ConnId, Box<dyn Any>),
    Connect(Connector),
    /// The first client of a factory was made within a callback.
    Start(Rc<dyn Factory>),
    /// A factory's last port was closed.
    Stop(Rc<dyn Factory>),
    /// A port of datagrams was closed.
    EndDatagrams(Place),
}

/// Lists of what the loop is to do.
#[derive(Default)]
pub(crate) struct Queues {
    /// Connections with something to send, to tell or to decide at the end of the turn.
    pub(crate) dirty: Vec<ConnId>,
    /// Connections that may have input which epoll has told of already: read in the next turn.
    pub(crate) unread: Vec<ConnId>,
    /// The other list of dirty ones, while one is gone through.
    pub(crate) spare_list: Vec<ConnId>,
    pub(crate) deferred: VecDeque<Deferred>,
}
