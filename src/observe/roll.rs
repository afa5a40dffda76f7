//! [`OpenConnections`]: a list of the open connections. It is kept only if a `TestServer` asks for it.
//!
//! It is fed where connections are counted, so it works with every strategy. Without a test it costs a look
//! at a `OnceLock` for each connection, and only with the feature `testing`.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::net::Addr;

/// The connections of a server that are open, and those that were cut at the end of its drain.
#[derive(Debug, Default)]
pub(crate) struct OpenConnections(OnceLock<Mutex<Vec<Entry>>>);

/// One connection. Clients of a Unix socket have no names: of equal entries, the first one is removed first.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) peer: Addr,
    since: Instant,
    cut: Option<Instant>,
}

impl Entry {
    /// Returns how long the connection has been open, or was open until the cut.
    pub(crate) fn age(&self) -> Duration {
        self.cut.unwrap_or_else(Instant::now).saturating_duration_since(self.since)
    }

    pub(crate) fn is_cut(&self) -> bool {
        self.cut.is_some()
    }
}

impl OpenConnections {
    /// Begins to keep the list.
    pub(crate) fn keep(&self) {
        self.0.get_or_init(Mutex::default);
    }

    pub(crate) fn enter(&self, peer: &Addr) {
        if let Some(entries) = self.0.get() {
            entries.lock().push(Entry { peer: peer.clone(), since: Instant::now(), cut: None });
        }
    }

    /// Gives an open connection its client's address.
    pub(crate) fn rename(&self, from: &Addr, to: &Addr) {
        let Some(entries) = self.0.get() else { return };
        if let Some(entry) = entries.lock().iter_mut().find(|e| e.peer == *from && !e.is_cut()) {
            entry.peer = to.clone();
        }
    }

    /// Removes a connection that has ended, or marks it if it was cut.
    pub(crate) fn leave(&self, peer: &Addr, cut: bool) {
        let Some(entries) = self.0.get() else { return };
        let mut entries = entries.lock();
        let Some(place) = entries.iter().position(|e| e.peer == *peer && !e.is_cut()) else { return };
        if cut {
            entries[place].cut = Some(Instant::now());
        } else {
            entries.remove(place);
        }
    }

    pub(crate) fn entries(&self) -> Vec<Entry> {
        self.0.get().map(|entries| entries.lock().clone()).unwrap_or_default()
    }
}
