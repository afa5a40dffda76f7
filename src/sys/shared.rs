//! Memory that a process shares with its children.

use std::fmt;
use std::io;
use std::num::NonZeroUsize;
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::Arc;

use nix::sys::mman::{mmap_anonymous, mremap, munmap, MRemapFlags, MapFlags, ProtFlags};

/// A type of atomics only, for which all zeroes is a value and which needs no drop.
///
/// # Safety
/// Exactly that: other processes change the value at any time, and it begins as zeroes.
pub(crate) unsafe trait Shareable: Sync {
    /// The first value, where zeroes are none: the model's atomics.
    #[cfg(all(test, shuttle))]
    fn first() -> Option<Self>
    where
        Self: Sized,
    {
        None
    }
}

/// A value in memory that is shared with every child forked later (`MAP_SHARED | MAP_ANONYMOUS`), zeroed at
/// first.
#[derive(Debug)]
pub(crate) struct Shared<T: Shareable>(NonNull<T>);

impl<T: Shareable> Shared<T> {
    pub(crate) fn new() -> io::Result<Self> {
        let length = NonZeroUsize::new(std::mem::size_of::<T>()).unwrap_or(NonZeroUsize::MIN);
        let (access, flags) = (ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_SHARED);
        // SAFETY: a new mapping that nothing else uses; the kernel picks the place.
        let memory = unsafe { mmap_anonymous(None, length, access, flags) }?;
        #[cfg(all(test, shuttle))]
        if let Some(first) = T::first() {
            // SAFETY: the new mapping is page-aligned and long enough, and nobody else knows of it yet.
            unsafe { memory.cast().write(first) };
        }
        Ok(Self(memory.cast()))
    }

    /// Gives this process memory of its own at the same place, so that each reference to it stays good. `carry`
    /// copies what is to go on from the old memory, which other processes keep.
    pub(crate) fn renew(&self, carry: impl FnOnce(&T, &T)) -> io::Result<()> {
        let fresh = Self::new()?;
        carry(self, &fresh);
        let (length, flags) =
            (std::mem::size_of::<T>().max(1), MRemapFlags::MREMAP_MAYMOVE | MRemapFlags::MREMAP_FIXED);
        // SAFETY: both mappings are ours and have this length. The new one takes the place of the old one, in one
        // step: at every moment there is a value of atomics, as other processes could have written it.
        unsafe { mremap(fresh.0.cast(), length, length, flags, Some(self.0.cast())) }?;
        std::mem::forget(fresh);
        Ok(())
    }
}

impl<T: Shareable> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the mapping is as long as T, page-aligned, zeroed (a value, says the trait), and lives as long as
        // `self`; it holds atomics only, so that a shared reference is all that is needed to change it.
        unsafe { self.0.as_ref() }
    }
}

impl<T: Shareable> Drop for Shared<T> {
    fn drop(&mut self) {
        // SAFETY: this is the mapping that `new` made, and no reference outlives `self`.
        let _ = unsafe { munmap(self.0.cast(), std::mem::size_of::<T>().max(1)) };
    }
}

// SAFETY: the pointer is the only owner of the mapping, and T is Sync.
unsafe impl<T: Shareable> Send for Shared<T> {}
// SAFETY: only shared references to a Sync value are given out.
unsafe impl<T: Shareable> Sync for Shared<T> {}

/// A part of a value in shared memory. It keeps the whole mapping alive.
pub(crate) struct SharedRef<T: 'static> {
    part: NonNull<T>,
    _whole: Arc<dyn Send + Sync>,
}

impl<T: Sync> SharedRef<T> {
    pub(crate) fn new<U: Shareable + 'static>(whole: &Arc<Shared<U>>, part: impl FnOnce(&U) -> &T) -> Self {
        Self { part: NonNull::from(part(whole)), _whole: whole.clone() }
    }

    /// A part of this part.
    pub(crate) fn map<P: Sync>(&self, part: impl FnOnce(&T) -> &P) -> SharedRef<P> {
        SharedRef { part: NonNull::from(part(self)), _whole: self._whole.clone() }
    }
}

impl<T> Deref for SharedRef<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the pointer comes from a reference into the mapping, which `_whole` keeps; the closure of `new` is good
        // for every lifetime, so it can have returned nothing else but that or a static.
        unsafe { self.part.as_ref() }
    }
}

impl<T> Clone for SharedRef<T> {
    fn clone(&self) -> Self {
        Self { part: self.part, _whole: self._whole.clone() }
    }
}

impl<T: fmt::Debug> fmt::Debug for SharedRef<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

// SAFETY: it gives out shared references to a Sync value only, and its other field is Send.
unsafe impl<T: Sync> Send for SharedRef<T> {}
// SAFETY: likewise.
unsafe impl<T: Sync> Sync for SharedRef<T> {}
