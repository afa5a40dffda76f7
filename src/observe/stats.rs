//! [`Stats`], the counters while a server runs, and [`Report`], the account of a run.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::greeting::{GreetingCounters, GreetingCounts};
use super::sources::{SourceCounters, SourceCounts};
use super::times::{TimeCounters, Times};

/// The counters of a server, by the outcome of each connection.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) accepted: AtomicU64,
    pub(crate) served: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) panicked: AtomicU64,
    pub(crate) timed_out: AtomicU64,
    pub(crate) crashed: AtomicU64,
    pub(crate) peer_faults: AtomicU64,
    pub(crate) disconnected: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) accept_errors: AtomicU64,
    pub(crate) drained: AtomicU64,
    pub(crate) forced: AtomicU64,
    pub(crate) greetings: GreetingCounters,
    pub(crate) times: TimeCounters,
    pub(crate) sources: SourceCounters,
}

/// A server's counters at one moment, since it was bound. [`ServerHandle::stats`](crate::ServerHandle::stats)
/// returns them.
///
/// When no connection is in progress, `accepted = served + failed + disconnected + refused`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Stats {
    /// Connections that hold a permit now: they are being served, or being closed.
    pub active: usize,
    /// Of the active, those that are parked: they wait for a request without a thread, as those of
    /// [`per_request`](crate::per_request) do.
    pub parked: usize,
    /// The most connections that are served at once.
    pub max_connections: usize,
    /// Connections taken from the kernel's queue.
    pub accepted: u64,
    /// Connections whose handler returned `Ok`.
    pub served: u64,
    /// Connections whose handler returned an error, panicked, or was cut at a limit.
    pub failed: u64,
    /// Of the failed, those whose handler panicked.
    pub panicked: u64,
    /// Of the failed, those that a time limit ended. The drain limit is one of them.
    pub timed_out: u64,
    /// Of the failed, those whose process exited by itself or was killed ([`Forking`](crate::Forking)).
    pub crashed: u64,
    /// Of the failed, those whose peer was at fault: it has sent what cannot be served
    /// ([`PeerFault`](crate::PeerFault)).
    pub peer_faults: u64,
    /// Connections whose peer left before the handler was done (`EPIPE`, `ECONNRESET` and the like).
    pub disconnected: u64,
    /// Connections closed without a handler: at the limit, by `verify_request`, or because no thread could be
    /// started.
    pub refused: u64,
    /// Calls of `accept` that failed: no descriptor or memory was left, or the connection was gone. They are
    /// no part of `accepted`.
    pub accept_errors: u64,
    /// Of the disconnected and the refused, those that ended before their handler, while they were greeted.
    pub greetings: GreetingCounts,
    /// How long connections took. Only a server with an [`Observer`](crate::Observer) measures it.
    pub times: Times,
    /// Of the refused, those that were refused for their source.
    pub sources: SourceCounts,
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "active {} of {}, accepted {}, ", self.active, self.max_connections, self.accepted)?;
        write!(f, "served {}, failed {}, ", self.served, self.failed)?;
        write!(f, "disconnected {}, refused {}, ", self.disconnected, self.refused)?;
        write!(f, "accept errors {}", self.accept_errors)
    }
}

