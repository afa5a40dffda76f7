//! What a loop knows: its connections, listeners, timers, and what is left to do.
//!
//! Here is the data, grouped into parts with names, and questions about it. What a loop does with it are the methods of
//! `State` in `conns`, `services` and `turn`; nothing here reads, writes or starts a callback. `Protocol`, `Factory`,
//! `Context` and `Transport` are declared here, because `State` holds the one and is lent as the other.
//!
//! The walk: `State` → `conns` (a slab of `Conn`) → `Conn` with its parts `entry`, `watch`, `flow`, `request`,
//! `limits`, `end`, and `ColdState` for what few connections have.
//!
//! If a protocol owned its transport, it would share it with the loop. That needs an `Rc<RefCell<…>>` around each
//! connection and a check at each use, and it panics if a callback meets itself. A transport lent as `&mut` is
//! checked by the compiler. For all other code there is `ConnId`, a number.

pub(crate) mod clockwork;
pub(crate) mod cold;
pub(crate) mod conn;
pub(crate) mod context;
pub(crate) mod datagram_ports;
pub(crate) mod datagram_protocol;
pub(crate) mod factory;
pub(crate) mod greetings;
pub(crate) mod lost;
pub(crate) mod ports;
pub(crate) mod protocol;
pub(crate) mod settings;
pub(crate) mod solo;
pub(crate) mod stop;
pub(crate) mod transport;
pub(crate) mod verdicts;
pub(crate) mod work;

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use crate::accept::Accepting;
use crate::config::Limits;
use crate::event_loop::clients::Clients;
use crate::event_loop::io::outbox::Spares;
use crate::event_loop::primitives::clock::Clock;
use crate::event_loop::primitives::group::Groups;
use crate::event_loop::primitives::loop_group::LoopGroup;
use crate::event_loop::primitives::slab::{ConnId, Slab};
use crate::event_loop::primitives::token;
use crate::event_loop::state::clockwork::Clockwork;
use crate::event_loop::state::conn::Conn;
use crate::event_loop::state::datagram_ports::DatagramPorts;
use crate::event_loop::state::factory::Factory;
use crate::event_loop::state::greetings::PendingGreeting;
use crate::event_loop::state::ports::Ports;
use crate::event_loop::state::settings::LoopSettings;
use crate::event_loop::state::solo::Solo;
use crate::event_loop::state::stop::Stop;
use crate::event_loop::state::verdicts::PendingVerdicts;
use crate::event_loop::state::work::{Offloaded, Queues, SentCall};
use crate::lifecycle::Core;
use crate::mailbox::Mailbox;
use crate::sys::{Poller, Readiness};

/// The most bytes that a read takes.
pub(crate) const READ: usize = 64 << 10;

pub(crate) type LoopInbox = Mailbox<SentCall>;
pub(crate) type SiblingLoops = LoopGroup<SentCall>;

/// The data of a loop. Its methods are on the floors above.
pub(crate) struct State {
    pub(crate) core: Arc<Core>,
    pub(crate) settings: LoopSettings,
    /// This loop among the loops of its server.
    pub(crate) loops: Loops,
    pub(crate) poller: Poller,
    pub(crate) time: Clockwork,
    pub(crate) conns: Slab<Conn>,
    pub(crate) groups: Groups,
    pub(crate) queues: Queues,
    pub(crate) buffers: Buffers,
    /// The listeners, with their factories.
    pub(crate) ports: Ports,
    /// The datagram sockets, with their protocols.
    pub(crate) datagrams: DatagramPorts,
    pub(crate) clients: Clients<Rc<dyn Factory>>,
    /// Connections that are greeted: they have no protocol yet.
    pub(crate) greetings: Slab<PendingGreeting>,
    /// Connections that wait for `verify_request`.
    pub(crate) verdicts: PendingVerdicts,
    /// Work on other threads.
    pub(crate) offloaded: Offloaded,
    /// Connections for which the poller reports no events.
    pub(crate) unpolled: Unpolled,
    pub(crate) stop: Stop,
    /// `Some` in the loop of a single connection, which a blocking strategy has handed over.
    pub(crate) solo: Option<Solo>,
}

/// This loop among the loops of its server.
pub(crate) struct Loops {
    pub(crate) group: Arc<SiblingLoops>,
    /// The number of this loop in the group.
    pub(crate) number: usize,
    pub(crate) inbox: Arc<LoopInbox>,
    /// Bytes of texts that other loops have sent since the last settle.
    pub(crate) came_across: usize,
}

/// Memory that all connections share, so that an idle connection costs little more than the kernel's socket. Memory
/// follows the number of connections with queued output, and not the number of connections.
pub(crate) struct Buffers {
    /// The buffer that every connection is read into. It is lent to the callback.
    pub(crate) read: Vec<u8>,
    pub(crate) spares: Spares,
}

