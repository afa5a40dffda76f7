//! Memory that a process shares with its forked children.
//!
//! The process that makes such memory writes it. A child can only read it, except for the parts that it was given. A
//! child that a hostile client has taken over must not be able to stop or cheat its parent. So the memory is mapped
//! twice, once to write and once to read, from a file that is sealed against further mappings for writing
//! (`F_SEAL_FUTURE_WRITE`). [`let_go`] moves the second mapping to the place of the first in a child. `mprotect`
//! cannot make it writable there.

use std::fmt;
use std::io;
use std::num::NonZeroUsize;
use std::ops::{Deref, Range};
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::Arc;

use nix::fcntl::{fcntl, FcntlArg, SealFlag};
use nix::libc::{self, c_void};
use nix::sys::memfd::{memfd_create, MFdFlags};
use nix::sys::mman::{mmap, mmap_anonymous, mprotect, munmap, MapFlags, ProtFlags};
use parking_lot::Mutex;

use super::raw;

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

/// A value that begins and ends with a page, so that its pages can be mapped apart.
#[derive(Debug)]
#[cfg_attr(any(target_arch = "x86", target_arch = "x86_64"), repr(align(4096)))]
#[cfg_attr(not(any(target_arch = "x86", target_arch = "x86_64")), repr(align(65536)))]
pub(crate) struct OnPages<T>(pub(crate) T);

impl<T> Deref for OnPages<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

const READ: ProtFlags = ProtFlags::PROT_READ;
const WRITE: ProtFlags = ProtFlags::PROT_READ.union(ProtFlags::PROT_WRITE);

/// Memory of this process, with the view of it that children get.
#[derive(Debug)]
struct Region {
    memory: Range<usize>,
    view: View,
}

#[derive(Debug, Clone, Copy)]
enum View {
    /// The second mapping, at this address.
    At(usize),
    /// The same mapping. The system has no files that can be sealed.
    Same,
    /// None: children do not see this memory.
    Nothing,
}

impl View {
    fn address(self) -> Option<NonNull<c_void>> {
        match self {
            Self::At(view) => NonNull::new(view as *mut c_void),
            Self::Same | Self::Nothing => None,
        }
    }
}

/// What a forked child gives up at once: memory and descriptors.
///
/// The lists lie together, apart from the heap: a child copies each page that it changes.
#[repr(align(1024))]
pub(super) struct Heritage {
    regions: Mutex<Regions>,
    /// The numbers of each [`Private`](super::process::Private), in order.
    pub(super) private: Mutex<Vec<RawFd>>,
}

pub(super) static HERITAGE: Heritage = Heritage {
    regions: Mutex::new(Regions { few: [const { None }; 8], more: Vec::new() }),
    private: Mutex::new(Vec::new()),
};

/// All memory that this process writes and shares.
struct Regions {
    few: [Option<Region>; 8],
    more: Vec<Region>,
}

impl Regions {
    fn push(&mut self, region: Region) {
        match self.few.iter_mut().find(|place| place.is_none()) {
            Some(place) => *place = Some(region),
            None => self.more.push(region),
        }
    }

    /// Takes out the memory that begins here.
    fn take(&mut self, start: usize) -> Option<Region> {
        let few = self.few.iter_mut().find(|place| place.as_ref().is_some_and(|region| region.memory.start == start));
        few.and_then(Option::take).or_else(|| {
            let at = self.more.iter().position(|region| region.memory.start == start)?;
            Some(self.more.swap_remove(at))
        })
    }
}

/// In a forked child, takes away the right to write the shared memory of its parent. The kept ranges stay writable:
/// whole pages, at most one range of each mapping. The child's own children lose those too.
///
/// # Errors
/// If the system refuses a mapping. Some memory may be writable or not mapped at all then: the child must end.
pub(crate) fn let_go(kept: &[Range<usize>]) -> io::Result<()> {
    let (mut result, mut regions) = (Ok(()), HERITAGE.regions.lock());
    for place in &mut regions.few {
        if place.as_mut().is_some_and(|region| !region.let_go(kept, &mut result)) {
            *place = None;
        }
    }
    if !regions.more.is_empty() {
        regions.more.retain_mut(|region| region.let_go(kept, &mut result));
    }
    result
}