/// The account of one run, which [`serve_forever`](crate::TcpServer::serve_forever) returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Report {
    /// Connections taken from the kernel's queue.
    pub accepted: u64,
    /// Connections whose handler returned `Ok`.
    pub served: u64,
    /// Connections whose handler returned an error, panicked, crashed, or was cut at a limit.
    pub failed: u64,
    /// Of the failed, those whose handler panicked.
    pub panicked: u64,
    /// Of the failed, those that a time limit ended. The drain limit is one of them.
    pub timed_out: u64,
    /// Of the failed, those whose process exited by itself or was killed ([`Forking`](crate::Forking)).
    pub crashed: u64,
    /// Of the failed, those whose peer was at fault: it has sent what cannot be served
    /// ([`PeerFault`](crate::PeerFault)).
    pub peer_faults: u64,
    /// Connections whose peer left first.
    pub disconnected: u64,
    /// Connections closed without a handler.
    pub refused: u64,
    /// Calls of `accept` that failed.
    pub accept_errors: u64,
    /// Connections that ended by themselves between the request to stop and the drain limit.
    pub drained: u64,
    /// Connections that were cut at the drain limit, or ended after it: a handler on the accepting thread is waited for.
    pub forced: u64,
    /// Handlers that still ran when `serve_forever` returned, although their connections had been cut. A
    /// handler that computes cannot be ended. With [`PreForking`](crate::PreForking) they end with their process, and their
    /// connections count as failed too.
    pub abandoned: u64,
    /// Of the disconnected and the refused, those that ended before their handler, while they were greeted.
    pub greetings: GreetingCounts,
    /// Of the refused, those that were refused for their source.
    pub sources: SourceCounts,
}

/// One line. Counts that are zero are left out, except for the first two:
/// `accepted 6, served 3, failed 2 (panicked 1), disconnected 1, drained 1`.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "accepted {}, served {}", self.accepted, self.served)?;
        if self.failed > 0 {
            write!(f, ", failed {}", self.failed)?;
            let kinds = [
                ("panicked", self.panicked),
                ("timed out", self.timed_out),
                ("crashed", self.crashed),
                ("peer faults", self.peer_faults),
            ];
            let mut kinds = kinds.into_iter().filter(|(_, count)| *count > 0);
            if let Some((name, count)) = kinds.next() {
                write!(f, " ({name} {count}")?;
                kinds.try_for_each(|(name, count)| write!(f, ", {name} {count}"))?;
                f.write_str(")")?;
            }
        }
        let rest = [
            ("disconnected", self.disconnected),
            ("refused", self.refused),
            ("accept errors", self.accept_errors),
            ("drained", self.drained),
            ("forced", self.forced),
            ("abandoned", self.abandoned),
            ("failed greetings", self.greetings.all()),
            ("refused by source", self.sources.refused()),
            ("uncounted by source", self.sources.uncounted),
        ];
        let mut rest = rest.into_iter().filter(|(_, count)| *count > 0);
        rest.try_for_each(|(name, count)| write!(f, ", {name} {count}"))
    }
}

impl Counters {
    /// Returns the totals so far. The difference of two totals is the report of a run.
    pub(crate) fn totals(&self) -> Report {
        Report {
            accepted: self.accepted.load(Relaxed),
            served: self.served.load(Relaxed),
            failed: self.failed.load(Relaxed),
            panicked: self.panicked.load(Relaxed),
            timed_out: self.timed_out.load(Relaxed),
            crashed: self.crashed.load(Relaxed),
            peer_faults: self.peer_faults.load(Relaxed),
            disconnected: self.disconnected.load(Relaxed),
            refused: self.refused.load(Relaxed),
            accept_errors: self.accept_errors.load(Relaxed),
            drained: self.drained.load(Relaxed),
            forced: self.forced.load(Relaxed),
            abandoned: 0,
            greetings: self.greetings.totals(),
            sources: self.sources.totals(),
        }
    }

    /// Sets the counters to these totals.
    pub(crate) fn reset(&self, to: &Report) {
        self.accepted.store(to.accepted, Relaxed);
        self.served.store(to.served, Relaxed);
        self.failed.store(to.failed, Relaxed);
        self.panicked.store(to.panicked, Relaxed);
        self.timed_out.store(to.timed_out, Relaxed);
        self.crashed.store(to.crashed, Relaxed);
        self.peer_faults.store(to.peer_faults, Relaxed);
        self.disconnected.store(to.disconnected, Relaxed);
        self.refused.store(to.refused, Relaxed);
        self.accept_errors.store(to.accept_errors, Relaxed);
        self.drained.store(to.drained, Relaxed);
        self.forced.store(to.forced, Relaxed);
        self.greetings.reset(to.greetings);
        self.times.reset();
        self.sources.reset(to.sources);
    }
}

