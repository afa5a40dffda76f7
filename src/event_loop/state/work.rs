//! What is still to be done: later in this turn, or in a later one.

use std::any::Any;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

use crate::event_loop::clients::connect::Connector;
use crate::event_loop::primitives::slab::{ConnId, Place};
use crate::event_loop::state::cold::Direction;
use crate::event_loop::state::context::Context;
use crate::event_loop::state::factory::Factory;
use crate::hooks::Duty;
use crate::offload::Ticket;

/// What the loop calls when work on other threads is done, by numbers that are never used twice.
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
    /// A timer of this datagram socket.
    Datagrams(Place),
    /// A client's time is over, or its next attempt is due.
    Connect(Connector),
    /// A limit of this connection may be over.
    Limit(ConnId),
    /// A rate limit lets this connection go on.
    Rate(ConnId, Direction),
    /// The rest of accepting is over.
    Rested,
    /// The time for the greeting of this connection is over.
    Greeting(Place),
    /// The time for the verdict of `verify_request` is over.
    Verify(u64),
    /// What the server does by the clock.
    Duty(Duty),
}

/// A call that is put off to later in this turn, or to the next one. So no callback runs within another.
pub(crate) enum Deferred {
    Call(Call),
    Message(ConnId, Box<dyn Any>),
    DatagramMessage(Place, Box<dyn Any>),
    Connect(Connector),
    /// The first client of a factory was made within a callback.
    Start(Rc<dyn Factory>),
    /// A factory's last port was closed.
    Stop(Rc<dyn Factory>),
    /// A datagram port was closed.
    EndDatagrams(Place),
}

/// The lists of what the loop is to do.
#[derive(Default)]
pub(crate) struct Queues {
    /// Connections that are settled at the end of the turn.
    pub(crate) dirty: Vec<ConnId>,
    /// Connections that may have input that epoll does not report again. They are read in the next turn.
    pub(crate) unread: Vec<ConnId>,
    /// The second list of dirty connections, for marks that are set while the first is worked off.
    pub(crate) spare_list: Vec<ConnId>,
    pub(crate) deferred: VecDeque<Deferred>,
}
