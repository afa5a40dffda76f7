//! [`Table`]: sources and their connections, in memory that worker processes share.
//!
//! Eight places form a [`Set`] with one lock. The hash of a source says in which set it stands. So a look reads a few
//! neighbouring lines of memory, and a flood that fills one set leaves the others alone.
//!
//! A process may die at any instruction, also with a lock in hand. So each connection has a *stay*, which names its
//! owner. Each change of a count notes the stay that has made it, in the same word. So [`Table::settle`] knows
//! whether a stay of a dead owner was counted. No count is lost or given back twice.
//!
//! A worker that was taken over by a hostile client may write anything here. The worst is a wrong count, or a set
//! that stays locked. No wait lasts for ever, and no number is taken for an index unseen.

use std::io;
use std::num::NonZeroU32;
use std::ops::Range;
use std::sync::atomic::{
    AtomicU32, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};

use super::lock::Lock;
use super::SourceRefusal;
use crate::sys::shared::{Shareable, Shared};

/// The places in a set.
const WAYS: usize = 8;
/// How many sets are searched for a free stay.
const STAY_SETS: u32 = 16;

/// Eight places with one lock, and as many stays of connections, whose sources may stand in any set.
#[derive(Debug)]
struct Set {
    lock: Lock,
    _to_eight_bytes: AtomicU32,
    places: [Place; WAYS],
    stays: [AtomicU64; WAYS],
}

// SAFETY: all fields are plain atomics.
#[allow(unsafe_code)]
unsafe impl Shareable for Set {}

/// One source. It changes under the lock of its set only.
#[derive(Debug)]
struct Place {
    /// Zero: no source yet.
    key: AtomicU64,
    /// When the allowance of the rate is whole again.
    full_at: AtomicU64,
    /// The connections of the source (the lower half), and the mark of the last change.
    held: AtomicU64,
}

impl Place {
    fn count(&self) -> u32 {
        self.held.load(Relaxed) as u32
    }

    fn mark(&self) -> u32 {
        (self.held.load(Relaxed) >> 32) as u32
    }

    fn change(&self, count: u32, mark: u32) {
        self.held.store(u64::from(mark) << 32 | u64::from(count), Relaxed);
    }
}

/// A connection that is counted for its source: the number of its stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stay(NonZeroU32);

/// How far a stay has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
enum State {
    Enters = 1,
    Counted = 2,
    Leaves = 3,
}

impl Stay {
    /// The mark of a change that this stay makes.
    fn mark(self, state: State) -> u32 {
        self.0.get() << 2 | state as u32
    }
}

/// What stands in a stay: its owner, its state, and the number of its place. All zeroes: it is free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    owner: u32,
    state: State,
    place: usize,
}

impl Entry {
    fn to_word(self) -> u64 {
        u64::from(self.owner) << 32 | u64::from(self.state as u32) << 30 | self.place as u64
    }

    fn of(word: u64) -> Option<Self> {
        let states = [State::Enters, State::Counted, State::Leaves];
        let state = states.into_iter().find(|state| u64::from(*state as u32) == word >> 30 & 3)?;
        Some(Self { owner: (word >> 32) as u32, state, place: (word & ((1 << 30) - 1)) as usize })
    }
}

#[derive(Debug)]
pub(super) struct Table {
    sets: Shared<[Set]>,
    /// Where this process looks for a stay, if there is none beside the source.
    elsewhere: AtomicU32,
}

impl Table {
    /// Maps a table of at most this many bytes.
    pub(super) fn new(bytes: usize) -> io::Result<Self> {
        let sets = Shared::unseen_slice(bytes / std::mem::size_of::<Set>())?;
        Ok(Self { sets, elsewhere: AtomicU32::new(0) })
    }

