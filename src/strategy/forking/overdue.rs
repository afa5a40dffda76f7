//! The timer of the parent: it ends children that are over a limit.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::children::Children;
use super::hear::LOOK;
use crate::config::Limit;

/// A child over its limit has this long to end by itself, before SIGTERM.
const AFTER_THE_LIMIT: Duration = Duration::from_millis(250);
/// From SIGTERM to SIGKILL.
const FROM_TERM_TO_KILL: Duration = Duration::from_millis(50);

impl Children {
    /// Sets the timer if it is to be set and is not. One that is due already is due before a new child can be late.
    pub(super) fn arm_timer_if_needed(&self) {
        if self.due.get().is_none() && (self.ends.is_some() || self.core.settings.limits.request.is_some()) {
            self.arm_timer();
        }
    }

    /// Ends children that are over a limit, when the timer is due, or the drain limit has passed.
    pub(super) fn end_late(&mut self, is_due: bool) {
        if is_due && !self.core.control.is_cut() && self.is_late() {
            self.arm_timer_for(Some(AFTER_THE_LIMIT));
        } else {
            self.end_overdue();
        }
    }

    /// Sets the timer to the next time at which a child may have to be ended, or all are looked at.
    fn arm_timer(&self) {
        self.arm_timer_for(self.time_to_next_end());
    }

    fn arm_timer_for(&self, after: Option<Duration>) {
        self.due.set(after.and_then(|after| Instant::now().checked_add(after)));
        match after {
            Some(after) => drop(self.timer.set(after)),
            None => self.timer.unset(),
        }
    }

    /// True if the timer was heard of late: this process was stopped or frozen, and its children with it, perhaps.
    /// A child that has just gone on gets the time in which it ends by itself. Asked for once for each timer.
    fn is_late(&self) -> bool {
        let late = self.due.take().map_or(Duration::ZERO, |due| due.elapsed());
        late >= AFTER_THE_LIMIT
    }

    fn time_to_next_end(&self) -> Option<Duration> {
        let now = Instant::now();
        let kills = self.all.all().filter_map(|c| c.ending.and_then(|(_, kill_at)| kill_at));
        let kill = kills.min().map(|at| at.saturating_duration_since(now));
        let limit = self.core.settings.limits.request.filter(|_| !self.all.is_empty());
        let overdue = limit.map(|limit| {
            let millis = self.core.control.millis(now);
            let left = |deadline: u64| Duration::from_millis(deadline.saturating_sub(millis)) + AFTER_THE_LIMIT;
            let running = self.all.all().filter(|c| c.ending.is_none()).filter_map(|c| c.slot.deadline());
            // A child whose limit does not run now may begin a request at any moment, unseen. So look in
            // time.
            running.map(left).min().unwrap_or(Duration::MAX).min(limit + AFTER_THE_LIMIT)
        });
        let look = self.all.all().any(|child| child.pidfd.is_none()).then_some(LOOK);
        kill.into_iter().chain(overdue).chain(look).min()
    }

    /// Sends SIGTERM to children over their limit (at the drain limit, to all), and SIGKILL to those that
    /// have had it for a while.
    #[inline(never)]
    fn end_overdue(&mut self) {
        let (now, is_cut) = (Instant::now(), self.core.control.is_cut());
        let millis = self.core.control.millis(now);
        let late = |deadline: u64| millis >= deadline.saturating_add(AFTER_THE_LIMIT.as_millis() as u64);
        for child in self.all.all_mut() {
            match child.ending {
                None if is_cut || child.slot.deadline().is_some_and(late) => {
                    child.signal(Signal::SIGTERM);
                    let limit = if is_cut { Limit::Drain } else { Limit::Request };
                    child.ending = Some((limit, Some(now + FROM_TERM_TO_KILL)));
                }
                Some((limit, Some(kill_at))) if kill_at <= now => {
                    child.signal(Signal::SIGKILL);
                    child.ending = Some((limit, None));
                }
                _ => {}
            }
        }
        self.arm_timer();
    }
}
