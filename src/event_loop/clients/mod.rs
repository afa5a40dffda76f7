//! Connections that this side makes, as data: where to, how, how often, and why not.

pub(crate) mod attempt;
pub(crate) mod connect;
pub(crate) mod connect_error;
pub(crate) mod reconnect;

use std::time::{Duration, Instant};

use crate::event_loop::clients::attempt::Attempt;
use crate::event_loop::clients::connect::{Connect, Connector};
use crate::event_loop::primitives::slab::{ConnId, Slab};
use crate::event_loop::primitives::timers::TimerId;

/// The loop's clients.
pub(crate) struct Clients<F> {
    pub(crate) all: Slab<Client<F>>,
    /// How many attempts have begun.
    pub(crate) attempts: u64,
    #[cfg(feature = "testing")]
    pub(crate) script: Option<crate::event_loop::io::memory::Script>,
}

impl<F> Clients<F> {
    pub(crate) fn new(home: u32) -> Self {
        Self {
            all: Slab::new(home),
            attempts: 0,
            #[cfg(feature = "testing")]
            script: None,
        }
    }

    #[cfg(feature = "testing")]
    pub(crate) fn attempts(&self) -> u64 {
        self.attempts
    }

    pub(crate) fn attempt(&mut self, connector: Connector) -> Option<&mut Attempt> {
        match &mut self.all.get_mut(connector.0)?.stage {
            Stage::Trying(attempt) => Some(attempt),
            _ => None,
        }
    }

    /// Its connection is gone; the protocol is told next, and may ask for another.
    pub(crate) fn lose_connection(&mut self, connector: Connector, now: Instant) {
        let Some(client) = self.all.get_mut(connector.0) else { return };
        if let Stage::Connected { since, .. } = client.stage {
            if client.to.reconnect.is_some_and(|policy| policy.is_stable(now.saturating_duration_since(since))) {
                client.retries = 0;
            }
        }
        client.stage = Stage::Over { again: false };
    }
}

/// One client.
pub(crate) struct Client<F> {
    pub(crate) to: Connect,
    pub(crate) factory: F,
    pub(crate) stage: Stage,
    /// How many attempts have followed by themselves on the first failure or loss, in a row.
    pub(crate) retries: u32,
}

pub(crate) enum Stage {
    /// An attempt begins when this callback has returned.
    Queued,
    Trying(Attempt),
    Connected {
        id: ConnId,
        since: Instant,
    },
    /// The next attempt begins with this timer.
    Waiting(TimerId),
    /// The callbacks of the end are called; whether another attempt was asked for.
    Over {
        again: bool,
    },
    /// The program has stopped it, which is told when this callback has returned, if it was an attempt.
    Stopped {
        tell: bool,
    },
}

impl<F> Client<F> {
    /// In what time the next attempt follows by itself, if it does.
    pub(crate) fn next_delay(&mut self) -> Option<Duration> {
        let delay = self.to.reconnect?.delay(self.retries)?;
        self.retries = self.retries.saturating_add(1);
        Some(delay)
    }
}
