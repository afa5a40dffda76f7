//! What a loop knows: its connections, listeners, timers, and what is left to do.

use std::any::Any;
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::aside::Asides;
use super::blocking::Awaited;
use super::clock::Clock;
use super::conn::Conn;
use super::connect::Connector;
use super::context::Context;
use super::datagrams;
use super::dial::Dials;
use super::factory::{Factory, Users};
use super::group::Groups;
use super::handle::Inbox;
use super::lent::Lender;
use super::outbox::Spares;
use super::port::Port;
use super::slab::{ConnId, Place, Slab};
use super::team::Team;
use super::throttle::Direction;
use super::timers::Timers;
use super::token;
use super::Settings;
use crate::admit::Permit;
use crate::config::Limits;
use crate::lifecycle::{AtGate, Core};
use crate::sys::{Poller, Readiness};

/// Most bytes that one connection is read in a turn.
pub(super) const READ: usize = 64 << 10;

pub(super) type Call = Box<dyn FnOnce(&mut Context<'_>)>;

/// What a timer does.
pub(super) enum Task {
    Call(Call),
    Protocol(ConnId),
    /// A client's time is over, or its next attempt due.
    Connect(Connector),
    /// A limit of this connection may be over.
    Limit(ConnId),
    /// A rate limit lets this connection go on.
    Throttle(ConnId, Direction),
    /// Accepting has rested enough.
    Rested,
    /// The time is over in which `verify_request` may decide about a connection.
    Verify(u64),
    /// The server's `service_actions`.
    Actions,
}

/// What is done later in this turn, or in the next.
pub(super) enum Soon {
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

/// A stop in progress.
#[derive(Debug)]
pub(super) struct Drain {
    /// The limit that [`Reactor::shutdown`](super::Reactor::shutdown) was given; otherwise the server's holds.
    pub(super) deadline: Option<Instant>,
    /// How long it may take.
    pub(super) grace: Duration,
    /// Whether the time is over, and connections are cut.
    pub(super) cut: bool,
}

/// A loop, without what may be done with it only from outside a turn.
pub(super) struct State {
    pub(super) core: Arc<Core>,
    /// The loops of the server, and the number of this one among them.
    pub(super) team: Arc<Team>,
    pub(super) number: usize,
    /// While there is no place, and another loop may give one back.
    pub(super) at_gate: Option<AtGate>,
    /// Bytes of texts that other loops have sent since connections were looked after.
    pub(super) came_across: usize,
    pub(super) settings: Settings,
    pub(super) poller: Poller,
    pub(super) clock: Clock,
    /// When the wait of this turn ended, or the last callback since.
    pub(super) now: Instant,
    /// When the wait of this turn ended.
    pub(super) woke: Instant,
    pub(super) conns: Slab<Conn>,
    /// Connections that `verify_request` has still to decide about.
    pub(super) aside: Asides,
    pub(super) ports: Slab<Port>,
    /// In a worker process: the place for the connection that it waits for.
    pub(super) place: Option<Permit>,
    /// Who uses each factory: ports and clients.
    pub(super) users: Users,
    pub(super) dials: Dials,
    /// Files, which epoll does not watch.
    pub(super) always_ready: Vec<ConnId>,
    /// Whether the listeners are watched.
    pub(super) listening: bool,
    /// Sockets of datagrams, with their protocols.
    pub(super) datagrams: Slab<datagrams::Port>,
    /// Whether they are watched.
    pub(super) receiving: bool,
    /// How many datagrams have come, which are counted as accepted.
    pub(super) received: u64,
    /// Whether accepting rests for want of descriptors or memory.
    pub(super) rests: bool,
    /// Whether accepting ends with the next connection.
    pub(super) accepts_one: bool,
    pub(super) timers: Timers<Task>,
    pub(super) groups: Groups,
    /// Connections with something to send, to tell or to decide at the end of the turn.
    pub(super) dirty: Vec<ConnId>,
    /// Connections that may have input of which epoll has told already: read in the next turn.
    pub(super) unread: Vec<ConnId>,
    /// The other list, while one is gone through.
    pub(super) spare_list: Vec<ConnId>,
    pub(super) soon: VecDeque<Soon>,
    pub(super) inbox: Arc<Inbox>,
    pub(super) spares: Spares,
    /// What every connection is read into; lent to the callback.
    pub(super) buffer: Vec<u8>,
    pub(super) stop: bool,
    pub(super) drain: Option<Drain>,
    /// Work on other threads.
    pub(super) awaited: Awaited,
    /// Where the loop is one connection's, which was lent to it.
    pub(super) lent: Option<Lender>,
    /// Connections without sockets, which the test kit drives.
    #[cfg(feature = "testing")]
    pub(super) in_memory: Vec<ConnId>,
}

impl State {
    /// Of a loop by itself.
    pub(super) fn new(core: Arc<Core>, settings: Settings, clock: Clock) -> io::Result<Self> {
        Self::in_team(core, settings, clock, (Team::new(1)?, 0))
    }

    pub(super) fn in_team(
        core: Arc<Core>,
        settings: Settings,
        clock: Clock,
        place: (Arc<Team>, usize),
    ) -> io::Result<Self> {
        let state = Self::with(core, settings, clock, place, Poller::new()?, READ)?;
        // Nobody silences it, and other loops hear it too: each ring is told once to each.
        let rings = Readiness { edge: true, ..Readiness::READABLE };
        state.poller.add(&state.core.control.gate, rings, token::GATE)?;
        Ok(state)
    }

    /// With what it waits by, and how much it reads at once.
    pub(super) fn with(
        core: Arc<Core>,
        settings: Settings,
        clock: Clock,
        (team, number): (Arc<Team>, usize),
        poller: Poller,
        read: usize,
    ) -> io::Result<Self> {
        let (home, inbox) = (team.home(number), team.inbox(number).clone());
        poller.add(&inbox.bell, Readiness::READABLE, token::INBOX)?;
        Ok(Self {
            core,
            at_gate: None,
            came_across: 0,
            settings,
            poller,
            now: clock.now(),
            woke: clock.now(),
            clock,
            conns: Slab::new(home),
            dials: Dials::new(home),
            team,
            number,
            aside: Asides::default(),
            ports: Slab::new(home),
            place: None,
            users: Users::default(),
            always_ready: Vec::new(),
            listening: false,
            datagrams: Slab::new(home),
            receiving: false,
            received: 0,
            rests: false,
            accepts_one: false,
            timers: Timers::new(home),
            groups: Groups::default(),
            dirty: Vec::new(),
            unread: Vec::new(),
            spare_list: Vec::new(),
            soon: VecDeque::new(),
            inbox,
            spares: Spares::default(),
            buffer: vec![0; read],
            stop: false,
            drain: None,
            awaited: Awaited::default(),
            lent: None,
            #[cfg(feature = "testing")]
            in_memory: Vec::new(),
        })
    }

    /// From outside of a turn: what the program has done since the last one is no callback's time.
    pub(super) fn come_in(&mut self) {
        self.now = self.clock.now();
    }

    /// Has the connection looked at when the turn ends.
    pub(super) fn mark(&mut self, id: ConnId) {
        if let Some(conn) = self.conns.get_mut(id) {
            if !std::mem::replace(&mut conn.dirty, true) {
                self.dirty.push(id);
            }
        }
    }

    pub(super) fn limits_of(&self, conn: &Conn) -> Limits {
        conn.limits.as_deref().copied().unwrap_or(self.core.settings.limits)
    }

    /// When connections are cut; `None` while nothing stops.
    pub(super) fn drain_deadline(&self) -> Option<Instant> {
        let drain = self.drain.as_ref()?;
        let control = self.core.drain_deadline();
        match (drain.deadline, control) {
            (Some(own), _) if !self.core.control.is_urgent() => Some(own),
            (own, control) => control.or(own),
        }
    }

    /// How long the next wait may be.
    pub(super) fn patience(&mut self, timeout: Option<Duration>) -> Option<Duration> {
        let may_accept = self.has_last() && !self.core.admission.permits.full();
        let has_more = !self.dirty.is_empty() || !self.soon.is_empty() || !self.unread.is_empty();
        if self.stop || may_accept || has_more || self.has_ahead() || self.reads_a_file() {
            return Some(Duration::ZERO);
        }
        let due = self.timers.next().into_iter().chain(self.drain_deadline().filter(|_| !self.is_cut())).min();
        let left = due.map(|due| due.saturating_duration_since(self.clock.now()));
        left.into_iter().chain(timeout).min()
    }

    pub(super) fn is_cut(&self) -> bool {
        self.drain.as_ref().is_some_and(|drain| drain.cut)
    }
}
