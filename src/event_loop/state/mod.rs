//! What a loop knows: its connections, listeners, timers, and what is left to do.

pub(crate) mod clockwork;
pub(crate) mod cold;
pub(crate) mod conn;
pub(crate) mod context;
pub(crate) mod datagram_ports;
pub(crate) mod datagram_protocol;
pub(crate) mod factory;
pub(crate) mod lost;
pub(crate) mod ports;
pub(crate) mod protocol;
pub(crate) mod settings;
pub(crate) mod stop;
pub(crate) mod transport;
pub(crate) mod verdicts;
pub(crate) mod work;

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

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
use crate::event_loop::state::ports::Ports;
use crate::event_loop::state::settings::LoopSettings;
use crate::event_loop::state::stop::{Lender, Stop};
use crate::event_loop::state::verdicts::PendingVerdicts;
use crate::event_loop::state::work::{Offloaded, Queues, SentCall};
use crate::lifecycle::Core;
use crate::mailbox::Mailbox;
use crate::sys::{Poller, Readiness};

/// Most bytes that one connection is read in a turn.
pub(crate) const READ: usize = 64 << 10;

pub(crate) type LoopInbox = Mailbox<SentCall>;
pub(crate) type SiblingLoops = LoopGroup<SentCall>;

/// A loop: what it knows and is to do. The floors above are its methods.
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
    /// Listeners, with their factories.
    pub(crate) ports: Ports,
    /// Sockets of datagrams, with their protocols.
    pub(crate) datagrams: DatagramPorts,
    pub(crate) clients: Clients<Rc<dyn Factory>>,
    /// Connections that `verify_request` has still to decide about.
    pub(crate) verdicts: PendingVerdicts,
    /// Work on other threads.
    pub(crate) offloaded: Offloaded,
    /// Connections that the poller does not tell of.
    pub(crate) unpolled: Unpolled,
    pub(crate) stop: Stop,
    /// Where the loop is one connection's, which was lent to it.
    pub(crate) lent: Option<Lender>,
}

/// This loop among the loops of its server.
pub(crate) struct Loops {
    pub(crate) group: Arc<SiblingLoops>,
    /// Of this loop in the group.
    pub(crate) number: usize,
    pub(crate) inbox: Arc<LoopInbox>,
    /// Bytes of texts that other loops have sent since connections were settled last.
    pub(crate) came_across: usize,
}

/// Memory that all connections share.
pub(crate) struct Buffers {
    /// What every connection is read into; lent to the callback.
    pub(crate) read: Vec<u8>,
    pub(crate) spares: Spares,
}

/// Connections that the poller does not tell of.
#[derive(Default)]
pub(crate) struct Unpolled {
    /// Regular files, which epoll refuses: always readable.
    pub(crate) files: Vec<ConnId>,
    /// Connections without sockets, which the test kit drives.
    #[cfg(feature = "testing")]
    pub(crate) memory: Vec<ConnId>,
}

impl State {
    /// Of a loop by itself.
    pub(crate) fn new(core: Arc<Core>, settings: LoopSettings, clock: Clock) -> io::Result<Self> {
        Self::in_team(core, settings, clock, (LoopGroup::new(1)?, 0))
    }

    pub(crate) fn in_team(
        core: Arc<Core>,
        settings: LoopSettings,
        clock: Clock,
        place: (Arc<SiblingLoops>, usize),
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
            verdicts: PendingVerdicts::default(),
            offloaded: Offloaded::default(),
            unpolled: Unpolled::default(),
            stop: Stop::default(),
            lent: None,
        })
    }

    /// From outside of a turn: what the program has done since the last one is no callback's time.
    pub(crate) fn refresh_clock(&mut self) {
        self.time.now = self.time.clock.now();
    }

    /// Has the connection looked at when the turn ends.
    pub(crate) fn mark(&mut self, id: ConnId) {
        if let Some(conn) = self.conns.get_mut(id) {
            if !std::mem::replace(&mut conn.dirty, true) {
                self.queues.dirty.push(id);
            }
        }
    }

    pub(crate) fn limits_of(&self, conn: &Conn) -> Limits {
        conn.limits.own.as_deref().copied().unwrap_or(self.core.settings.limits)
    }

    /// When connections are cut; `None` while nothing stops.
    pub(crate) fn drain_deadline(&self) -> Option<Instant> {
        let drain = self.stop.drain.as_ref()?;
        let control = self.core.drain_deadline();
        match (drain.deadline, control) {
            (Some(own), _) if !self.core.control.is_urgent() => Some(own),
            (own, control) => control.or(own),
        }
    }

    pub(crate) fn is_cut(&self) -> bool {
        self.stop.drain.as_ref().is_some_and(|drain| drain.cut)
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
        self.conns.len() + self.verdicts.len() > 0
    }
}
