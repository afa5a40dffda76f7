//! The ends of children by SIGCHLD, without a descriptor for each of them.
//!
//! One signal stands for all children that end before it is read, of this server or not. So each signal leads to a look at
//! all that have ended. A child is waited for by its number alone. At the first end of a process that is none of ours, or
//! that other code has waited for, SIGCHLD is the program's again: each child has a pidfd from then on.

use std::time::Duration;

use nix::errno::Errno;

use super::children::{Children, ENDS};
use crate::sys::ends::{self, Ends};
use crate::sys::process::PidFd;
use crate::sys::{signal, Epoll};

/// All children are looked at this often, while there are some. A handler of the program's may take a signal away, or wait
/// for a child that is not its own: without the look, the permit of that child would be lost.
pub(super) const LOOK: Duration = Duration::from_secs(1);

impl Children {
    /// Hears of the ends of children by SIGCHLD from now on, if that is free.
    pub(super) fn hear_ends(&mut self, watch: &Epoll) {
        let ends = Ends::of_this_process().ok().flatten();
        self.ends = ends.filter(|ends| watch.add(ends, ENDS).is_ok());
        // It may be due later than the next look.
        self.due.set(None);
    }

    /// Leaves SIGCHLD to the program. From now on each child is watched by itself.
    #[inline(never)]
    pub(super) fn leave_ends(&mut self, watch: &Epoll) {
        let Some(ends) = self.ends.take() else { return };
        watch.remove(&ends);
        drop(ends);
        for number in self.all.numbers() {
            let Some(child) = self.all.remove(number) else { continue };
            if child.pidfd.is_some() {
                self.all.insert(child);
                continue;
            }
            let pidfd = match PidFd::of_child(child.pid) {
                // No descriptor is free. The timer looks at it until it ends.
                Err(_) => {
                    self.all.insert(child);
                    continue;
                }
                // It is gone: other code has waited for it.
                Ok(None) => Err(Errno::ESRCH.into()),
                opened => opened,
            };
            // Noted again by `take_in`.
            signal::child_ends(number);
            self.take_in(watch, child, pidfd);
        }
    }

    /// Reaps the children that SIGCHLD has told of.
    pub(super) fn reap_ended(&mut self, watch: &Epoll) {
        let mut reaped = None;
        // A child that a client has taken over may stop and go on without end, each time with a signal.
        for _ in 0..2 * (self.all.count() + 1) {
            let Some(ends) = self.ends.as_ref().filter(|ends| ends.are_ours()) else { return self.leave_ends(watch) };
            let ended = match ends.next() {
                // A child that was found before its signal.
                told @ Some(_) if told == reaped => continue,
                told @ Some(_) => told,
                // The signal stands for others, too. One that the program has started would stay the first here.
                None => ends::an_ended_child(),
            };
            let Some(pid) = ended else { return };
            if !self.reap(watch, pid.as_raw()) {
                return self.leave_ends(watch);
            }
            reaped = ended;
        }
    }

    /// Looks at all children: whether one has ended without a signal, or other code has waited for one.
    pub(super) fn look_at_all(&mut self, watch: &Epoll) {
        self.reap_ended(watch);
        if self.ends.is_some() && self.all.numbers().into_iter().any(ends::is_gone) {
            self.leave_ends(watch);
        }
        if self.ends.is_none() {
            let unwatched = self.all.all().filter(|child| child.pidfd.is_none()).map(|child| child.pid.as_raw());
            for number in unwatched.collect::<Vec<_>>() {
                self.reap(watch, number);
            }
        }
    }
}
