//! [`ServingStrategy`], the trait that says where a request runs.

use std::os::fd::BorrowedFd;

use super::request::{Rejected, Request};
use super::Acceptor;
use crate::error::Result;

/// A strategy says where one request runs.
///
/// One method is required. The trait knows nothing of handlers, because a [`Request`] carries its own. So a
/// strategy of your own is a few lines, see `examples/custom_strategy.rs`. The methods are called on the
/// thread in `serve_forever`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no strategy that serves a request at a time",
    label = "not a `ServingStrategy`",
    note = "those are `Sequential`, `Threading::new()`, `ThreadPool::new(16)` and `Forking::new()`",
    note = "an event loop receives datagrams by `Reactor::listen_udp`"
)]
pub trait ServingStrategy: Send {
    /// Runs the request: now, on another thread, or in another process. It must call [`Request::run`] without
    /// a wait for the peer first. A request that is dropped instead is refused, so no client is lost
    /// silently.
    ///
    /// # Errors
    /// [`Rejected`] hands the request back with the cause. The server refuses it: it counts, reports and
    /// closes it. If the cause is a lack of the system (`EAGAIN`, `ENOMEM`, `EMFILE`, …), accepting rests for
    /// 100 ms.
    fn process_request(&self, request: Request) -> std::result::Result<(), Rejected>;

    /// Called after every turn of [`Acceptor::run`]. Reap children or look after threads here. It is Python's
    /// `service_actions`.
    fn service_actions(&self) {}

    /// Returns a descriptor that ends the wait of [`Acceptor::run`] when it is readable. `run` then calls
    /// [`service_actions`](Self::service_actions). By default there is none.
    fn wake_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Accepts until the server stops. By default it accepts on the calling thread and hands every request to
    /// [`process_request`](Self::process_request). A strategy whose threads accept themselves takes seats
    /// instead.
    ///
    /// # Errors
    /// If the last listener fails for good, or the strategy cannot begin.
    fn serve(&self, acceptor: &Acceptor) -> Result<()> {
        acceptor.run(self)
    }

    /// Returns the most requests that this strategy can run at once, whatever the limit is. By default
    /// `usize::MAX`. With fewer, a server is bound only if it may open a descriptor for each connection.
    fn capacity(&self) -> usize {
        usize::MAX
    }

    /// True if connections of a handler that serves request by request ([`per_request`](crate::per_request)) are parked
    /// between two requests: without a thread, until input comes. A [`Seat`](super::Seat) then also gives connections
    /// that came before, as a [`Request`] whose [`run`](Request::run) returns when the connection has ended or is
    /// parked again. By default `false`: `run` returns when the connection has ended.
    fn parks(&self) -> bool {
        false
    }

    /// Returns the descriptors that it needs besides one for each connection.
    #[doc(hidden)]
    fn descriptors(&self) -> usize {
        0
    }

    /// Returns the connection limit if the builder sets none. By default 1024, or `RLIMIT_NOFILE` less 64,
    /// whichever is lower. It is called when the server is bound, so it may also refuse settings.
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

    fn parks(&self) -> bool {
        (**self).parks()
    }

    fn descriptors(&self) -> usize {
        (**self).descriptors()
    }

    fn max_connections(&self) -> Result<usize> {
        (**self).max_connections()
    }
}
