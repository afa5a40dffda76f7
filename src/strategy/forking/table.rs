//! [`Table`]: children by their process numbers, where a fork copies nothing.

use std::io;

use crate::sys::unforked::Unforked;

/// As many places are there at first.
const FIRST: usize = 64;

/// What has the number of a process.
pub(super) trait Numbered {
    fn number(&self) -> i32;
}

/// The living children of one process. A child's place is the one that its number names, or the next one that was free.
pub(super) struct Table<T> {
    /// At most half of them are taken. Their count is a power of two.
    places: Unforked<T>,
    count: usize,
}

impl<T: Numbered> Table<T> {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { places: Unforked::new(FIRST)?, count: 0 })
    }

    /// Makes sure that there is a place for one more.
    pub(super) fn reserve(&mut self) -> io::Result<()> {
        let len = self.places.places().len();
        if self.count < len / 2 {
            return Ok(());
        }
        let mut grown = Self { places: Unforked::new(len.max(FIRST / 2) * 2)?, count: 0 };
        self.places.places_mut().iter_mut().filter_map(Option::take).for_each(|child| grown.insert(child));
        *self = grown;
        Ok(())
    }

    /// Adds a child, after a [`reserve`](Self::reserve). Its number is no other child's, since it has not been waited for.
    pub(super) fn insert(&mut self, child: T) {
        let places = self.places.places_mut();
        let first = home(places, child.number());
        if let Some(place) = around(places.len(), first).find(|place| places[*place].is_none()) {
            places[place] = Some(child);
            self.count += 1;
        }
    }

    pub(super) fn get(&self, number: i32) -> Option<&T> {
        self.places.places()[self.find(number)?].as_ref()
    }

    pub(super) fn remove(&mut self, number: i32) -> Option<T> {
        let mut hole = self.find(number)?;
        let places = self.places.places_mut();
        let removed = places[hole].take();
        self.count -= 1;
        // Those behind it may stand there only because this place was taken.
        for place in around(places.len(), hole).skip(1) {
            let Some(child) = &places[place] else { break };
            let from = |start: usize| place.wrapping_sub(start) & (places.len() - 1);
            if from(home(places, child.number())) >= from(hole) {
                places[hole] = places[place].take();
                hole = place;
            }
        }
        removed
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &T> {
        self.places.places().iter().flatten()
    }

    pub(super) fn all_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.places.places_mut().iter_mut().flatten()
    }

    pub(super) fn numbers(&self) -> Vec<i32> {
        self.all().map(T::number).collect()
    }

    fn find(&self, number: i32) -> Option<usize> {
        let places = self.places.places();
        let mut chain = around(places.len(), home(places, number)).map_while(|at| Some((at, places[at].as_ref()?)));
        chain.find(|(_, child)| child.number() == number).map(|(at, _)| at)
    }
}

fn home<T>(places: &[Option<T>], number: i32) -> usize {
    number as usize & places.len().wrapping_sub(1)
}

/// All places, from this one on.
fn around(count: usize, first: usize) -> impl Iterator<Item = usize> {
    (0..count).map(move |step| (first + step) & (count - 1))
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[derive(Debug, PartialEq, Clone, Copy)]
    struct Process(i32, u64);

    impl Numbered for Process {
        fn number(&self) -> i32 {
            self.0
        }
    }

    /// Numbers that share places, come round, and go in any order.
    #[test]
    fn each_is_found_by_its_number_until_it_is_removed() {
        let (mut table, mut all) = (Table::new().unwrap(), BTreeMap::new());
        let mut random = 1_u64;
        for step in 0..50_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let number = 1 + ((random >> 33) % 700) as i32 * 37;
            if let Some(process) = all.remove(&number) {
                assert_eq!(table.remove(number), Some(process));
            } else if random >> 40 & 1 == 0 || step % 5_000 < 2_000 {
                table.reserve().unwrap();
                table.insert(Process(number, step));
                all.insert(number, Process(number, step));
            }
            assert_eq!(table.get(number), all.get(&number));
            assert_eq!(table.is_empty(), all.is_empty());
        }
        let mut numbers = table.numbers();
        numbers.sort_unstable();
        assert_eq!(numbers, all.keys().copied().collect::<Vec<_>>());
        assert_eq!((table.all().count(), table.all_mut().count()), (all.len(), all.len()));
        all.keys().for_each(|number| assert!(table.remove(*number).is_some()));
        assert!(table.is_empty() && table.remove(1).is_none());
    }
}
