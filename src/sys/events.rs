//! What a descriptor is watched for.

use std::fmt;
use std::ops::{BitAnd, BitOr, BitOrAssign};

/// What a descriptor is to be watched for, or is ready for: [`READ`](Self::READ), [`WRITE`](Self::WRITE), or
/// both.
///
/// ```
/// use socketserver::selectors::Events;
///
/// let both = Events::READ | Events::WRITE;
/// assert!(both.contains(Events::READ) && !Events::READ.contains(both));
/// assert_eq!(both & Events::WRITE, Events::WRITE);
/// assert_eq!(format!("{both:?}"), "READ | WRITE");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Events(u8);

impl Events {
    /// A read would not wait: there is input, the end of the stream, a connection to accept, or an error to
    /// be told.
    pub const READ: Self = Self(1);
    /// A write would not wait: there is room, a connection has been made, or there is an error to be told.
    pub const WRITE: Self = Self(2);

    /// Neither.
    pub const fn empty() -> Self {
        Self(0)
    }

    /// Whether it is neither.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether all of `other` is in it.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl BitOr for Events {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for Events {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

impl BitAnd for Events {
    type Output = Self;

    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(["(empty)", "READ", "WRITE", "READ | WRITE"][usize::from(self.0 & 3)])
    }
}
