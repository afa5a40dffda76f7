//! What a loop knows: its connections, listeners, timers, and what is left to do.

pub(crate) mod asides;
pub(crate) mod conn;
pub(crate) mod context;
pub(crate) mod datagram_ports;
pub(crate) mod datagram_protocol;
pub(crate) mod factory;
pub(crate) mod lost;
pub(crate) mod ports;
pub(crate) mod protocol;
pub(crate) mod rare;
pub(crate) mod settings;
pub(crate) mod stop;
pub(crate) mod transport;
pub(crate) mod work;

use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use crate::admit::Permit;
use crate::config::Limits;
use crate::event_loop::clients::Dials;
use crate::event_loop::io::outbox::Spares;
use crate::event_loop::primitives::clock::Clock;
use crate::event_loop::primitives::group::Groups;
use crate::event_loop::primitives::slab::{ConnId, Slab};
use crate::event_loop::primitives::team::Team;
use crate::event_loop::primitives::timers::Timers;
use crate::event_loop::primitives::token;
use crate::event_loop::state::asides::Asides;
use crate::event_loop::state::conn::Conn;
use crate::event_loop::state::factory::{Factory, Users};
use crate::event_loop::state::settings::Settings;
use crate::event_loop::state::stop::{Drain, Lender};
use crate::event_loop::state::work::{Awaited, SentCall, Soon, Task};
use crate::lifecycle::{AtGate, Core};
use crate::mailbox::Mailbox;
use crate::sys::{Poller, Readiness};

/// Most bytes that one connection is read in a turn.
pub(crate) const READ: usize = 64 << 10;

pub(crate) type LoopInbox = Mailbox<SentCall>;
pub(crate) type LoopTeam = Team<SentCall>;

/// A loop, without what may be done with it only from outside a turn.
pub(crate) struct State {
    pub(crate) core: Arc<Core>,
    /// The loops of the server, and the number of this one among them.
    pub(crate) team: Arc<LoopTeam>,
    pub(crate) number: usize,
    /// While there is no place, and another loop may give one back.
    pub(crate) at_gate: Option<AtGate>,
    /// Bytes of texts that other loops have sent since connections were looked after.
    pub(crate) came_across: usize,
    pub(crate) settings: Settings,
    pub(crate) poller: Poller,
    pub(crate) clock: Clock,
    /// When the wait of this turn ended, or the last callback since.
    pub(crate) now: Instant,
    /// When the wait of this turn ended.
    pub(crate) woke: Instant,
    pub(crate) conns: Slab<Conn>,
    /// Connections that `verify_request` has still to decide about.
    pub(crate) aside: Asides,
    pub(crate) ports: Slab<ports::Port>,
    /// In a worker process: the place for the connection that it waits for.
    pub(crate) place: Option<Permit>,
    /// Who uses each factory: ports and clients.
    pub(crate) users: Users,
    pub(crate) dials: Dials<Rc<dyn Factory>>,
    /// Files, which epoll does not watch.
    pub(crate) always_ready: Vec<ConnId>,
    /// Whether the listeners are watched.
    pub(crate) listening: bool,
    /// Sockets of datagrams, with their protocols.
    pub(crate) datagrams: Slab<datagram_ports::Port>,
    /// Whether they are watched.
    pub(crate) receiving: bool,
    /// How many datagrams have come, which are counted as accepted.
    pub(crate) received: u64,
    /// Whether accepting rests for want of descriptors or memory.
    pub(crate) rests: bool,
    /// Whether accepting ends with the next connection.
    pub(crate) accepts_one: bool,
    pub(crate) timers: Timers<Task>,
    pub(crate) groups: Groups,
    /// Connections with something to send, to tell or to decide at the end of the turn.
    pub(crate) dirty: Vec<ConnId>,
    /// Connections that may have input of which epoll has told already: read in the next turn.
    pub(crate) unread: Vec<ConnId>,
    /// The other list, while one is gone through.
    pub(crate) spare_list: Vec<ConnId>,
    pub(crate) soon: VecDeque<Soon>,
    pub(crate) inbox: Arc<LoopInbox>,
    pub(crate) spares: Spares,
    /// What every connection is read into; lent to the callback.
    pub(crate) buffer: Vec<u8>,
    pub(crate) stop: bool,
    pub(crate) drain: Option<Drain>,
    /// Work on other threads.
    pub(crate) awaited: Awaited,
    /// Where the loop is one connection's, which was lent to it.
    pub(crate) lent: Option<Lender>,
    /// Connections without sockets, which the test kit drives.
    #[cfg(feature = "testing")]
    pub(crate) in_memory: Vec<ConnId>,
}

impl State {
    /// Of a loop by itself.
    pub(crate) fn new(core: Arc<Core>, settings: Settings, clock: Clock) -> io::Result<Self> {
        Self::in_team(core, settings, clock, (Team::new(1)?, 0))
    }

    pub(crate) fn in_team(
        core: Arc<Core>,
        settings: Settings,
        clock: Clock,
        place: (Arc<LoopTeam>, usize),
    ) -> io::Result<Self> {
        let state = Self::with(core, settings, clock, place, Poller::new()?, READ)?;
        // Nobody silences it, and other loops hear it too: each ring is told once to each.
        let rings = Readiness { edge: true, ..Readiness::READABLE };
        state.poller.add(&state.core.control.gate, rings, token::GATE)?;
        Ok(state)
    }

    /// With what it waits by, and how much it reads at once.
    pub(crate) fn with(
        core: Arc<Core>,
        settings: Settings,
        clock: Clock,
        (team, number): (Arc<LoopTeam>, usize),
        poller: Poller,
        read: usize,
    ) -> io::Result<Self> {
        let (home, inbox) = (team.home(number), team.inbox(number).clone());
        poller.add(&*inbox, Readiness::READABLE, token::INBOX)?;
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
    pub(crate) fn come_in(&mut self) {
        self.now = self.clock.now();
    }

    /// Has the connection looked at when the turn ends.
    pub(crate) fn mark(&mut self, id: ConnId) {
        if let Some(conn) = self.conns.get_mut(id) {
            if !std::mem::replace(&mut conn.dirty, true) {
                self.dirty.push(id);
            }
        }
    }

    pub(crate) fn limits_of(&self, conn: &Conn) -> Limits {
        conn.limits.as_deref().copied().unwrap_or(self.core.settings.limits)
    }

    /// When connections are cut; `None` while nothing stops.
    pub(crate) fn drain_deadline(&self) -> Option<Instant> {
        let drain = self.drain.as_ref()?;
        let control = self.core.drain_deadline();
        match (drain.deadline, control) {
            (Some(own), _) if !self.core.control.is_urgent() => Some(own),
            (own, control) => control.or(own),
        }
    }

    pub(crate) fn is_cut(&self) -> bool {
        self.drain.as_ref().is_some_and(|drain| drain.cut)
    }

    /// Whether the id is none of this loop's.
    pub(crate) fn is_of_another_loop(&self, id: ConnId) -> bool {
        id.home() != self.conns.home()
    }

    pub(crate) fn takes_output(&self, id: ConnId) -> bool {
        self.conns.get(id).is_some_and(|conn| conn.takes_output())
    }

    pub(crate) fn is_open(&self, id: ConnId) -> bool {
        self.conns.get(id).is_some_and(|conn| conn.is_open())
    }

    /// Whether there is any, served or kept aside.
    pub(crate) fn has_connections(&self) -> bool {
        self.conns.len() + self.aside.len() > 0
    }
}