impl Region {
    /// Lets go of all but the kept part. False if none of it is kept. The first error is the result.
    #[inline(always)]
    fn let_go(&mut self, kept: &[Range<usize>], result: &mut io::Result<()>) -> bool {
        let all = self.memory.clone();
        let kept = kept.iter().find(|kept| all.contains(&kept.start)).cloned().unwrap_or(all.end..all.end);
        if kept != all {
            for rest in [all.start..kept.start, kept.end..all.end] {
                if let Err(e) = self.part(rest).take_away() {
                    *result = std::mem::replace(result, Ok(())).and(Err(e));
                }
            }
            *self = self.part(kept);
        }
        !self.memory.is_empty()
    }

    #[inline(always)]
    fn part(&self, memory: Range<usize>) -> Self {
        let view = match self.view {
            View::At(view) => View::At(view + (memory.start - self.memory.start)),
            other => other,
        };
        Self { memory, view }
    }

    #[inline(always)]
    fn take_away(self) -> io::Result<()> {
        let length = self.memory.len();
        let Some(place) = NonNull::new(self.memory.start as *mut c_void).filter(|_| length > 0) else { return Ok(()) };
        match self.view {
            // SAFETY: these are whole pages of a mapping of ours; nothing here writes them from now on.
            View::Same => Ok(unsafe { mprotect(place, length, READ) }?),
            // SAFETY: these are whole pages of a mapping of ours, and nothing here uses them from now on.
            View::Nothing => Ok(unsafe { munmap(place, length) }?),
            // The memory at `place` stays what it was; only the right to write it ends.
            View::At(_) => self.view.address().map_or(Ok(()), |view| move_to(view, length, place)),
        }
    }
}

// SAFETY: a slice of atomics is nothing but atomics.
unsafe impl<T: Shareable> Shareable for [T] {}

/// A value that this process writes, and that children which are forked later read. Zeroed at first.
#[derive(Debug)]
pub(crate) struct Shared<T: Shareable + ?Sized>(NonNull<T>);

impl<T: Shareable> Shared<T> {
    pub(crate) fn new() -> io::Result<Self> {
        // A sandbox may refuse such files. Then `let_go` protects against stray writes only.
        let twice = map_twice(Self::length()).map(|(memory, view)| (memory, View::At(view.as_ptr() as usize)));
        match twice {
            Ok(mapped) => Self::from(mapped),
            Err(_) => Self::from((map_once(Self::length())?, View::Same)),
        }
    }

    /// Makes memory that a child sees only if [`let_go`] keeps it.
    pub(super) fn unseen() -> io::Result<Self> {
        Self::from((map_once(Self::length())?, View::Nothing))
    }

    pub(super) fn length() -> NonZeroUsize {
        NonZeroUsize::new(std::mem::size_of::<T>()).unwrap_or(NonZeroUsize::MIN)
    }

    fn from((memory, view): (NonNull<c_void>, View)) -> io::Result<Self> {
        #[cfg(all(test, shuttle))]
        if let Some(first) = T::first() {
            // SAFETY: the new mapping is page-aligned and long enough, and nobody else knows of it yet.
            unsafe { memory.cast().write(first) };
        }
        note(memory, Self::length(), view);
        Ok(Self(memory.cast()))
    }

    /// Gives this process memory of its own at the same place, so that each reference to it stays good. `carry`
    /// copies what is to go on from the old memory, which other processes keep.
    pub(crate) fn renew(&self, carry: impl FnOnce(&T, &T)) -> io::Result<()> {
        let fresh = Self::new()?;
        carry(self, &fresh);
        self.give_place(fresh)
    }
}

