//! [`FailingListener`]: a listener whose failures a test sets (feature `testing`).

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use parking_lot::Mutex;

/// A listener whose next accepts fail with given errors, for tests of a server on a failing system. Give it
/// to [`ServerBuilder::from_listener`](crate::ServerBuilder::from_listener), with any strategy. A failure
/// comes when a client has connected, because the server accepts only then.
///
/// ```
/// use socketserver::testing::{FailingListener, TestServer};
/// use socketserver::{handler, ServerBuilder};
///
/// let (listener, failures) = FailingListener::bind("127.0.0.1:0")?;
/// failures.add([24]);                                    // EMFILE: no descriptor left
/// let hello = handler(|conn| conn.send_line("served all the same"));
/// let server = TestServer::of(ServerBuilder::new().from_listener(listener, hello)?);
/// assert_eq!(server.connect().line(), "served all the same");
/// assert_eq!(failures.left(), 0);
/// assert_eq!(server.stop().accept_errors, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct FailingListener {
    listener: TcpListener,
    failures: Failures,
}

impl FailingListener {
    /// Listens on an address; port 0 is any free port. The second value sets the failures.
    ///
    /// # Errors
    /// If the address cannot be bound.
    pub fn bind(address: &str) -> io::Result<(Self, Failures)> {
        let failures = Failures::default();
        Ok((Self { listener: TcpListener::bind(address)?, failures: failures.clone() }, failures))
    }

    /// Returns the address that it listens on.
    ///
    /// # Errors
    /// If getsockname(2) fails.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    pub(super) fn into_parts(self) -> (TcpListener, Failures) {
        (self.listener, self.failures)
    }
}

/// The coming failures of a [`FailingListener`]. Clones share one list.
#[derive(Debug, Clone, Default)]
pub struct Failures(Arc<Mutex<VecDeque<i32>>>);

impl Failures {
    /// Appends failures by their error numbers: one for each accept, in this order. They come before each client that
    /// connects afterwards.
    pub fn add(&self, errnos: impl IntoIterator<Item = i32>) {
        self.0.lock().extend(errnos);
    }

    /// Removes the failures that have not come yet.
    pub fn clear(&self) {
        self.0.lock().clear();
    }

    /// Returns the number of failures that have not come yet.
    pub fn left(&self) -> usize {
        self.0.lock().len()
    }

    /// Fails as it was told, or accepts. [`add`](Self::add) waits meanwhile: what it adds comes before each client that
    /// connects afterwards.
    pub(super) fn or<T>(&self, accept: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let mut failures = self.0.lock();
        match failures.pop_front() {
            Some(errno) => Err(io::Error::from_raw_os_error(errno)),
            None => accept(),
        }
    }
}