    /// Enters a connection of the source `key`, whose set follows from the `hash`. `rule` gets the number of its
    /// connections, and the time at which its allowance is whole; it returns the new time. `None`: there is no room.
    pub(super) fn admit(
        &self,
        owner: u32,
        hash: u64,
        key: u64,
        rule: impl FnOnce(u32, u64) -> Result<u64, SourceRefusal>,
    ) -> Result<Option<Stay>, SourceRefusal> {
        let number = ((u128::from(hash) * self.sets.len() as u128) >> 64) as usize;
        let Some(set) = self.sets.get(number) else { return Ok(None) };
        let Some(_locked) = set.lock.take(owner) else { return Ok(None) };
        let Some((index, is_known)) = set.place_for(key) else { return Ok(None) };
        let place = &set.places[index];
        let full_at = rule(place.count(), if is_known { place.full_at.load(Relaxed) } else { 0 })?;
        let entry = Entry { owner, state: State::Enters, place: number * WAYS + index };
        let Some(stay) = self.take_stay(number, entry) else { return Ok(None) };
        place.key.store(key, Relaxed);
        place.full_at.store(full_at, Relaxed);
        // From here on it counts, and the mark says so.
        place.change(place.count() + 1, stay.mark(State::Enters));
        self.note(stay, Some(Entry { state: State::Counted, ..entry }));
        Ok(Some(stay))
    }

    /// Gives a stay back.
    pub(super) fn leave(&self, owner: u32, stay: Stay) {
        let Some(entry) = self.entry(stay) else { return };
        // Another stay stands there if this process has got a table of its own since.
        if entry.owner != owner || entry.state != State::Counted {
            return;
        }
        let Some((set, place)) = self.place(entry) else { return };
        let Some(_locked) = set.lock.take(owner) else { return };
        self.note(stay, Some(Entry { state: State::Leaves, ..entry }));
        place.change(place.count().saturating_sub(1), stay.mark(State::Leaves));
        self.note(stay, None);
    }

    /// Gives back all stays of an owner that has died, and the locks that it held.
    pub(super) fn settle(&self, owner: u32) {
        for (number, set) in self.sets.iter().enumerate() {
            for (index, word) in set.stays.iter().enumerate() {
                // Few words are the owner's, and there are half a million.
                if word.load(Relaxed) >> 32 != u64::from(owner) {
                    continue;
                }
                let stay = NonZeroU32::new((number * WAYS + index) as u32 + 1).map(Stay);
                if let Some((stay, entry)) = stay.and_then(|stay| Some((stay, self.entry(stay)?))) {
                    self.settle_one(stay, entry);
                }
            }
        }
        self.sets.iter().for_each(|set| set.lock.free(owner));
    }

    fn settle_one(&self, stay: Stay, entry: Entry) {
        if let Some((set, place)) = self.place(entry) {
            let Some(_locked) = set.lock.take_over(entry.owner) else { return };
            // Its owner may have died just before the change of the count, or just after it.
            let is_counted = match entry.state {
                State::Enters => place.mark() == stay.mark(State::Enters),
                State::Counted => true,
                State::Leaves => place.mark() != stay.mark(State::Leaves),
            };
            if is_counted {
                // The mark may be that of another stay, which is still to be judged by it. Its own must not outlive it.
                let others = Some(place.mark()).filter(|mark| mark >> 2 != stay.0.get());
                place.change(place.count().saturating_sub(1), others.unwrap_or(0));
            }
        }
        self.note(stay, None);
    }

    /// Takes a free stay: beside its source, or anywhere, because a source may have many connections.
    fn take_stay(&self, number: usize, entry: Entry) -> Option<Stay> {
        for step in 0..STAY_SETS {
            let number = match step {
                0 => number,
                _ => self.elsewhere.fetch_add(0x9e37_79b1, Relaxed) as usize % self.sets.len(),
            };
            for (index, stay) in self.sets[number].stays.iter().enumerate() {
                let is_free = stay.load(Relaxed) == 0;
                if is_free && stay.compare_exchange(0, entry.to_word(), Acquire, Relaxed).is_ok() {
                    return NonZeroU32::new((number * WAYS + index) as u32 + 1).map(Stay);
                }
            }
        }
        None
    }

    fn word(&self, stay: Stay) -> Option<&AtomicU64> {
        let number = stay.0.get() as usize - 1;
        Some(&self.sets.get(number / WAYS)?.stays[number % WAYS])
    }

