//! [`Books`]: what this process keeps of its children, in memory that each child finds empty (`MADV_WIPEONFORK`).
//!
//! A child does not need it, and it changes with each fork. In other memory, each change after a fork would copy a
//! page, which costs the parent more than the rest of its work.

use std::num::NonZeroUsize;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicI32, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::OnceLock;

use nix::sys::mman::{madvise, mmap_anonymous, MapFlags, MmapAdvise, ProtFlags};

/// The books of a process. Atomics only, and zeroed at first.
pub(super) struct Books {
    /// The mark of this process, see [`fork`](super::fork).
    pub(super) mark: AtomicU64,
    /// The children that a second signal takes along. 0: none.
    pub(super) children: [AtomicI32; 1024],
    pub(super) pidfds: Numbers,
}

/// They are here if the system gives no memory, or cannot wipe it. Then a child must forget what is its parent's.
static WITHOUT_MEMORY: Books = Books {
    mark: AtomicU64::new(0),
    children: [const { AtomicI32::new(0) }; 1024],
    pidfds: Numbers { words: AtomicUsize::new(0), bits: [const { AtomicU64::new(0) }; WORDS] },
};

static BOOKS: OnceLock<&'static Books> = OnceLock::new();

/// Returns the books of this process. Async-signal-safe once it has been called.
pub(super) fn books() -> &'static Books {
    BOOKS.get_or_init(|| wiped().unwrap_or(&WITHOUT_MEMORY))
}

/// True if a child finds them empty.
pub(super) fn are_wiped() -> bool {
    !std::ptr::eq(books(), &WITHOUT_MEMORY)
}

/// In a child, forgets the descriptors of its parent, if the system has not.
#[inline(always)]
pub(super) fn forget_pidfds() {
    // Wiped memory is not even looked at: that alone would take a page of it.
    if !are_wiped() {
        WITHOUT_MEMORY.pidfds.clear();
    }
}

fn wiped() -> Option<&'static Books> {
    let length = NonZeroUsize::new(std::mem::size_of::<Books>())?;
    let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    // SAFETY: a new mapping that nothing else uses, and that is never unmapped; the kernel picks the place.
    let memory = unsafe { mmap_anonymous(None, length, access, MapFlags::MAP_PRIVATE) }.ok()?;
    // SAFETY: the mapping is ours alone. Without the advice (before Linux 4.14) it would be copied as any other.
    unsafe { madvise(memory, length.get(), MmapAdvise::MADV_WIPEONFORK) }.ok()?;
    // SAFETY: it is page-aligned, zeroed (a value of atomics) and long enough, and lives as long as the process.
    Some(unsafe { memory.cast().as_ref() })
}

const WORDS: usize = 1024;
/// As many runs of numbers take no memory but the stack's.
const FEW: usize = 16;

/// A set of descriptors, as bits.
pub(super) struct Numbers {
    /// As many words may have bits.
    words: AtomicUsize,
    bits: [AtomicU64; WORDS],
}

impl Numbers {
    /// Adds a number. False if there is no place for it.
    pub(super) fn add(&self, fd: RawFd) -> bool {
        let number = fd as usize;
        let Some(word) = self.bits.get(number / 64) else { return false };
        word.fetch_or(1 << (number % 64), SeqCst);
        self.words.fetch_max(number / 64 + 1, SeqCst);
        true
    }

    pub(super) fn remove(&self, fd: RawFd) {
        let number = fd as usize;
        if let Some(word) = self.bits.get(number / 64) {
            word.fetch_and(!(1 << (number % 64)), SeqCst);
        }
    }

    /// Returns the numbers as they are now.
    pub(super) fn runs(&self) -> Runs {
        let mut runs = Runs { few: [(0, -1); FEW], count: 0, more: Vec::new() };
        for (place, word) in self.bits[..self.words.load(SeqCst)].iter().enumerate() {
            let mut bits = word.load(SeqCst);
            while bits != 0 {
                let first = bits.trailing_zeros();
                let length = (!(bits >> first)).trailing_zeros().min(64 - first);
                let from = place as RawFd * 64 + first as RawFd;
                runs.push(from, from + length as RawFd - 1);
                bits &= u64::MAX.checked_shl(first + length).unwrap_or(0);
            }
        }
        runs
    }

    /// Forgets all.
    fn clear(&self) {
        self.bits[..self.words.load(SeqCst)].iter().for_each(|word| word.store(0, SeqCst));
    }
}

/// Numbers from the first to the last, for a child. Most are on the stack, which it has anyhow.
pub(super) struct Runs {
    few: [(RawFd, RawFd); FEW],
    count: usize,
    more: Vec<(RawFd, RawFd)>,
}

impl Runs {
    fn push(&mut self, first: RawFd, last: RawFd) {
        let before = match self.more.last_mut() {
            None => self.few[..self.count].last_mut(),
            more => more,
        };
        match before {
            Some((_, end)) if *end + 1 == first => *end = last,
            _ if self.count < FEW => {
                self.few[self.count] = (first, last);
                self.count += 1;
            }
            _ => self.more.push((first, last)),
        }
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (RawFd, RawFd)> + '_ {
        self.few[..self.count].iter().chain(&self.more).copied()
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_one_run_over_the_ends_of_words() {
        let numbers = Numbers { words: AtomicUsize::new(0), bits: [const { AtomicU64::new(0) }; WORDS] };
        let runs = |numbers: &Numbers| numbers.runs().all().collect::<Vec<_>>();
        assert_eq!(runs(&numbers), []);
        (60..=200).for_each(|fd| assert!(numbers.add(fd)));
        assert!(numbers.add(3) && numbers.add(1000) && !numbers.add(64 * WORDS as RawFd));
        assert_eq!(runs(&numbers), [(3, 3), (60, 200), (1000, 1000)]);
        numbers.remove(63);
        numbers.remove(128);
        assert_eq!(runs(&numbers), [(3, 3), (60, 62), (64, 127), (129, 200), (1000, 1000)]);
        (2000..2100).step_by(2).for_each(|fd| assert!(numbers.add(fd)));
        assert_eq!(runs(&numbers).len(), 55, "beyond what the stack holds");
        numbers.clear();
        assert_eq!(runs(&numbers), []);
    }
}
