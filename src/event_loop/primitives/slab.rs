//! The table of a loop's connections, and of its ports and clients, by ids that are never used twice.
//!
//! An id is a slot, and a generation that counts how often the slot was used. A slot is used again at once, an id
//! never. An event or a write for a connection that is gone finds nothing, instead of its successor.

use std::fmt;

/// The id of one connection of one loop. When the connection is gone, the id stands for nothing, and it is never given
/// to another. The number of the loop is part of the id, so no other loop takes it for one of its own.
///
/// It is `Copy` and `Send`: keep it, send it to other threads, write to it. It keeps nothing alive.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId {
    home: u32,
    index: u32,
    generation: u32,
}

/// The id of a port, or of a client.
pub(crate) type Place = ConnId;

impl ConnId {
    /// Returns the number of its loop.
    pub(crate) fn home(self) -> u32 {
        self.home
    }

    /// Returns its slot, which another one has afterwards.
    pub(crate) fn index(self) -> usize {
        self.index as usize
    }

    /// Returns the token of its events: the whole id in 64 bits.
    pub(crate) fn token(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }
}

impl fmt::Debug for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConnId({self})")
    }
}

impl fmt::Display for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.home, self.index, self.generation)
    }
}

/// Values by [`ConnId`].
#[derive(Debug)]
pub(crate) struct Slab<T> {
    /// The number of the loop.
    home: u32,
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
    len: usize,
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    value: Option<T>,
}

/// The last generation. The two top bits of a token stay free for other tokens.
const GENERATIONS: u32 = u32::MAX >> 2;

impl<T> Slab<T> {
    pub(crate) fn new(home: u32) -> Self {
        Self { home, slots: Vec::new(), free: Vec::new(), len: 0 }
    }

    /// Returns the number of the loop.
    pub(crate) fn home(&self) -> u32 {
        self.home
    }

    /// Returns the id that an event's token stands for.
    pub(crate) fn id(&self, token: u64) -> ConnId {
        ConnId { home: self.home, index: token as u32, generation: (token >> 32) as u32 }
    }

    /// Returns the id that has this slot now.
    pub(crate) fn at(&self, index: usize) -> Option<ConnId> {
        let slot = self.slots.get(index).filter(|slot| slot.value.is_some())?;
        Some(ConnId { home: self.home, index: index as u32, generation: slot.generation })
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn insert(&mut self, value: T) -> ConnId {
        self.len += 1;
        if let Some(index) = self.free.pop() {
            if let Some(slot) = self.slots.get_mut(index as usize) {
                slot.value = Some(value);
                return ConnId { home: self.home, index, generation: slot.generation };
            }
        }
        let index = self.slots.len() as u32; // bounded by the descriptors of a process
        self.slots.push(Slot { generation: 1, value: Some(value) });
        ConnId { home: self.home, index, generation: 1 }
    }

    pub(crate) fn get(&self, id: ConnId) -> Option<&T> {
        let slot = self.slots.get(id.index as usize)?;
        slot.value.as_ref().filter(|_| slot.generation == id.generation && self.home == id.home)
    }

    pub(crate) fn get_mut(&mut self, id: ConnId) -> Option<&mut T> {
        let slot = self.slots.get_mut(id.index as usize)?;
        slot.value.as_mut().filter(|_| slot.generation == id.generation && self.home == id.home)
    }

    pub(crate) fn remove(&mut self, id: ConnId) -> Option<T> {
        let is_meant = |slot: &&mut Slot<T>| slot.generation == id.generation && self.home == id.home;
        let slot = self.slots.get_mut(id.index as usize).filter(is_meant)?;
        let value = slot.value.take()?;
        self.len -= 1;
        // A slot that has had all its ids is not used again.
        if slot.generation < GENERATIONS {
            slot.generation += 1;
            self.free.push(id.index);
        }
        Some(value)
    }

    pub(crate) fn ids(&self) -> Vec<ConnId> {
        (0..self.slots.len()).filter_map(|index| self.at(index)).collect()
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &T> {
        self.slots.iter().filter_map(|slot| slot.value.as_ref())
    }

    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.slots.iter_mut().filter_map(|slot| slot.value.as_mut())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_never_given_twice() {
        let mut slab = Slab::new(7);
        let a = slab.insert("a");
        assert_eq!(slab.remove(a), Some("a"));
        let b = slab.insert("b");
        assert_eq!(a.index, b.index, "the place is used again");
        assert_eq!((slab.get(a), slab.get(b)), (None, Some(&"b")));
        assert_eq!((slab.remove(a), slab.len()), (None, 1));
        assert_eq!((slab.id(b.token()), slab.at(b.index()), slab.at(1)), (b, Some(b), None));
        assert_eq!((slab.ids(), slab.values().collect::<Vec<_>>()), (vec![b], vec![&"b"]));
    }

    #[test]
    fn a_place_that_has_had_all_its_ids_is_not_used_again() {
        let mut slab = Slab::new(7);
        let first = slab.insert("a");
        slab.slots[0].generation = GENERATIONS;
        let last = ConnId { generation: GENERATIONS, ..first };
        assert_eq!(slab.remove(last), Some("a"));
        assert_eq!((slab.insert("b").index, slab.get(last), slab.len()), (1, None, 1));
    }

    #[test]
    fn an_id_of_another_loop_stands_for_nothing() {
        let (mut ours, mut theirs) = (Slab::new(1), Slab::new(2));
        let (a, b) = (ours.insert("a"), theirs.insert("b"));
        assert_eq!((a.index, a.generation), (b.index, b.generation));
        assert_eq!(ours.get(b), None);
        assert_eq!((ours.get_mut(b).is_none(), ours.remove(b)), (true, None));
        assert_eq!((ours.get(a), a == b), (Some(&"a"), false));
        assert_eq!(std::mem::size_of::<ConnId>(), 12);
    }
}
