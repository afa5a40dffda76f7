//! Timers: a heap by time, then by the order in which they were set.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

/// A timer that was set, to cancel it or to set it anew. Once it has fired, the id stands for nothing. In another loop
/// it never stands for anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TimerId {
    /// The number of its loop.
    home: u32,
    index: u32,
    generation: u32,
}

/// Timers that carry a `T` each.
#[derive(Debug)]
pub(crate) struct Timers<T> {
    /// The number of the loop.
    home: u32,
    heap: BinaryHeap<Reverse<Entry>>,
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
    /// Counts what is put into the heap, so that equal times keep their order.
    sequence: u64,
    live: usize,
}

/// An entry of the heap. It counts only while the timer's own sequence is the same.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    at: Instant,
    sequence: u64,
    index: u32,
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    sequence: u64,
    task: Option<T>,
}

/// Stale entries stay in the heap until it has more than this many, and more than half are stale.
const STALE: usize = 50;
/// The longest delay: 68 years, as good as never.
pub(crate) const NEVER: Duration = Duration::from_secs(1 << 31);

impl<T> Timers<T> {
    pub(crate) fn new(home: u32) -> Self {
        Self { home, heap: BinaryHeap::new(), slots: Vec::new(), free: Vec::new(), sequence: 0, live: 0 }
    }

