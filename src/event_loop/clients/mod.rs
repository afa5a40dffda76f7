//! Clients as data: where to connect to, how, how often, and why it failed.
//!
//! Nothing here knows `State` or calls the user's code. `services::clients` does, through these stages: `Queued` →
//! `Trying` → `Connected` → `Over` → `Waiting` → `Trying`. A client is in the table from its first attempt until no
//! attempt, no connection and no further attempt is left.

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

    /// Notes that a client's connection is gone. `connection_lost` comes next, and may ask for another connection.
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
    /// How many automatic attempts in a row have followed the first failure or loss.
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
    /// The callbacks of the end are called. `again`: true if one of them has asked for another attempt.
    Over {
        again: bool,
    },
    /// The program has stopped the client. `tell`: true if it stopped an attempt, so that `connection_failed` follows.
    Stopped {
        tell: bool,
    },
}

impl<F> Client<F> {
    /// Returns the delay before the next automatic attempt; `None` if none follows.
    pub(crate) fn next_delay(&mut self) -> Option<Duration> {
        let delay = self.to.reconnect?.delay(self.retries)?;
        self.retries = self.retries.saturating_add(1);
        Some(delay)
    }
}