impl<T: Shareable> Shared<[T]> {
    /// Makes a slice that a child sees only as far as [`let_go`] keeps it.
    pub(crate) fn unseen_slice(count: usize) -> io::Result<Self> {
        let bytes = count.checked_mul(std::mem::size_of::<T>()).and_then(NonZeroUsize::new);
        let length = bytes.ok_or(io::ErrorKind::InvalidInput)?;
        let memory = map_once(length)?;
        note(memory, length, View::Nothing);
        Ok(Self(NonNull::slice_from_raw_parts(memory.cast(), count)))
    }

    /// Gives this process memory of its own at the same place: zeroes.
    pub(crate) fn renew_slice(&self) -> io::Result<()> {
        self.give_place(Self::unseen_slice(self.len())?)
    }
}

impl<T: Shareable + ?Sized> Shared<T> {
    /// Returns the pages that the value lies on, for [`let_go`].
    pub(crate) fn on_pages(&self) -> Range<usize> {
        let start = self.0.cast::<c_void>().as_ptr() as usize;
        start..start + pages(std::mem::size_of_val(&**self))
    }

    /// Puts fresh memory of the same length here.
    fn give_place(&self, fresh: Self) -> io::Result<()> {
        let (length, start) = (self.on_pages().len(), self.on_pages().start);
        // In one step: at every moment there is a value of atomics, as other processes could have written it.
        move_to(fresh.0.cast(), length, self.0.cast())?;
        // The new memory comes with its own view.
        let mut regions = HERITAGE.regions.lock();
        let (old, new) = (regions.take(start), regions.take(fresh.on_pages().start));
        std::mem::forget(fresh);
        if let (Some(old), Some(new)) = (old, new) {
            if let Some(view) = old.view.address() {
                // SAFETY: this is the view that `new` made, and only the list refers to it.
                let _ = unsafe { munmap(view, length) };
            }
            regions.push(Region { memory: old.memory, view: new.view });
        }
        Ok(())
    }
}

/// Enters memory into the list of all memory that is shared.
fn note(memory: NonNull<c_void>, length: NonZeroUsize, view: View) {
    let start = memory.as_ptr() as usize;
    HERITAGE.regions.lock().push(Region { memory: start..start + pages(length.get()), view });
}

/// Moves a mapping of this module to the place of another one, which goes.
#[inline(always)]
fn move_to(from: NonNull<c_void>, length: usize, place: NonNull<c_void>) -> io::Result<()> {
    let flags = (libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED) as usize;
    let args = [from.as_ptr() as usize, length, length, flags, place.as_ptr() as usize, 0];
    // SAFETY: both ranges are whole pages of mappings of ours. Nothing refers to the first one, and what refers to the
    // second one finds atomics there as before.
    raw::answer(unsafe { raw::call(libc::SYS_mremap, args) })?;
    Ok(())
}

fn map_once(length: NonZeroUsize) -> io::Result<NonNull<c_void>> {
    // SAFETY: a new mapping that nothing else uses; the kernel picks the place.
    Ok(unsafe { mmap_anonymous(None, length, WRITE, MapFlags::MAP_SHARED) }?)
}

