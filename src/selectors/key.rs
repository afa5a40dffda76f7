//! What is registered, and what is ready.

use std::os::fd::{AsRawFd, RawFd};

use crate::sys::Events;

/// A registered descriptor (Python's `SelectorKey`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Key<T> {
    /// The descriptor's number.
    pub fd: RawFd,
    /// What it is watched for.
    pub events: Events,
    /// What the program has attached to it.
    pub data: T,
    /// Tells a registration from an earlier or a later one of the same number.
    pub(super) serial: u32,
}

impl<T> AsRawFd for Key<T> {
    fn as_raw_fd(&self) -> RawFd {
        self.fd
    }
}

/// A descriptor that is ready, as [`Selector::select_into`](super::Selector::select_into) tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ready {
    /// The descriptor's number.
    pub fd: RawFd,
    /// What it is ready for, of what it is watched for.
    pub events: Events,
    pub(super) serial: u32,
}

impl AsRawFd for Ready {
    fn as_raw_fd(&self) -> RawFd {
        self.fd
    }
}
