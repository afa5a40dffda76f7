//! Groups of connections to broadcast to.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::event_loop::primitives::slab::ConnId;

/// A set of connections to broadcast to: a room, the subscribers of a topic. A connection joins by
/// [`Transport::join`](crate::Transport::join), and leaves when it is lost. A `Group` is `Copy` and `Send`: make it
/// where the factory is made, and give it to the protocols.
///
/// A member that does not read costs the others nothing. In a group of [`new`](Self::new), texts are queued for it up
/// to the loop's limit (8 MiB); then its connection is aborted. In a group of [`lossy`](Self::lossy), it misses texts
/// while its queue is above the high-water mark, even if a single turn has queued that much. Only the application knows
/// which of the two is right.
///
/// Joining is cheap. Leaving looks at all members.
///
/// Members are connections of one loop, or of one [`EventLoops`](crate::EventLoops). With
/// [`Blocking`](crate::Blocking) each connection has its own loop, so a group has one connection of the server there,
/// and the clients that its protocol makes. With [`PreForking`](crate::PreForking) a group ends at the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Group {
    id: u64,
    lossy: bool,
}

static NEXT: AtomicU64 = AtomicU64::new(0);

impl Group {
    /// Makes an empty group, whose members get everything or are cut.
    #[allow(clippy::new_without_default)] // each call makes another group
    pub fn new() -> Self {
        Self { id: NEXT.fetch_add(1, Relaxed), lossy: false }
    }

    /// Makes an empty group, whose members miss texts that they are too slow for.
    pub fn lossy() -> Self {
        Self { lossy: true, ..Self::new() }
    }

    pub(crate) fn is_lossy(self) -> bool {
        self.lossy
    }
}

/// The members of each group, in the order in which they joined.
#[derive(Debug, Default)]
pub(crate) struct Groups(HashMap<Group, Vec<ConnId>>);

impl Groups {
    /// Adds a connection that is no member yet.
    pub(crate) fn join(&mut self, group: Group, id: ConnId) {
        self.0.entry(group).or_default().push(id);
    }

    /// Removes a member; `false` if the connection was none.
    pub(crate) fn leave(&mut self, group: Group, id: ConnId) -> bool {
        let Some(members) = self.0.get_mut(&group) else { return false };
        let before = members.len();
        members.retain(|member| *member != id);
        let left = members.len() < before;
        if members.is_empty() {
            self.0.remove(&group);
        }
        left
    }

    pub(crate) fn members(&self, group: Group) -> &[ConnId] {
        self.0.get(&group).map_or(&[], Vec::as_slice)
    }
}
