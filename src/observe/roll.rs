//! Who is connected, by name: kept only where a test asks for it.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::net::Addr;

/// The connections of a server that are open, and those that were cut at the end of its drain.
#[derive(Debug, Default)]
pub(crate) struct OpenConnections(OnceLock<Mutex<Vec<Entry>>>);

/// One connection. Clients of a Unix socket have no names: of those that are alike, the first is struck off first.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) peer: Addr,
    since: Instant,
    cut: Option<Instant>,
}

impl Entry {
    /// How long it was, or has been, open.
    pub(crate) fn age(&self) -> Duration {
        self.cut.unwrap_or_else(Instant::now).saturating_duration_since(self.since)
    }

    pub(crate) fn is_cut(&self) -> bool {
        self.cut.is_some()
    }
}

impl OpenConnections {
    /// Keeps it from here on.
    pub(crate) fn keep(&self) {
        self.0.get_or_init(Mutex::default);
    }

    pub(crate) fn enter(&self, peer: &Addr) {
        if let Some(entries) = self.0.get() {
            entries.lock().push(Entry { peer: peer.clone(), since: Instant::now(), cut: None });
        }
    }

    /// Strikes off who is done, and marks who was cut.
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
