//! The loops of one server, as far as they must know of each other. A single loop is a group of one.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam::utils::CachePadded;
use parking_lot::Mutex;

use crate::event_loop::primitives::group::Group;
use crate::mailbox::Mailbox;

/// What all loops of a group share.
pub(crate) struct LoopGroup<C> {
    /// The number of the first loop in this process; the others have those that follow.
    first: u32,
    inboxes: Vec<Arc<Mailbox<C>>>,
    groups: Mutex<HashMap<Group, Vec<Part>>>,
    /// How many connections each loop has.
    loads: Vec<CachePadded<AtomicUsize>>,
    /// When the heart of each loop has beaten, by the worker's clock.
    hearts: Vec<AtomicU64>,
    /// The limit that a callback has set for the drain: its end, and its length.
    grace: Mutex<Option<(Instant, Duration)>>,
}

/// The members of a group in one loop.
#[derive(Debug, Clone, Copy, Default)]
struct Part {
    members: usize,
    /// True if the loop has not taken what it was sent. Its members are to be cut, and get no more.
    is_behind: bool,
}

impl Part {
    fn is_over(&self) -> bool {
        self.members == 0 && !self.is_behind
    }
}

/// The number of the next loop. No two loops of a process have the same.
static NEXT: AtomicU32 = AtomicU32::new(0);

impl<C> LoopGroup<C> {
    pub(crate) fn new(loops: usize) -> io::Result<Arc<Self>> {
        let inboxes = (0..loops).map(|_| Mailbox::new().map(Arc::new)).collect::<io::Result<_>>()?;
        Ok(Arc::new(Self {
            first: NEXT.fetch_add(loops as u32, Relaxed),
            inboxes,
            groups: Mutex::default(),
            loads: (0..loops).map(|_| CachePadded::default()).collect(),
            hearts: (0..loops).map(|_| AtomicU64::new(0)).collect(),
            grace: Mutex::new(None),
        }))
    }

    /// True if there is no other loop.
    pub(crate) fn is_alone(&self) -> bool {
        self.inboxes.len() == 1
    }

    /// Returns the number in the process of a loop of the group.
    pub(crate) fn home(&self, number: usize) -> u32 {
        self.first.wrapping_add(number as u32)
    }

    pub(crate) fn inbox(&self, number: usize) -> &Arc<Mailbox<C>> {
        &self.inboxes[number]
    }

    /// Returns the inbox of the loop whose connections have this number in their ids. `None` if it is of another group.
    pub(crate) fn inbox_at(&self, home: u32) -> Option<&Arc<Mailbox<C>>> {
        self.inboxes.get(home.wrapping_sub(self.first) as usize)
    }

    /// Sends a call to all loops but this one.
    pub(crate) fn call_others(&self, number: usize, call: impl Fn() -> C) {
        for (_, inbox) in self.inboxes.iter().enumerate().filter(|(other, _)| *other != number) {
            let _ = inbox.send(call()); // fails only if that loop has ended
        }
    }

    /// Notes how many connections this loop has. True if another loop has fewer.
    pub(crate) fn note_load(&self, number: usize, connections: usize) -> bool {
        self.loads[number].store(connections, Relaxed);
        self.loads.iter().any(|other| other.load(Relaxed) < connections)
    }

    /// Notes a beat of this loop, and returns the oldest beat of all loops. One loop that hangs makes a hung worker.
    pub(crate) fn beat(&self, number: usize, millis: u64) -> u64 {
        self.hearts[number].store(millis, SeqCst);
        self.hearts.iter().map(|heart| heart.load(SeqCst)).min().unwrap_or(millis)
    }

    pub(crate) fn start_beating(&self, millis: u64) {
        self.hearts.iter().for_each(|heart| heart.store(millis, SeqCst));
    }

    /// Sets a limit for the drain. The nearest holds.
    pub(crate) fn limit_drain(&self, deadline: Instant, grace: Duration) {
        let mut limit = self.grace.lock();
        if limit.map_or(true, |(before, _)| deadline < before) {
            *limit = Some((deadline, grace));
        }
    }

    pub(crate) fn drain_limit(&self) -> Option<(Instant, Duration)> {
        *self.grace.lock()
    }

    pub(crate) fn joined(&self, number: usize, group: Group) {
        let mut groups = self.groups.lock();
        groups.entry(group).or_insert_with(|| vec![Part::default(); self.inboxes.len()])[number].members += 1;
    }

    pub(crate) fn left(&self, number: usize, group: Group) {
        let mut groups = self.groups.lock();
        let Some(parts) = groups.get_mut(&group) else { return };
        parts[number].members = parts[number].members.saturating_sub(1);
        if parts.iter().all(Part::is_over) {
            groups.remove(&group);
        }
    }

    pub(crate) fn members(&self, group: Group) -> usize {
        self.groups.lock().get(&group).map_or(0, |parts| parts.iter().map(|part| part.members).sum())
    }

    /// Returns how many members each of the other loops has, except loops that are behind.
    pub(crate) fn members_elsewhere(&self, number: usize, group: Group) -> Vec<(usize, usize)> {
        let groups = self.groups.lock();
        let parts = groups.get(&group).into_iter().flatten().enumerate();
        let others = parts.filter(|(other, part)| *other != number && part.members > 0 && !part.is_behind);
        others.map(|(other, part)| (other, part.members)).collect()
    }

    /// Notes if a loop is behind with what it was sent for a group. True if that is new.
    pub(crate) fn set_behind(&self, number: usize, group: Group, behind: bool) -> bool {
        let mut groups = self.groups.lock();
        let Some(parts) = groups.get_mut(&group) else { return false };
        let is_news = std::mem::replace(&mut parts[number].is_behind, behind) != behind;
        if parts.iter().all(Part::is_over) {
            groups.remove(&group);
        }
        is_news
    }
}
