//! [`AcceptError`] sorts failed `accept`s, and [`AcceptBackoff`] says how long accepting rests after them.
//!
//! Failures mean different things. A loop that treats them alike either ends or spins.

use std::io;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use nix::errno::Errno;

/// The meaning of a failed `accept`, or receive, for the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AcceptError {
    /// No failure: another thread was faster, or a signal came.
    Nothing,
    /// Only this connection is gone: go on.
    Gone,
    /// This process has no descriptor left (EMFILE): wait until one of its connections ends.
    NoDescriptor,
    /// The system lacks something (ENFILE, ENOBUFS, ENOMEM), or the error is unknown: wait, then go on.
    System,
    /// The listener has failed for good.
    Fatal,
}

impl AcceptError {
    /// Sorts an error as accept(2) says: pending network errors of the new connection are like `EAGAIN`. So
    /// are the errors of an earlier send of a datagram socket (`ECONNREFUSED`, `ECONNRESET`).
    pub(crate) fn of(e: &io::Error) -> Self {
        match Errno::from_raw(e.raw_os_error().unwrap_or(0)) {
            Errno::EAGAIN | Errno::EINTR => Self::Nothing,
            Errno::ECONNABORTED
            | Errno::EPROTO
            | Errno::ENOPROTOOPT
            | Errno::ENETDOWN
            | Errno::ENETUNREACH
            | Errno::EHOSTDOWN
            | Errno::EHOSTUNREACH
            | Errno::ENONET
            | Errno::EOPNOTSUPP
            | Errno::ETIMEDOUT
            | Errno::ECONNREFUSED
            | Errno::ECONNRESET
            | Errno::EMSGSIZE
            | Errno::EPERM => Self::Gone,
            Errno::EMFILE => Self::NoDescriptor,
            Errno::EBADF | Errno::EINVAL | Errno::ENOTSOCK | Errno::EFAULT => Self::Fatal,
            _ => Self::System,
        }
    }
}

/// The rest if the process lacks descriptors, threads or processes. It ends early if one of our connections
/// ends, since that frees some.
pub(crate) const REST: Duration = Duration::from_millis(100);
/// The first rest if the system lacks something. No event reports the end of that, so each rest is twice as
/// long as the last one, up to the longest.
const FIRST_REST: Duration = Duration::from_millis(5);
pub(crate) const LONGEST_REST: Duration = Duration::from_secs(1);
/// After this number of vanished connections in a row, accepting rests too: a firewall may answer so for
/// ever.
const GONE_IN_A_ROW: u32 = 10;

/// Counts failures in a row. The next accepted connection resets the count.
#[derive(Debug, Default)]
pub(crate) struct AcceptBackoff {
    in_a_row: AtomicU32,
}

impl AcceptBackoff {
    /// Resets the count, because a connection was accepted.
    pub(crate) fn is_over(&self) {
        // A read first: all threads come here for each connection, and a write would move the cache line.
        if self.in_a_row.load(Relaxed) != 0 {
            self.in_a_row.store(0, Relaxed);
        }
    }

    /// Returns how long accepting rests after this error. `None`: it goes on at once.
    pub(crate) fn rest_after(&self, error: AcceptError) -> Option<Duration> {
        // The shift is bounded: ten doublings are more than the longest rest already.
        let growing = |times: u32| LONGEST_REST.min(FIRST_REST * (1 << times.min(10)));
        match error {
            AcceptError::Nothing | AcceptError::Fatal => None,
            AcceptError::NoDescriptor => Some(REST),
            // A rest for each of them would let a client slow down the server. Many in a row are a lasting
            // state.
            AcceptError::Gone => {
                let before = self.in_a_row.fetch_add(1, Relaxed);
                before.checked_sub(GONE_IN_A_ROW).map(growing)
            }
            AcceptError::System => Some(growing(self.in_a_row.fetch_add(1, Relaxed))),
        }
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;

    #[test]
    fn failures_are_sorted_as_accept_2_says() {
        use Errno as E;
        let gone = [
            E::ECONNABORTED,
            E::EPROTO,
            E::ENOPROTOOPT,
            E::ENETDOWN,
            E::ENETUNREACH,
            E::EHOSTDOWN,
            E::EHOSTUNREACH,
            E::ENONET,
            E::EOPNOTSUPP,
            E::ETIMEDOUT,
            E::ECONNREFUSED,
            E::ECONNRESET,
            E::EMSGSIZE,
            E::EPERM,
        ];
        let system = [E::ENFILE, E::ENOBUFS, E::ENOMEM, E::EIO];
        let fatal = [E::EBADF, E::EINVAL, E::ENOTSOCK, E::EFAULT];
        let of = |errno: &Errno| AcceptError::of(&io::Error::from_raw_os_error(*errno as i32));
        [E::EAGAIN, E::EINTR].iter().for_each(|e| assert_eq!(of(e), AcceptError::Nothing, "{e}"));
        gone.iter().for_each(|e| assert_eq!(of(e), AcceptError::Gone, "{e}"));
        assert_eq!(of(&E::EMFILE), AcceptError::NoDescriptor);
        system.iter().for_each(|e| assert_eq!(of(e), AcceptError::System, "{e}"));
        fatal.iter().for_each(|e| assert_eq!(of(e), AcceptError::Fatal, "{e}"));
    }

    #[test]
    fn rests_grow_to_a_second_and_begin_anew_after_a_connection() {
        let trouble = AcceptBackoff::default();
        let millis = |error| trouble.rest_after(error).map(|t| t.as_millis());
        let grown: Vec<_> = (0..10).filter_map(|_| millis(AcceptError::System)).collect();
        assert_eq!(grown, [5, 10, 20, 40, 80, 160, 320, 640, 1000, 1000]);
        trouble.is_over();
        assert_eq!(millis(AcceptError::System), Some(5));
    }

    #[test]
    fn connections_that_are_gone_cost_no_rest_until_there_are_many_in_a_row() {
        let trouble = AcceptBackoff::default();
        let millis = || trouble.rest_after(AcceptError::Gone).map(|t| t.as_millis());
        assert!((0..10).all(|_| millis().is_none()));
        assert_eq!((millis(), millis()), (Some(5), Some(10)));
        trouble.is_over();
        assert_eq!(millis(), None);
    }

    #[test]
    fn a_lack_of_descriptors_does_not_grow() {
        let trouble = AcceptBackoff::default();
        assert!((0..20).all(|_| trouble.rest_after(AcceptError::NoDescriptor) == Some(REST)));
    }
}
