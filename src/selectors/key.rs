//! [`Key`], a registered descriptor, and [`Ready`], a ready one.

use std::os::fd::{AsRawFd, RawFd};

use crate::sys::Events;

/// A registered descriptor (Python's `SelectorKey`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Key<T> {
    /// The descriptor's number.
    pub fd: RawFd,
    /// The events that it is watched for.
    pub events: Events,
    /// The program's data.
    pub data: T,
    /// Differs for each registration of the same number. A pass may close a descriptor and register another
    /// under its number; what was reported for the first must not be taken for the second.
    pub(super) serial: u32,
}

impl<T> AsRawFd for Key<T> {
    fn as_raw_fd(&self) -> RawFd {
        self.fd
    }
}

/// A ready descriptor, from [`Selector::select_into`](super::Selector::select_into).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ready {
    /// The descriptor's number.
    pub fd: RawFd,
    /// The events that it is ready for, among those that it is watched for.
    pub events: Events,
    pub(super) serial: u32,
}

impl AsRawFd for Ready {
    fn as_raw_fd(&self) -> RawFd {
        self.fd
    }
}