impl Report {
    /// Returns the connections that have ended. Each one ends in one of these counters.
    pub(crate) fn ended(&self) -> u64 {
        [self.served, self.failed, self.disconnected, self.refused].into_iter().fold(0, u64::saturating_add)
    }

    /// True if one process may have counted from `before` to this: it has accepted less than 2^40 connections, and
    /// no more have ended.
    pub(crate) fn may_follow(&self, before: &Report) -> bool {
        let new = |now: u64, before: u64| now.checked_sub(before).is_some_and(|new| new < 1 << 40);
        let parts = [self.panicked, self.timed_out, self.crashed, self.peer_faults, self.drained, self.forced];
        new(self.accepted, before.accepted)
            && new(self.accept_errors, before.accept_errors)
            && (before.ended()..=self.accepted).contains(&self.ended())
            && parts.iter().all(|part| *part <= self.accepted)
    }

    /// Adds two reports. (A worker that was taken over may have written any number.)
    pub(crate) fn and(self, other: Report) -> Report {
        Report {
            accepted: self.accepted.saturating_add(other.accepted),
            served: self.served.saturating_add(other.served),
            failed: self.failed.saturating_add(other.failed),
            panicked: self.panicked.saturating_add(other.panicked),
            timed_out: self.timed_out.saturating_add(other.timed_out),
            crashed: self.crashed.saturating_add(other.crashed),
            peer_faults: self.peer_faults.saturating_add(other.peer_faults),
            disconnected: self.disconnected.saturating_add(other.disconnected),
            refused: self.refused.saturating_add(other.refused),
            accept_errors: self.accept_errors.saturating_add(other.accept_errors),
            drained: self.drained.saturating_add(other.drained),
            forced: self.forced.saturating_add(other.forced),
            abandoned: self.abandoned.saturating_add(other.abandoned),
            greetings: self.greetings.with(other.greetings, u64::saturating_add),
            sources: self.sources.with(other.sources, u64::saturating_add),
        }
    }

    /// Subtracts the totals `before` a run.
    pub(crate) fn since(self, before: Report) -> Report {
        Report {
            accepted: self.accepted.saturating_sub(before.accepted),
            served: self.served.saturating_sub(before.served),
            failed: self.failed.saturating_sub(before.failed),
            panicked: self.panicked.saturating_sub(before.panicked),
            timed_out: self.timed_out.saturating_sub(before.timed_out),
            crashed: self.crashed.saturating_sub(before.crashed),
            peer_faults: self.peer_faults.saturating_sub(before.peer_faults),
            disconnected: self.disconnected.saturating_sub(before.disconnected),
            refused: self.refused.saturating_sub(before.refused),
            accept_errors: self.accept_errors.saturating_sub(before.accept_errors),
            drained: self.drained.saturating_sub(before.drained),
            forced: self.forced.saturating_sub(before.forced),
            abandoned: self.abandoned,
            greetings: self.greetings.with(before.greetings, u64::saturating_sub),
            sources: self.sources.with(before.sources, u64::saturating_sub),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Report;

    #[test]
    fn the_line_of_a_report_leaves_out_what_did_not_happen() {
        assert_eq!(Report::default().to_string(), "accepted 0, served 0");
        let report =
            Report { accepted: 6, served: 2, failed: 3, panicked: 1, crashed: 1, drained: 1, ..Report::default() };
        assert_eq!(report.to_string(), "accepted 6, served 2, failed 3 (panicked 1, crashed 1), drained 1");
        let report = Report { accepted: 2, served: 1, failed: 1, ..Report::default() };
        assert_eq!(report.to_string(), "accepted 2, served 1, failed 1");
    }
}
