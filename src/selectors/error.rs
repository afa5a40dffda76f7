//! [`Error`]: the errors of a selector.

use std::fmt;
use std::io;
use std::os::fd::RawFd;

use nix::errno::Errno;

use crate::sys::watch::SELECT_LIMIT;

/// A result with a selector's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a selector refuses a call, or cannot go on. It displays as one line that says what to do. It converts
/// into [`io::Error`], so `?` works in functions that return one.
///
/// It is a type of its own, because a program reacts differently to each: one kind of `io::Error` would stand
/// for several.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The events were empty ([`Events::empty`](super::Events::empty)). As an [`io::Error`]: `InvalidInput`.
    NoEvents {
        /// The descriptor.
        fd: RawFd,
    },
    /// The number is registered already. As an [`io::Error`]: `AlreadyExists`.
    Registered {
        /// The descriptor.
        fd: RawFd,
    },
    /// The number is not registered. As an [`io::Error`]: `NotFound`.
    NotRegistered {
        /// The descriptor.
        fd: RawFd,
    },
    /// The registered descriptor has been closed. Another file may have its number now. As an [`io::Error`]:
    /// `NotFound`.
    Closed {
        /// Its former number.
        fd: RawFd,
    },
    /// A regular file, a folder, or another file without readiness. As an [`io::Error`]: `Unsupported`.
    NotPollable {
        /// The descriptor.
        fd: RawFd,
    },
    /// [`Backend::Select`](super::Backend::Select) cannot watch this number. As an [`io::Error`]:
    /// `InvalidInput`.
    TooLarge {
        /// The descriptor.
        fd: RawFd,
    },
    /// The system refused. As an [`io::Error`]: the kind of the source.
    System {
        /// The act that failed: make a selector, register, modify, wait.
        act: &'static str,
        /// The descriptor, if the act was about one.
        fd: Option<RawFd>,
        /// The system's answer.
        source: io::Error,
    },
}

impl Error {
    pub(super) fn system(act: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { act, fd: None, source }
    }

    /// Returns the error for an entry that the kernel does not take.
    pub(super) fn of_registering(fd: RawFd, errno: Errno) -> Self {
        match errno {
            Errno::EPERM => Self::NotPollable { fd },
            _ => Self::System { act: "register", fd: Some(fd), source: errno.into() },
        }
    }

    /// Returns the error for an entry that the kernel does not change.
    pub(super) fn of_modifying(fd: RawFd, errno: Errno) -> Self {
        match errno {
            // The number is free, or it belongs to another file now.
            Errno::EBADF | Errno::ENOENT | Errno::EPERM => Self::Closed { fd },
            _ => Self::System { act: "modify", fd: Some(fd), source: errno.into() },
        }
    }

    fn kind(&self) -> io::ErrorKind {
        match self {
            Self::NoEvents { .. } | Self::TooLarge { .. } => io::ErrorKind::InvalidInput,
            Self::Registered { .. } => io::ErrorKind::AlreadyExists,
            Self::NotRegistered { .. } | Self::Closed { .. } => io::ErrorKind::NotFound,
            Self::NotPollable { .. } => io::ErrorKind::Unsupported,
            Self::System { source, .. } => source.kind(),
        }
    }
}

/// Returns a hint for people.
fn hint(source: &io::Error) -> &'static str {
    match Errno::from_raw(source.raw_os_error().unwrap_or(0)) {
        Errno::EBADF => "it is not open for reading or writing; register before it is closed",
        Errno::EMFILE => "raise RLIMIT_NOFILE (ulimit -n), or close descriptors",
        Errno::ENFILE => "raise fs.file-max, or close descriptors",
        Errno::ENOSPC => "raise fs.epoll.max_user_watches, or unregister descriptors",
        Errno::ENOMEM => "the kernel lacks memory; try again later",
        Errno::ELOOP | Errno::EINVAL => "a selector cannot watch itself, nor selectors nest more than five deep",
        _ => "see the system's answer",
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoEvents { fd } => {
                write!(f, "cannot watch descriptor {fd} for nothing: name READ or WRITE, or unregister it")
            }
            Self::Registered { fd } => write!(
                f,
                "cannot register descriptor {fd}: it is registered already; modify it, or, if it has been \
                 closed, unregister it first"
            ),
            Self::NotRegistered { fd } => write!(f, "descriptor {fd} is not registered; register it first"),
            Self::Closed { fd } => write!(
                f,
                "cannot modify descriptor {fd}: it has been closed since it was registered, and is registered no \
                 more; register what has its number now"
            ),
            Self::NotPollable { fd } => write!(
                f,
                "cannot register descriptor {fd}: a file of its kind (os error 1) cannot be waited for; read and write \
                 it directly, it never keeps you waiting for a peer"
            ),
            Self::TooLarge { fd } => write!(
                f,
                "cannot register descriptor {fd}: select takes only those below {SELECT_LIMIT}; use Backend::Epoll or \
                 Backend::Poll"
            ),
            Self::System { act, fd: Some(fd), source } => {
                write!(f, "cannot {act} descriptor {fd}: {source}; {}", hint(source))
            }
            Self::System { act, fd: None, source } => write!(f, "cannot {act}: {source}; {}", hint(source)),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::System { source, .. } => Some(source),
            _ => None,
        }
    }
}

impl From<Error> for io::Error {
    fn from(e: Error) -> Self {
        Self::new(e.kind(), e)
    }
}
