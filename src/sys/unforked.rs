//! [`Unforked`]: values of a parent that its forked children do not have (`MADV_DONTFORK`).
//!
//! What a parent notes of each child would else lie in pages that the fork has copied: both processes pay for each page
//! that is written next.

use std::io;
use std::num::NonZeroUsize;
use std::ptr::NonNull;

use nix::sys::mman::{madvise, mmap_anonymous, munmap, MapFlags, MmapAdvise, ProtFlags};

use super::fork;

/// A fixed number of places, which are empty at first. A process that is forked while they live finds none.
#[derive(Debug)]
pub(crate) struct Unforked<T> {
    at: NonNull<Option<T>>,
    count: usize,
    /// The mark of the process that has them.
    owner: u64,
}

impl<T> Unforked<T> {
    pub(crate) fn new(count: usize) -> io::Result<Self> {
        let length = length_of::<T>(count)?;
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping that nothing else uses; the kernel picks the place.
        let memory = unsafe { mmap_anonymous(None, length, access, MapFlags::MAP_PRIVATE) }?;
        let at: NonNull<Option<T>> = memory.cast();
        for place in 0..count {
            // SAFETY: the mapping is page-aligned, and long enough for `count` values. Nobody else knows of it yet.
            unsafe { at.as_ptr().add(place).write(None) };
        }
        let places = Self { at, count, owner: fork::this_process() };
        // SAFETY: the mapping is ours alone; the advice changes nothing in this process.
        unsafe { madvise(memory, length.get(), MmapAdvise::MADV_DONTFORK) }?;
        Ok(places)
    }

    pub(crate) fn places(&self) -> &[Option<T>] {
        let count = if fork::has_not_forked_since(self.owner) { self.count } else { 0 };
        // SAFETY: `new` has written this number of values, and they live as long as `self`. A forked process, where they are not
        // mapped, gets none of them.
        unsafe { std::slice::from_raw_parts(self.at.as_ptr(), count) }
    }

    pub(crate) fn places_mut(&mut self) -> &mut [Option<T>] {
        let count = if fork::has_not_forked_since(self.owner) { self.count } else { 0 };
        // SAFETY: as above; `self` is borrowed alone.
        unsafe { std::slice::from_raw_parts_mut(self.at.as_ptr(), count) }
    }
}

impl<T> Drop for Unforked<T> {
    fn drop(&mut self) {
        self.places_mut().iter_mut().for_each(|place| drop(place.take()));
        // In a forked process something else may be mapped there.
        if let Some(length) = length_of::<T>(self.count).ok().filter(|_| fork::has_not_forked_since(self.owner)) {
            // SAFETY: this is the mapping that `new` made, and no reference outlives `self`.
            let _ = unsafe { munmap(self.at.cast(), length.get()) };
        }
    }
}

fn length_of<T>(count: usize) -> io::Result<NonZeroUsize> {
    let bytes = count.checked_mul(std::mem::size_of::<Option<T>>()).and_then(NonZeroUsize::new);
    Ok(bytes.ok_or(io::ErrorKind::InvalidInput)?)
}

// SAFETY: it owns its values, as a Vec does.
unsafe impl<T: Send> Send for Unforked<T> {}
// SAFETY: it gives out shared references by shared references only.
unsafe impl<T: Sync> Sync for Unforked<T> {}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn what_is_left_in_a_place_is_dropped_once() {
        let value = Arc::new(7);
        let mut places = Unforked::new(100).unwrap();
        assert!(places.places().iter().all(Option::is_none));
        places.places_mut()[99] = Some(value.clone());
        places.places_mut()[0] = Some(value.clone());
        assert_eq!((places.places().len(), Arc::strong_count(&value)), (100, 3));
        assert!(places.places_mut()[0].take().is_some());
        drop(places);
        assert_eq!(Arc::strong_count(&value), 1);
    }

    #[test]
    fn another_process_finds_no_place() {
        let mut places = Unforked::<u8>::new(8).unwrap();
        let owner = std::mem::replace(&mut places.owner, fork::this_process() ^ 1 << 40);
        assert!(places.places().is_empty() && places.places_mut().is_empty());
        places.owner = owner;
        assert_eq!(places.places().len(), 8);
    }
}
