//! Descriptors that the program was started with.

use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::fcntl::{fcntl, FcntlArg, FdFlag};
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::SockType;

/// The first descriptor that `LISTEN_FDS` counts (sd_listen_fds(3)).
pub(crate) const FIRST: RawFd = 3;

/// The lowest number for a duplicate: it must not take the number of a descriptor that is taken later.
const ABOVE: RawFd = 10;

/// Takes a descriptor that `LISTEN_FDS` gives to this process. Programs that are started later do not inherit
/// it. The caller takes each number at most once, and only numbers that `LISTEN_FDS` counts.
///
/// # Errors
/// `EBADF` if it is not open.
pub(crate) fn take(number: RawFd) -> io::Result<OwnedFd> {
    close_on_exec(number)?;
    // SAFETY: the descriptor is open. By the protocol of LISTEN_FDS it belongs to this process and to nothing
    // else in it, and the caller takes it once.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// As [`take`], for a socket. Any other descriptor of this number stays as it is: it is not what was meant, and may be
/// the program's own.
///
/// # Errors
/// `EBADF` if it is not open, `ENOTSOCK` if it is no socket.
pub(crate) fn take_socket(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: the number is lent to one call, which fails if it is not open.
    getsockopt(&unsafe { BorrowedFd::borrow_raw(number) }, SockType)?;
    take(number)
}

/// Duplicates a descriptor that the user names by its number. The original stays open, since other code of
/// the program may own it.
///
/// # Errors
/// `EBADF` if it is not open.
pub(crate) fn duplicate(number: RawFd) -> io::Result<OwnedFd> {
    // Programs that are started keep the standard streams.
    if number >= FIRST {
        close_on_exec(number)?;
    }
    // SAFETY: the number is lent to one call, which fails if it is not open.
    let lent = unsafe { BorrowedFd::borrow_raw(number) };
    let copy = fcntl(lent, FcntlArg::F_DUPFD_CLOEXEC(ABOVE))?;
    // SAFETY: fcntl has just made this descriptor, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

fn close_on_exec(number: RawFd) -> io::Result<()> {
    // SAFETY: the number is lent to one call, which fails if it is not open.
    let lent = unsafe { BorrowedFd::borrow_raw(number) };
    fcntl(lent, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    Ok(())
}
