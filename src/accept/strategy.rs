//! Where a request runs: the trait that strategies implement.

use std::os::fd::BorrowedFd;

use super::request::{Rejected, Request};
use super::Acceptor;
use crate::error::Result;

/// Where one request runs.
///
/// One method is required, and the trait knows nothing of handlers, so a strategy of your own is a few lines: see
/// `examples/custom_strategy.rs`. The methods are called on the thread that serves.
pub trait ServingStrategy: Send {
    /// Gets the request to run: now, on another thread, in another process. It must come to
    /// [`Request::run`] without waiting for the peer; a request that is dropped instead is refused.
    ///
    /// # Errors
    /// [`Rejected`] hands the request back with the cause, and the server refuses it: counts, reports and closes it.
    /// Where the cause is that the system lacks something (`EAGAIN`, `ENOMEM`, `EMFILE`, …), accepting rests for 100
    /// ms.
    fn process_request(&self, request: Request) -> std::result::Result<(), Rejected>;

    /// Called after every turn of [`Acceptor::run`]: the place to reap children or look after threads (Python's
    /// `service_actions`).
    fn service_actions(&self) {}

    /// A descriptor that makes [`Acceptor::run`] call [`service_actions`](Self::service_actions) when it is readable.
    fn wake_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Accepts until the server stops. By default on the calling thread, which hands every request to
    /// [`process_request`](Self::process_request); a strategy whose workers accept for themselves takes seats instead.
    ///
    /// # Errors
    /// When the listener fails for good, or the strategy cannot begin.
    fn serve(&self, acceptor: &Acceptor) -> Result<()> {
        acceptor.run(self)
    }

    /// The most requests that this strategy can run at once, whatever the limit: by default there is no such number.
    fn capacity(&self) -> usize {
        usize::MAX
    }

    /// How many connections are served at once where the builder sets no limit: by default 1024, or 64 less than
    /// the process may have descriptors. Called when the server is bound, so also the place to refuse settings.
    ///
    /// # Errors
    /// [`Error::Setting`](crate::Error::Setting) for a setting that makes no sense.
    fn max_connections(&self) -> Result<usize> {
        Ok(1024.min(crate::sys::limits::descriptors().saturating_sub(64)).max(1))
    }
}

impl<S: ServingStrategy + ?Sized> ServingStrategy for Box<S> {
    fn process_request(&self, request: Request) -> std::result::Result<(), Rejected> {
        (**self).process_request(request)
    }

    fn service_actions(&self) {
        (**self).service_actions();
    }

    fn wake_fd(&self) -> Option<BorrowedFd<'_>> {
        (**self).wake_fd()
    }

    fn serve(&self, acceptor: &Acceptor) -> Result<()> {
        (**self).serve(acceptor)
    }

    fn capacity(&self) -> usize {
        (**self).capacity()
    }

    fn max_connections(&self) -> Result<usize> {
        (**self).max_connections()
    }
}
