//! [`GreetingFailure`]: why a connection was closed before its handler, and the counters of that.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Why a connection was closed while it was greeted: after `accept`, and before its handler.
///
/// A greeting is what a connection begins with before its handler may see it: the header of the
/// [PROXY protocol](crate::proxy), and the handshake of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GreetingFailure {
    /// It came from a network that [`proxy_protocol`](crate::ServerBuilder::proxy_protocol) does not name.
    Source,
    /// Its PROXY header is malformed, or there is none. The error has a
    /// [`ProxyError`](crate::proxy::ProxyError) inside.
    Header,
    /// The peer has not sent all in [`handshake_timeout`](crate::ServerBuilder::handshake_timeout).
    TimedOut,
    /// The peer has left. Health checks do, so this is no fault.
    Left,
    /// The server stops, and does not wait for the rest.
    Stopped,
    /// The system lacked something.
    System,
    /// The handshake of TLS failed: the client does not speak TLS, or there is nothing that both sides accept, or its
    /// certificate is not trusted. The client has read an alert.
    Tls,
}

/// How many connections were closed while they were greeted, by the reason. [`Left`](GreetingFailure::Left)
/// is a part of [`Stats::disconnected`](crate::Stats::disconnected), all others of
/// [`Stats::refused`](crate::Stats::refused).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct GreetingCounts {
    /// [`GreetingFailure::Source`].
    pub source: u64,
    /// [`GreetingFailure::Header`].
    pub header: u64,
    /// [`GreetingFailure::TimedOut`].
    pub timed_out: u64,
    /// [`GreetingFailure::Left`].
    pub left: u64,
    /// [`GreetingFailure::Stopped`].
    pub stopped: u64,
    /// [`GreetingFailure::System`].
    pub system: u64,
    /// [`GreetingFailure::Tls`].
    pub tls: u64,
}

impl GreetingFailure {
    pub(crate) const ALL: [Self; 7] =
        [Self::Source, Self::Header, Self::TimedOut, Self::Left, Self::Stopped, Self::System, Self::Tls];
}

/// The log's words for many failures of one kind.
impl fmt::Display for GreetingFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Source => "connections that came from no proxy",
            Self::Header => "connections without a right PROXY header",
            Self::TimedOut => "connections that were too slow to begin",
            Self::Left => "connections that left before they began",
            Self::Stopped => "connections that the stop has ended before they began",
            Self::System => "connections that could not be greeted",
            Self::Tls => "connections whose TLS handshake failed",
        })
    }
}

/// One counter for each reason, in the order of [`GreetingFailure::ALL`].
#[derive(Debug, Default)]
pub(crate) struct GreetingCounters([AtomicU64; GreetingFailure::ALL.len()]);

impl GreetingCounters {
    pub(crate) fn count(&self, reason: GreetingFailure) {
        if let Some(counter) = self.0.get(reason as usize) {
            counter.fetch_add(1, Relaxed);
        }
    }

    pub(super) fn reset(&self, mut to: GreetingCounts) {
        for (reason, counter) in GreetingFailure::ALL.into_iter().zip(&self.0) {
            counter.store(*to.of(reason), Relaxed);
        }
    }

    pub(crate) fn totals(&self) -> GreetingCounts {
        let mut counts = GreetingCounts::default();
        for (reason, counter) in GreetingFailure::ALL.into_iter().zip(&self.0) {
            *counts.of(reason) = counter.load(Relaxed);
        }
        counts
    }
}

impl GreetingCounts {
    /// Returns the sum of all reasons.
    pub fn all(&self) -> u64 {
        let mut counts = *self;
        GreetingFailure::ALL.into_iter().map(|reason| *counts.of(reason)).fold(0, u64::saturating_add)
    }

    fn of(&mut self, reason: GreetingFailure) -> &mut u64 {
        match reason {
            GreetingFailure::Source => &mut self.source,
            GreetingFailure::Header => &mut self.header,
            GreetingFailure::TimedOut => &mut self.timed_out,
            GreetingFailure::Left => &mut self.left,
            GreetingFailure::Stopped => &mut self.stopped,
            GreetingFailure::System => &mut self.system,
            GreetingFailure::Tls => &mut self.tls,
        }
    }

    /// Combines two counts, reason by reason.
    pub(super) fn with(mut self, mut other: Self, combine: impl Fn(u64, u64) -> u64) -> Self {
        for reason in GreetingFailure::ALL {
            *self.of(reason) = combine(*self.of(reason), *other.of(reason));
        }
        self
    }
}
