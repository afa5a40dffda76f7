//! [`ChildSlot`]: what a child tells its parent, in memory that both see.
//!
//! A verdict and a text, so that the parent's log and hook can say what the handler's error was. An exit code
//! or a signal is left for children that die without a word. If SIGCHLD is ignored, the slot is all there is.

use std::sync::atomic::{AtomicU32, AtomicU64, AtomicU8, Ordering::SeqCst};
use std::sync::Arc;

use crate::sys::shared::{Shareable, Shared, SharedRef};

/// As many slots as fit a page.
const PER_PAGE: usize = 16;
/// The longest text, in bytes.
const TEXT: usize = 232;

/// The part of one child.
#[derive(Debug)]
pub(crate) struct ChildSlot {
    /// The time at which the request must have ended: milliseconds after the control's epoch. 0: no limit
    /// runs. By it the parent ends a child that spins, and none that rightly waits for its next request.
    pub(super) deadline: AtomicU64,
    /// A [`Verdict`] as a number. 0: none yet.
    verdict: AtomicU32,
    length: AtomicU32,
    text: [AtomicU8; TEXT],
}

/// How a handler has ended, in the child's own judgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Verdict {
    Served = 1,
    Failed = 2,
    TimedOut = 3,
    Disconnected = 4,
    Panicked = 5,
    /// The bounds of the process could not be set.
    Unbound = 6,
    /// `verify_request` said no.
    Refused = 7,
    /// `verify_request` did not answer in time.
    Unanswered = 8,
    /// `verify_request` panicked or could not be asked, or a factory made no protocol.
    Unasked = 9,
}

impl Verdict {
    pub(crate) const ALL: [Self; 9] = [
        Self::Served,
        Self::Failed,
        Self::TimedOut,
        Self::Disconnected,
        Self::Panicked,
        Self::Unbound,
        Self::Refused,
        Self::Unanswered,
        Self::Unasked,
    ];

    /// Returns the exit code of the child. The guide lists them.
    pub(crate) fn exit_code(self) -> i32 {
        match self {
            Self::Served => 0,
            // As Rust programs do.
            Self::Panicked => 101,
            Self::Failed => 110,
            Self::TimedOut => 111,
            Self::Disconnected => 112,
            Self::Unbound => 113,
            Self::Refused | Self::Unanswered | Self::Unasked => 114,
        }
    }
}

impl ChildSlot {
    pub(super) fn deadline(&self) -> Option<u64> {
        Some(self.deadline.load(SeqCst)).filter(|d| *d > 0)
    }

    /// Writes the child's verdict, at its end. A text that is too long is cut.
    pub(super) fn set_verdict(&self, verdict: Verdict, text: &str) {
        let mut length = text.len().min(TEXT);
        while !text.is_char_boundary(length) {
            length -= 1;
        }
        for (to, from) in self.text.iter().zip(&text.as_bytes()[..length]) {
            to.store(*from, SeqCst);
        }
        self.length.store(length as u32, SeqCst);
        // Last: a child that dies within this has no verdict.
        self.verdict.store(verdict as u32, SeqCst);
    }

    /// Returns the verdict of a child that has ended, if it came to write one.
    pub(super) fn verdict(&self) -> Option<(Verdict, String)> {
        // A child may write wild. What is no verdict is none, and no length goes beyond the text.
        let number = self.verdict.load(SeqCst);
        let verdict = Verdict::ALL.into_iter().find(|v| *v as u32 == number)?;
        let length = (self.length.load(SeqCst) as usize).min(TEXT);
        let text: Vec<u8> = self.text[..length].iter().map(|b| b.load(SeqCst)).collect();
        Some((verdict, String::from_utf8_lossy(&text).into_owned()))
    }

    fn clear(&self) {
        self.deadline.store(0, SeqCst);
        self.verdict.store(0, SeqCst);
    }
}

/// A page of slots.
#[derive(Debug)]
struct Slots([ChildSlot; PER_PAGE]);

// SAFETY: plain atomics, all of them.
#[allow(unsafe_code)]
unsafe impl Shareable for Slots {}

/// The slots that no child has.
#[derive(Debug, Default)]
pub(super) struct FreeSlots(Vec<SharedRef<ChildSlot>>);

impl FreeSlots {
    pub(super) fn take(&mut self) -> std::io::Result<SharedRef<ChildSlot>> {
        if self.0.is_empty() {
            let page = Arc::new(Shared::<Slots>::new()?);
            self.0.extend((0..PER_PAGE).rev().map(|index| SharedRef::new(&page, |page| &page.0[index])));
        }
        self.0.pop().ok_or_else(|| std::io::Error::other("no slot"))
    }

    pub(super) fn give_back(&mut self, slot: SharedRef<ChildSlot>) {
        slot.clear();
        self.0.push(slot);
    }
}