/// Connections for which the poller reports no events.
#[derive(Default)]
pub(crate) struct Unpolled {
    /// Regular files, which epoll refuses: always readable.
    pub(crate) files: Vec<ConnId>,
    /// Connections without sockets, which the test kit drives.
    #[cfg(feature = "testing")]
    pub(crate) memory: Vec<ConnId>,
}

impl State {
    /// Makes a single loop.
    pub(crate) fn new(core: Arc<Core>, settings: LoopSettings, clock: Clock) -> io::Result<Self> {
        Self::in_team(core, settings, clock, (LoopGroup::new(1)?, 0))
    }

    /// Makes one of several loops of a server.
    pub(crate) fn in_team(
        core: Arc<Core>,
        settings: LoopSettings,
        clock: Clock,
        place: (Arc<SiblingLoops>, usize),
    ) -> io::Result<Self> {
        let state = Self::with(core, settings, clock, place, Poller::new()?, READ)?;
        state.watch_gate()?;
        Ok(state)
    }

    /// Watches the gate: edge-triggered, and never cleared: each ring is reported once to each loop. A loop that cleared the eventfd would
    /// take the ring from the others.
    pub(crate) fn watch_gate(&self) -> io::Result<()> {
        let rings = Readiness { edge: true, ..Readiness::READABLE };
        self.poller.add(&self.core.control.gate, rings, token::GATE)
    }

    /// Makes a loop with this poller, which reads this much at once.
    pub(crate) fn with(
        core: Arc<Core>,
        settings: LoopSettings,
        clock: Clock,
        (group, number): (Arc<SiblingLoops>, usize),
        poller: Poller,
        read: usize,
    ) -> io::Result<Self> {
        let (home, inbox) = (group.home(number), group.inbox(number).clone());
        poller.add(&*inbox, Readiness::READABLE, token::INBOX)?;
        Ok(Self {
            core,
            settings,
            loops: Loops { group, number, inbox, came_across: 0 },
            poller,
            time: Clockwork::new(clock, home),
            conns: Slab::new(home),
            groups: Groups::default(),
            queues: Queues::default(),
            buffers: Buffers { read: vec![0; read], spares: Spares::default() },
            ports: Ports::new(home),
            datagrams: DatagramPorts::new(home),
            clients: Clients::new(home),
            greetings: Slab::new(home),
            verdicts: PendingVerdicts::default(),
            offloaded: Offloaded::default(),
            unpolled: Unpolled::default(),
            stop: Stop::default(),
            solo: None,
        })
    }

    /// Reads the clock, outside of a turn. The program's own time since the last turn is no callback's.
    pub(crate) fn refresh_clock(&mut self) {
        self.time.now = self.time.clock.now();
    }

    /// Marks a connection, so that it is settled at the end of the turn.
    pub(crate) fn mark(&mut self, id: ConnId) {
        if let Some(conn) = self.conns.get_mut(id) {
            if !std::mem::replace(&mut conn.dirty, true) {
                self.queues.dirty.push(id);
            }
        }
    }

    /// Returns the time limits of a connection: its own, or the server's.
    pub(crate) fn limits_of<'a>(&'a self, conn: &'a Conn) -> &'a Limits {
        conn.limits.own.as_deref().unwrap_or(&self.core.settings.limits)
    }

    /// Returns when connections are cut; `None` while nothing stops.
    pub(crate) fn drain_deadline(&self) -> Option<Instant> {
        let drain = self.stop.drain.as_ref()?;
        // On a thread that does not drain the server, a solo connection waits for the cut of the thread that does.
        let cuts_itself = self.solo.is_none() || Accepting::is_here();
        let control = self.core.drain_deadline().filter(|_| cuts_itself);
        // The program's own limit holds, unless the server is told to stop at once.
        match (drain.deadline, control) {
            (Some(own), _) if !self.core.control.is_urgent() => Some(own),
            (own, control) => control.or(own),
        }
    }

    /// True if the drain limit has passed and connections are cut.
    pub(crate) fn is_cut(&self) -> bool {
        self.stop.drain.as_ref().is_some_and(|drain| drain.cut)
    }

    /// True if the loop is the one of this single connection.
    pub(crate) fn is_solo(&self, id: ConnId) -> bool {
        self.solo.as_ref().is_some_and(|solo| solo.id == id)
    }

    /// True if the id belongs to another loop.
    pub(crate) fn is_of_another_loop(&self, id: ConnId) -> bool {
        id.home() != self.conns.home()
    }

    pub(crate) fn takes_output(&self, id: ConnId) -> bool {
        self.conns.get(id).is_some_and(|conn| conn.takes_output())
    }

    pub(crate) fn is_open(&self, id: ConnId) -> bool {
        self.conns.get(id).is_some_and(|conn| conn.is_open())
    }

    /// True if there is a connection: served, greeted or waiting for a verdict.
    pub(crate) fn has_connections(&self) -> bool {
        self.conns.len() + self.verdicts.len() + self.greetings.len() > 0
    }
}