    fn entry(&self, stay: Stay) -> Option<Entry> {
        Entry::of(self.word(stay)?.load(Acquire))
    }

    fn note(&self, stay: Stay, entry: Option<Entry>) {
        let word = entry.map_or(0, Entry::to_word);
        self.word(stay).into_iter().for_each(|stay| stay.store(word, Release));
    }

    fn place(&self, entry: Entry) -> Option<(&Set, &Place)> {
        let set = self.sets.get(entry.place / WAYS)?;
        Some((set, &set.places[entry.place % WAYS]))
    }

    /// Gives this process sets of its own, all empty.
    pub(super) fn renew(&self) -> io::Result<()> {
        self.sets.renew_slice()
    }

    pub(super) fn on_pages(&self) -> Range<usize> {
        self.sets.on_pages()
    }
}

impl Set {
    /// Returns the index of the source's place, and true if it has one. Else it gets that of a source without
    /// connections: of several, of the one that has been away for longest.
    fn place_for(&self, key: u64) -> Option<(usize, bool)> {
        if let Some(known) = self.places.iter().position(|place| place.key.load(Relaxed) == key) {
            return Some((known, true));
        }
        let away = self.places.iter().enumerate().filter(|(_, place)| place.count() == 0);
        let longest = away.min_by_key(|(_, place)| place.full_at.load(Relaxed));
        longest.map(|(index, _)| (index, false))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWNER: u32 = 7;

    fn admit(table: &Table, owner: u32) -> Stay {
        table.admit(owner, 0, 42, |_, _| Ok(0)).unwrap().unwrap()
    }

    fn place(table: &Table) -> &Place {
        &table.sets[0].places[table.sets[0].place_for(42).unwrap().0]
    }

    /// A worker that is killed at each step of an entrance and of a leave, with the lock in hand.
    #[test]
    fn whatever_a_process_dies_in_is_given_back_once() {
        for died_at in 0..8 {
            let table = Table::new(64 << 10).unwrap();
            let (other, leaves) = (admit(&table, 1), admit(&table, OWNER));
            std::mem::forget(table.sets[0].lock.take(OWNER));
            let at = place(&table);
            let entry = table.entry(leaves).unwrap();
            let enters = Entry { state: State::Enters, ..entry };
            match died_at {
                0 => {}
                1..=3 => {
                    let stay = table.take_stay(0, enters).unwrap();
                    if died_at > 1 {
                        at.change(at.count() + 1, stay.mark(State::Enters));
                    }
                    if died_at > 2 {
                        table.note(stay, Some(entry));
                    }
                }
                4..=6 => {
                    table.note(leaves, Some(Entry { state: State::Leaves, ..entry }));
                    if died_at > 4 {
                        at.change(at.count() - 1, leaves.mark(State::Leaves));
                    }
                    if died_at > 5 {
                        table.note(leaves, None);
                    }
                }
                _ => drop(table.sets[0].lock.take_over(OWNER)),
            }
            table.settle(OWNER);
            assert_eq!(at.count(), 1, "step {died_at}: the other one is left");
            assert_eq!(table.sets.iter().flat_map(|set| &set.stays).filter(|stay| stay.load(Relaxed) != 0).count(), 1);
            table.leave(1, other);
            assert_eq!(at.count(), 0, "step {died_at}: and the lock is free");
        }
    }

    /// A worker that was taken over.
    #[test]
    fn nonsense_in_the_table_is_no_index_and_no_count() {
        let table = Table::new(64 << 10).unwrap();
        let stay = admit(&table, OWNER);
        for word in [u64::MAX, Entry { owner: OWNER, state: State::Counted, place: (1 << 30) - 1 }.to_word()] {
            table.word(stay).unwrap().store(word, Relaxed);
            table.leave(OWNER, stay);
            table.settle(OWNER);
            table.settle(u32::MAX);
        }
        table.leave(OWNER, Stay(NonZeroU32::MAX));
        place(&table).held.store(0, Relaxed);
        let stay = admit(&table, OWNER);
        place(&table).held.store(0, Relaxed);
        table.leave(OWNER, stay);
        assert_eq!(place(&table).count(), 0, "no count below zero");
    }
}