    /// Returns how many timers are pending.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn len(&self) -> usize {
        self.live
    }

    pub(crate) fn set(&mut self, now: Instant, delay: Duration, task: T) -> TimerId {
        // The slot of a timer that is over is used again. Its generation tells the two apart.
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 1, sequence: 0, task: None });
            (self.slots.len() - 1) as u32
        });
        let generation = self.slots.get_mut(index as usize).map_or(0, |slot| {
            slot.task = Some(task);
            slot.generation
        });
        self.live += 1;
        self.enqueue(now, delay, index);
        TimerId { home: self.home, index, generation }
    }

    /// Puts an entry into the heap. An older entry of the same timer becomes stale; to find it would cost more.
    fn enqueue(&mut self, now: Instant, delay: Duration, index: u32) {
        self.sequence += 1;
        let sequence = self.sequence;
        if let Some(slot) = self.slots.get_mut(index as usize) {
            slot.sequence = sequence;
        }
        self.heap.push(Reverse(Entry { at: now + delay.min(NEVER), sequence, index }));
        self.sweep();
    }

    /// Sets a timer anew; `false` if it has fired or was cancelled.
    pub(crate) fn reset(&mut self, id: TimerId, now: Instant, delay: Duration) -> bool {
        let pending = self.slot(id).is_some();
        if pending {
            self.enqueue(now, delay, id.index);
        }
        pending
    }

    /// True if the timer is still to fire.
    pub(crate) fn is_pending(&self, id: TimerId) -> bool {
        let slot = self.slots.get(id.index as usize).filter(|_| id.home == self.home);
        slot.is_some_and(|slot| slot.generation == id.generation && slot.task.is_some())
    }

    /// Cancels a timer; `None` if it has fired or was cancelled.
    pub(crate) fn cancel(&mut self, id: TimerId) -> Option<T> {
        let task = self.slot(id)?.task.take();
        self.retire(id.index);
        self.sweep();
        task
    }

    /// Returns when the first timer is due.
    pub(crate) fn next(&mut self) -> Option<Instant> {
        // Stale entries on top are dropped on the way.
        while let Some(Reverse(entry)) = self.heap.peek() {
            if self.is_current(entry) {
                return Some(entry.at);
            }
            self.heap.pop();
        }
        None
    }

    /// Returns a mark between the timers set so far and later ones. A turn fires only the former.
    pub(crate) fn mark(&self) -> u64 {
        self.sequence
    }

    /// Takes the first timer that is due and was set before the mark.
    pub(crate) fn pop(&mut self, now: Instant, mark: u64) -> Option<(TimerId, T)> {
        self.next().filter(|at| *at <= now)?;
        if self.heap.peek().is_some_and(|Reverse(entry)| entry.sequence > mark) {
            return None;
        }
        let Reverse(entry) = self.heap.pop()?;
        let slot = self.slots.get_mut(entry.index as usize)?;
        let (generation, task) = (slot.generation, slot.task.take()?);
        self.retire(entry.index);
        Some((TimerId { home: self.home, index: entry.index, generation }, task))
    }

    fn slot(&mut self, id: TimerId) -> Option<&mut Slot<T>> {
        let slot = self.slots.get_mut(id.index as usize).filter(|_| id.home == self.home)?;
        Some(slot).filter(|slot| slot.generation == id.generation && slot.task.is_some())
    }

    fn is_current(&self, entry: &Entry) -> bool {
        let slot = self.slots.get(entry.index as usize);
        slot.is_some_and(|slot| slot.sequence == entry.sequence && slot.task.is_some())
    }

    /// Frees a slot. Its next timer has another generation, so that ids are not given twice.
    fn retire(&mut self, index: u32) {
        if let Some(slot) = self.slots.get_mut(index as usize) {
            slot.generation = slot.generation.wrapping_add(1);
            self.free.push(index);
            self.live -= 1;
        }
    }

    /// Removes the stale entries, once they are most of the heap.
    fn sweep(&mut self) {
        if self.heap.len() > STALE && self.heap.len() > 2 * self.live {
            let mut heap = std::mem::take(&mut self.heap);
            heap.retain(|Reverse(entry)| self.is_current(entry));
            self.heap = heap;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn stale_entries_are_swept() {
        let (mut timers, now) = (Timers::new(0), Instant::now());
        let kept: Vec<_> = (0..10).map(|n| timers.set(now, SECOND, n)).collect();
        for n in 0..100_000 {
            let timer = timers.set(now, 2 * SECOND, n);
            assert!(timers.reset(kept[0], now, SECOND));
            assert_eq!(timers.cancel(timer), Some(n));
            assert!(timers.heap.len() <= STALE + 2, "{}", timers.heap.len());
        }
        assert_eq!((timers.len(), timers.slots.len()), (10, 11), "places are used again");
        let mark = timers.mark();
        let fired: Vec<_> = std::iter::from_fn(|| timers.pop(now + SECOND, mark).map(|(_, n)| n)).collect();
        assert_eq!(fired, [1, 2, 3, 4, 5, 6, 7, 8, 9, 0], "the one that was reset comes last");
    }

    #[test]
    fn a_stale_first_entry_is_no_deadline() {
        let (mut timers, now) = (Timers::new(0), Instant::now());
        let early = timers.set(now, SECOND, "early");
        timers.set(now, 3 * SECOND, "late");
        assert!(timers.reset(early, now, 2 * SECOND));
        assert_eq!(timers.next(), Some(now + 2 * SECOND));
        assert_eq!(timers.cancel(early), Some("early"));
        assert_eq!(timers.next(), Some(now + 3 * SECOND));
    }

    #[test]
    fn what_is_set_after_the_mark_waits() {
        let (mut timers, now) = (Timers::new(0), Instant::now());
        timers.set(now, Duration::ZERO, 1);
        let mark = timers.mark();
        timers.set(now, Duration::ZERO, 2);
        assert_eq!(timers.pop(now, mark).map(|(_, n)| n), Some(1));
        assert!(timers.pop(now, mark).is_none());
        assert_eq!(timers.pop(now, timers.mark()).map(|(_, n)| n), Some(2));
    }

    #[test]
    fn an_id_stands_for_one_timer_only() {
        let (mut timers, now) = (Timers::new(0), Instant::now());
        let first = timers.set(now, SECOND, 1);
        assert_eq!(timers.cancel(first), Some(1));
        let second = timers.set(now, SECOND, 2);
        assert_eq!(first.index, second.index);
        assert!(!timers.reset(first, now, SECOND) && timers.cancel(first).is_none());
        assert_eq!((timers.cancel(second), timers.len()), (Some(2), 0));
    }

    #[test]
    fn an_id_of_another_loop_stands_for_nothing() {
        let (mut ours, mut theirs, now) = (Timers::new(1), Timers::new(2), Instant::now());
        let (timer, other) = (ours.set(now, SECOND, "ours"), theirs.set(now, SECOND, "theirs"));
        assert_eq!((timer.index, timer.generation), (other.index, other.generation));
        assert!(!ours.is_pending(other) && !ours.reset(other, now, SECOND) && ours.cancel(other).is_none());
        let (fired, _) = ours.pop(now + SECOND, ours.mark()).unwrap();
        assert_eq!(fired, timer, "what fires has the id that was given");
    }
}
