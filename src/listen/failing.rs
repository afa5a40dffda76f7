//! A listener that fails as a test says (feature `testing`).

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use parking_lot::Mutex;

/// A listener whose next accepts fail as ordered, before they accept for real: for tests of what a server does when the
/// system fails it. It goes to [`ServerBuilder::from_listener`](crate::ServerBuilder::from_listener), with any strategy;
/// a failure comes when a client has connected, since the server accepts only then.
///
/// ```
/// use socketserver::testing::{FailingListener, TestServer};
/// use socketserver::{handler, ServerBuilder};
///
/// let (listener, failures) = FailingListener::bind("127.0.0.1:0")?;
/// failures.add([24]);                                    // EMFILE: no descriptor left
/// let hello = handler(|conn| Ok(std::io::Write::write_all(conn, b"served all the same\n")?));
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
    /// Listens on an address; port 0 is any free one. The failures are ordered through the other value.
    ///
    /// # Errors
    /// Where the address cannot be had.
    pub fn bind(address: &str) -> io::Result<(Self, Failures)> {
        let failures = Failures::default();
        Ok((Self { listener: TcpListener::bind(address)?, failures: failures.clone() }, failures))
    }

    /// Where it listens.
    ///
    /// # Errors
    /// As getsockname(2) fails.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    pub(super) fn into_parts(self) -> (TcpListener, Failures) {
        (self.listener, self.failures)
    }
}

/// The failures that a [`FailingListener`] has still before it. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Failures(Arc<Mutex<VecDeque<i32>>>);

impl Failures {
    /// Orders failures, by their error numbers: one for each accept, in this order, after those ordered before.
    pub fn add(&self, errnos: impl IntoIterator<Item = i32>) {
        self.0.lock().extend(errnos);
    }

    /// Takes back those that have not come yet.
    pub fn clear(&self) {
        self.0.lock().clear();
    }

    /// How many have not come yet.
    pub fn left(&self) -> usize {
        self.0.lock().len()
    }

    pub(super) fn next(&self) -> Option<i32> {
        self.0.lock().pop_front()
    }
}
