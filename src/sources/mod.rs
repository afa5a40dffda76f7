//! The sources of connections, by network: how many connections each has, and how fast it connects.
//!
//! [`Sources`] turns an address into a key and asks the [`table`] in shared memory, under the limits of `PerSource`.
//! The walk: `Permit::admit_source` → [`Sources::admit`] → `Table::admit` → a [`Stay`], which the permit keeps →
//! [`Sources::leave`]. In a server with worker processes each worker is an owner of stays, and its master gives back
//! what a dead one has left ([`Sources::settle`]). This folder knows no sockets and no servers.

mod key;
mod lock;
mod pace;
mod table;
#[cfg(test)]
mod tests;

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher;
use std::io;
use std::net::IpAddr;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::PerSource;
use key::Prefixes;
use pace::Pace;
use table::Table;

pub(crate) use table::Stay;

/// Why a connection was refused for its source. It stands inside the error of
/// [`Failure::Refused`](crate::Failure::Refused).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SourceRefusal {
    /// Its source has as many connections as it may have: [`PerSource::at_once`].
    AtOnce,
    /// Its source connects too fast: [`PerSource::rate`].
    Rate,
}

impl fmt::Display for SourceRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AtOnce => "its source has as many connections as it may have at once",
            Self::Rate => "its source connects faster than it may",
        })
    }
}

impl std::error::Error for SourceRefusal {}

impl From<SourceRefusal> for io::Error {
    fn from(why: SourceRefusal) -> Self {
        Self::new(io::ErrorKind::PermissionDenied, why)
    }
}

/// The sources of one server, as one of its processes sees them.
#[derive(Debug)]
pub(crate) struct Sources {
    table: Arc<Table>,
    /// What the clients of a server with worker processes are counted by: its worker.
    owner: u32,
    owners: Arc<AtomicU32>,
    /// Its keys are random, so that a flood cannot choose where it stands in the table.
    hasher: RandomState,
    prefixes: Prefixes,
    at_once: u32,
    pace: Option<Pace>,
    /// The zero of the table's times.
    epoch: Instant,
}

impl Sources {
    /// Maps the table. The setting has been checked.
    pub(crate) fn new(setting: &PerSource) -> io::Result<Self> {
        Ok(Self {
            table: Arc::new(Table::new(setting.memory)?),
            owner: 1,
            owners: Arc::new(AtomicU32::new(2)),
            hasher: RandomState::new(),
            prefixes: Prefixes::of(setting),
            at_once: setting.at_once.and_then(|most| u32::try_from(most).ok()).unwrap_or(u32::MAX),
            pace: setting.rate.map(|(connections, period)| Pace::new(connections, period)),
            epoch: Instant::now(),
        })
    }

    /// Returns the same sources for a new worker process, which owns its own stays.
    pub(crate) fn for_worker(&self) -> Self {
        Self {
            table: self.table.clone(),
            owner: self.owners.fetch_add(1, SeqCst),
            owners: self.owners.clone(),
            hasher: self.hasher.clone(),
            ..*self
        }
    }

    /// Counts a new connection of this address. `None`: there is no room to count it.
    pub(crate) fn admit(&self, client: IpAddr) -> Result<Option<Stay>, SourceRefusal> {
        self.admit_after(client, || self.epoch.elapsed())
    }

    fn admit_after(
        &self,
        client: IpAddr,
        since_the_epoch: impl FnOnce() -> Duration,
    ) -> Result<Option<Stay>, SourceRefusal> {
        let key = self.prefixes.key(client);
        // Without a rate nobody asks for the time.
        let now = self.pace.map_or(0, |_| u64::try_from(since_the_epoch().as_nanos()).unwrap_or(u64::MAX));
        self.table.admit(self.owner, self.hasher.hash_one(key), key, |count, full_at| {
            if count >= self.at_once {
                return Err(SourceRefusal::AtOnce);
            }
            self.pace.map_or(Ok(0), |pace| pace.next(full_at, now).ok_or(SourceRefusal::Rate))
        })
    }

    /// Counts the end of a connection.
    pub(crate) fn leave(&self, stay: Stay) {
        self.table.leave(self.owner, stay);
    }

    /// Gives back the stays of a worker process that has ended, in its place.
    pub(crate) fn settle(&self) {
        self.table.settle(self.owner);
    }

    /// Gives this process a table of its own, without sources. It was forked from the one that has served so far.
    pub(crate) fn renew(&self) -> io::Result<()> {
        self.table.renew()
    }

    /// Returns the memory that a worker process writes.
    pub(crate) fn on_pages(&self) -> Range<usize> {
        self.table.on_pages()
    }
}
