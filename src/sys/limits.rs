//! Limits that the system sets this process.

use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use nix::libc::{fcntl, rlim_t, F_GETFD};
use nix::sys::resource::{getrlimit, setrlimit, Resource, RLIM_INFINITY};

use super::number::clamped;

/// The soft limit as it was before it was raised; zero while it has not been.
static BEFORE: AtomicU64 = AtomicU64::new(0);

/// How many descriptors this process may have open (`RLIMIT_NOFILE`, the soft limit).
pub(crate) fn descriptors() -> usize {
    getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| usize::try_from(soft).unwrap_or(usize::MAX))
}

/// Raises the soft limit so far, or as far as the hard one allows.
pub(crate) fn raise_descriptors(wanted: usize) -> io::Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let raised = clamped(wanted, rlim_t::MAX).min(hard);
    if raised > soft {
        setrlimit(Resource::RLIMIT_NOFILE, raised, hard)?;
        let _ = BEFORE.compare_exchange(0, clamped(soft, u64::MAX), SeqCst, SeqCst);
    }
    Ok(())
}

/// In a forked child: the soft limit that the process was started with, where it has been raised.
pub(crate) fn restore_descriptors() -> io::Result<()> {
    match BEFORE.load(SeqCst) {
        0 => Ok(()),
        soft => {
            let hard = getrlimit(Resource::RLIMIT_NOFILE)?.1;
            Ok(setrlimit(Resource::RLIMIT_NOFILE, clamped(soft, rlim_t::MAX), hard)?)
        }
    }
}

/// Returns how many descriptors this process may still open, and counts no further than `enough`.
pub(crate) fn free_descriptors(enough: usize) -> usize {
    // The limit is one on their numbers, so the free numbers below it count. /proc may be missing.
    let end = RawFd::try_from(descriptors()).unwrap_or(RawFd::MAX);
    // SAFETY: fcntl with F_GETFD takes two integers, and changes nothing.
    let is_free = |fd: &RawFd| unsafe { fcntl(*fd, F_GETFD) } == -1;
    (0..end).filter(is_free).take(enough).count()
}

/// Sets a limit of this process. One beyond what the system can count is none.
pub(crate) fn set_limit(resource: Resource, soft: u64, hard: u64) -> io::Result<()> {
    Ok(setrlimit(resource, clamped(soft, RLIM_INFINITY), clamped(hard, RLIM_INFINITY))?)
}
