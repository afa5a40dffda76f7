//! [`Apart`] and [`Window`]: memory of a parent. Each forked child sees one part of it.
//!
//! A child must neither read nor write what its siblings tell their parent. It could unmap that memory, but to change
//! its mappings is the dearest thing that a young process can do. So the parent's mapping is not forked at all
//! (`MADV_DONTFORK`). The parent has a second mapping, the window, and moves it to another part before each fork.

use std::io;
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::Arc;

use nix::sys::mman::{madvise, mmap_anonymous, mremap, munmap, MRemapFlags, MapFlags, MmapAdvise, ProtFlags};

use super::fork;
use super::shared::{pages, OnPages, Shareable, Shared, SharedRef};

/// A value that this process shares with no other, except for the part that a [`Window`] shows. Zeroed at first.
///
/// A process that is forked while it lives does not have it. Such a process may not use it: it may only drop it.
#[derive(Debug)]
pub(crate) struct Apart<T: Shareable> {
    at: NonNull<T>,
    /// The mark of the process that has it.
    owner: u64,
}

impl<T: Shareable + 'static> Apart<T> {
    pub(crate) fn new() -> io::Result<Self> {
        let (length, access) = (Shared::<T>::length(), ProtFlags::PROT_READ | ProtFlags::PROT_WRITE);
        // Populated at once: else parent and child have a fault each for every page.
        let flags = MapFlags::MAP_SHARED | MapFlags::MAP_POPULATE;
        // SAFETY: a new mapping that nothing else uses; the kernel picks the place.
        let memory = unsafe { mmap_anonymous(None, length, access, flags) }?;
        let apart = Self { at: memory.cast(), owner: fork::this_process() };
        // SAFETY: the mapping is ours alone; the advice changes nothing in this process.
        unsafe { madvise(memory, length.get(), MmapAdvise::MADV_DONTFORK) }?;
        Ok(apart)
    }

    /// Returns a part, which keeps the whole.
    pub(crate) fn part<P: Sync>(self: &Arc<Self>, part: impl FnOnce(&T) -> &P) -> SharedRef<P> {
        SharedRef::within(self, NonNull::from(part(self)))
    }
}

impl<T: Shareable> Deref for Apart<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the mapping is as long as T, page-aligned, zeroed (a value, says the trait), and lives as long as
        // `self`. It holds atomics only. In a forked process it is not there: an access ends that process.
        unsafe { self.at.as_ref() }
    }
}

impl<T: Shareable> Drop for Apart<T> {
    fn drop(&mut self) {
        // In a forked process something else may be mapped at this place.
        if fork::is_this_process(self.owner) {
            // SAFETY: this is the mapping that `new` made, and no reference outlives `self`.
            let _ = unsafe { munmap(self.at.cast(), Shared::<T>::length().get()) };
        }
    }
}

// SAFETY: the pointer is the only owner of the mapping, and T is Sync.
unsafe impl<T: Shareable> Send for Apart<T> {}
// SAFETY: only shared references to a Sync value are given out.
unsafe impl<T: Shareable> Sync for Apart<T> {}

/// What a child sees of memory that is [`Apart`].
#[derive(Debug)]
pub(crate) struct Window<T: Shareable>(Shared<OnPages<T>>);

impl<T: Shareable + 'static> Window<T> {
    pub(crate) fn new() -> io::Result<Self> {
        Shared::unseen().map(Self)
    }

    /// Shows this part to the children that are forked from now on. It begins with a page.
    pub(crate) fn show(&self, part: &SharedRef<T>) -> io::Result<()> {
        let length = pages(std::mem::size_of::<T>());
        let flags = MRemapFlags::MREMAP_MAYMOVE | MRemapFlags::MREMAP_FIXED;
        // An old size of zero: the shared pages are mapped once more (mremap(2)).
        // SAFETY: the first range is a part of a shared mapping, which stays. The second one is the window, of as many
        // pages; what refers to it finds other atomics there.
        let window = unsafe { mremap(part.address(), 0, length, flags, Some(NonNull::from(&*self.0).cast())) }?;
        // It is as its origin, which is not forked.
        // SAFETY: the window is a mapping of ours; the advice changes nothing in this process.
        unsafe { madvise(window, length, MmapAdvise::MADV_DOFORK) }?;
        Ok(())
    }

    /// Returns what the window shows, for a child that never drops the window.
    pub(super) fn shown(&self) -> SharedRef<T> {
        SharedRef::of_lasting(NonNull::from(&**self.0))
    }
}

// SAFETY: the value alone on its pages is what it is without them.
unsafe impl<T: Shareable> Shareable for OnPages<T> {}
// SAFETY: as many such values, and nothing else.
unsafe impl<T: Shareable, const N: usize> Shareable for [T; N] {}
