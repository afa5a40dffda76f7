//! A reference for the time of a call, given to who cannot name its lifetime.

use std::cell::Cell;
use std::fmt;
use std::rc::Rc;

/// What [`lend`] has lent, as long as it is. It stays on its thread.
pub(crate) struct Lent<T>(Rc<Cell<Option<*const T>>>);

/// Takes back what was lent, whatever ends the call.
struct TakeBack<T>(Rc<Cell<Option<*const T>>>);

impl<T> Drop for TakeBack<T> {
    fn drop(&mut self) {
        self.0.set(None);
    }
}

/// Lends `value` for the time of this call.
pub(crate) fn lend<T, R>(value: &T, borrow: impl FnOnce(Lent<T>) -> R) -> R {
    let place = Rc::new(Cell::new(Some(std::ptr::from_ref(value))));
    let _take_back = TakeBack(place.clone());
    borrow(Lent(place))
}

impl<T> Lent<T> {
    /// Looks at the value; `None` once it was taken back.
    pub(crate) fn with<R>(&self, look: impl FnOnce(&T) -> R) -> Option<R> {
        // SAFETY: the pointer comes from a reference that lives longer than `lend`, which takes the pointer back before
        // it returns. An `Rc` does not leave its thread, so this call is within that one, and ends before it
        // does.
        self.0.get().map(|value| look(unsafe { &*value }))
    }
}

impl<T> fmt::Debug for Lent<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lent").field("is_there", &self.0.get().is_some()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::{catch_unwind, AssertUnwindSafe};

    #[test]
    fn what_is_lent_is_there_for_the_time_of_the_call() {
        let kept = lend(&"text".to_owned(), |lent| {
            assert_eq!(lent.with(String::len), Some(4));
            lent
        });
        assert_eq!(kept.with(String::len), None);
    }

    #[test]
    fn a_panic_takes_it_back() {
        let mut kept = None;
        let borrow = |lent: Lent<u8>| {
            kept = Some(lent);
            panic!("within");
        };
        assert!(catch_unwind(AssertUnwindSafe(|| lend(&7, borrow))).is_err());
        assert_eq!(kept.map(|lent| lent.with(|n| *n)), Some(None));
    }
}
