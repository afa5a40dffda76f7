//! [`SourceCounts`]: how many connections were refused for their source.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::sources::SourceRefusal;

/// How many connections [`per_source`](crate::ServerBuilder::per_source) has refused, by the reason. They are a part
/// of [`Stats::refused`](crate::Stats::refused).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct SourceCounts {
    /// [`SourceRefusal::AtOnce`].
    pub at_once: u64,
    /// [`SourceRefusal::Rate`].
    pub rate: u64,
    /// Connections that were served and not counted for their source, because there was no room: give the table more
    /// [`memory`](crate::PerSource::memory). They are no part of the refused.
    pub uncounted: u64,
}

/// One counter for each field of [`SourceCounts`].
#[derive(Debug, Default)]
pub(crate) struct SourceCounters {
    at_once: AtomicU64,
    rate: AtomicU64,
    pub(crate) uncounted: AtomicU64,
}

impl SourceCounters {
    pub(super) fn of(&self, why: SourceRefusal) -> &AtomicU64 {
        match why {
            SourceRefusal::AtOnce => &self.at_once,
            SourceRefusal::Rate => &self.rate,
        }
    }

    pub(super) fn reset(&self, to: SourceCounts) {
        self.at_once.store(to.at_once, Relaxed);
        self.rate.store(to.rate, Relaxed);
        self.uncounted.store(to.uncounted, Relaxed);
    }

    pub(super) fn totals(&self) -> SourceCounts {
        SourceCounts {
            at_once: self.at_once.load(Relaxed),
            rate: self.rate.load(Relaxed),
            uncounted: self.uncounted.load(Relaxed),
        }
    }
}

impl SourceCounts {
    /// Returns how many were refused, for either reason.
    pub fn refused(&self) -> u64 {
        self.at_once.saturating_add(self.rate)
    }

    /// Combines two counts, field by field.
    pub(super) fn with(self, other: Self, combine: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            at_once: combine(self.at_once, other.at_once),
            rate: combine(self.rate, other.rate),
            uncounted: combine(self.uncounted, other.uncounted),
        }
    }
}
