//! [`Waker`].

use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::Arc;

use crate::sys::EventFd;

/// Ends the wait of a [`Selector`](super::Selector), from any thread or from a signal handler.
///
/// ```
/// use std::{thread, time::Duration};
/// use socketserver::selectors::Selector;
///
/// let mut selector = Selector::<()>::new()?;
/// let waker = selector.waker();
/// let other = thread::spawn(move || waker.wake());
/// assert!(selector.select(None)?.is_empty());     // would wait for ever
/// other.join().unwrap();
/// # Ok::<(), socketserver::selectors::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Waker(Arc<EventFd>);

impl Waker {
    pub(super) fn new() -> std::io::Result<Self> {
        EventFd::new().map(|event| Self(Arc::new(event)))
    }

    /// Makes the present `select`, or the next one, return at once, with the descriptors that are ready.
    /// Several calls before that count as one. It never blocks and is async-signal-safe. After the selector
    /// was dropped it does nothing.
    pub fn wake(&self) {
        self.0.set();
    }

    pub(super) fn clear(&self) {
        self.0.clear();
    }

    pub(super) fn fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}
