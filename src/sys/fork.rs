//! Which process this is, and how often it has forked: for values that a fork copies, and that only one process may
//! act on.
//!
//! A process number alone is no answer. The kernel gives it to another process later, perhaps to a descendant that
//! has a copy of the value. So a process is marked in memory that the kernel wipes in each child
//! ([`wiped`](super::wiped)).

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::Once;
use std::time::{SystemTime, UNIX_EPOCH};

use nix::libc;

use super::wiped::{self, books};

/// The lowest bits of a mark are the process number: Linux has none above 2^22.
const OF_THE_NUMBER: u64 = (1 << 22) - 1;

/// Returns the mark of this process. No process that came from it, or that it came from, has the same.
pub(crate) fn this_process() -> u64 {
    // If the system wipes no memory, a reused process number deceives.
    let mark = &books().mark;
    loop {
        let found = mark.load(SeqCst);
        if is_ours(found) {
            return found;
        }
        let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos() as u64);
        let new = nanos << OF_THE_NUMBER.count_ones() | number();
        let _ = mark.compare_exchange(found, new, SeqCst, SeqCst);
    }
}

/// True if this is the process with this mark. Async-signal-safe once a mark has been made.
pub(crate) fn is_this_process(mark: u64) -> bool {
    is_ours(mark) && books().mark.load(SeqCst) == mark
}

/// As [`is_this_process`], mostly without a system call: for what is asked often.
pub(crate) fn has_not_forked_since(mark: u64) -> bool {
    if wiped::are_wiped() {
        books().mark.load(SeqCst) == mark
    } else {
        is_this_process(mark)
    }
}

fn is_ours(mark: u64) -> bool {
    mark & OF_THE_NUMBER == number()
}

fn number() -> u64 {
    u64::from(std::process::id()) & OF_THE_NUMBER
}

static FORKS: AtomicU64 = AtomicU64::new(0);

/// Returns the number of forks so far, of this process and of those that it came from. They are counted from the first
/// call on. A program that is started by `posix_spawn` does not count: it keeps nothing of this process.
pub(crate) fn forks() -> u64 {
    extern "C" fn count() {
        FORKS.fetch_add(1, SeqCst);
    }
    static COUNTED: Once = Once::new();
    COUNTED.call_once(|| {
        // Before the fork, so that both processes have counted it.
        // SAFETY: the function may be called at any fork: it changes an atomic.
        let _ = unsafe { libc::pthread_atfork(Some(count), None, None) };
    });
    FORKS.load(SeqCst)
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_one_mark_and_is_known_by_it() {
        let mark = this_process();
        assert_eq!(mark, this_process());
        assert!(is_this_process(mark));
        assert!(!is_this_process(mark ^ 1 << 40), "the same number at another time");
        assert!(!is_this_process(0));
        assert!(has_not_forked_since(mark) && !has_not_forked_since(mark ^ 1 << 40));
    }
}