/// Maps a new file for writing, seals it, and maps it for reading. It needs no descriptor afterwards.
fn map_twice(length: NonZeroUsize) -> io::Result<(NonNull<c_void>, NonNull<c_void>)> {
    let file = memfd_create(c"socketserver", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
    nix::unistd::ftruncate(&file, pages(length.get()) as libc::off_t)?;
    let map = |file: &OwnedFd, access| {
        // SAFETY: a new mapping that nothing else uses; the kernel picks the place.
        unsafe { mmap(None, length, access, MapFlags::MAP_SHARED, file, 0) }
    };
    let memory = map(&file, WRITE)?;
    let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL | FUTURE_WRITE;
    let sealed = fcntl(file.as_fd(), FcntlArg::F_ADD_SEALS(seals)).and_then(|_| map(&file, READ));
    sealed.map(|view| (memory, view)).map_err(|e| {
        // SAFETY: this is the mapping that was just made, and nothing refers to it.
        let _ = unsafe { munmap(memory, length.get()) };
        e.into()
    })
}

/// `F_SEAL_FUTURE_WRITE`, since Linux 5.1.
const FUTURE_WRITE: SealFlag = SealFlag::from_bits_retain(0x10);

/// Rounds up to whole pages.
pub(super) fn pages(length: usize) -> usize {
    length.next_multiple_of(page())
}

/// The size of a page. It is asked for once: each child would pay for the call.
fn page() -> usize {
    static PAGE: AtomicUsize = AtomicUsize::new(0);
    if PAGE.load(Relaxed) == 0 {
        // SAFETY: sysconf takes an integer, and knows this one everywhere.
        PAGE.store(usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096), Relaxed);
    }
    PAGE.load(Relaxed)
}

impl<T: Shareable + ?Sized> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the mapping is as long as T, page-aligned and zeroed, which is a value by the trait's contract. It
        // lives as long as `self`. It holds only atomics, so a shared reference suffices to change it.
        unsafe { self.0.as_ref() }
    }
}

impl<T: Shareable + ?Sized> Drop for Shared<T> {
    fn drop(&mut self) {
        let start = self.0.cast::<c_void>().as_ptr() as usize;
        let mut regions = HERITAGE.regions.lock();
        // A child has let go of it.
        let Some(region) = regions.take(start) else { return };
        for place in NonNull::new(start as *mut c_void).into_iter().chain(region.view.address()) {
            // SAFETY: these are the mappings that `new` made, and no reference outlives `self`.
            let _ = unsafe { munmap(place, region.memory.len()) };
        }
    }
}

// SAFETY: the pointer is the only owner of the mapping, and T is Sync.
unsafe impl<T: Shareable + ?Sized> Send for Shared<T> {}
// SAFETY: only shared references to a Sync value are given out.
unsafe impl<T: Shareable + ?Sized> Sync for Shared<T> {}

/// A part of a value in shared memory. It keeps the whole mapping alive.
pub(crate) struct SharedRef<T: 'static> {
    part: NonNull<T>,
    /// `None`: the mapping is there for as long as the process.
    _whole: Option<Arc<dyn Send + Sync>>,
}

impl<T: Sync> SharedRef<T> {
    pub(crate) fn new<U: Shareable + 'static>(whole: &Arc<Shared<U>>, part: impl FnOnce(&U) -> &T) -> Self {
        Self::within(whole, NonNull::from(part(whole)))
    }
}

impl<T> SharedRef<T> {
    /// A part of memory that lives as long as `whole` does.
    pub(super) fn within(whole: &Arc<impl Send + Sync + 'static>, part: NonNull<T>) -> Self {
        Self { part, _whole: Some(whole.clone()) }
    }

    /// A part of memory that is mapped for as long as the process lives.
    pub(super) fn of_lasting(part: NonNull<T>) -> Self {
        Self { part, _whole: None }
    }

    pub(super) fn address(&self) -> NonNull<c_void> {
        self.part.cast()
    }
}

impl<T: Sync> SharedRef<T> {
    /// A part of this part.
    pub(crate) fn map<P: Sync>(&self, part: impl FnOnce(&T) -> &P) -> SharedRef<P> {
        SharedRef { part: NonNull::from(part(self)), _whole: self._whole.clone() }
    }

    /// Returns the pages that the part lies on, for [`let_go`].
    pub(crate) fn on_pages(&self) -> Range<usize> {
        let (start, page) = (self.part.as_ptr() as usize, page());
        let start = start / page * page;
        start..start + pages(std::mem::size_of::<T>())
    }
}

impl<T> Deref for SharedRef<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the pointer comes from a reference into the mapping, which `_whole` keeps. The closure of `new`
        // works for every lifetime, so it has returned such a reference, or a static.
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
