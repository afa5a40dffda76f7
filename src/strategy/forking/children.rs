//! The parent's part: who is there, who has ended and how, who must be ended.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::slots::{FreeSlots, SlotRef, Verdict};
use super::{AFTER_THE_LIMIT, FROM_TERM_TO_KILL};
use crate::admit::Permit;
use crate::connection::Limit;
use crate::finish::observe::{self, Ended};
use crate::lifecycle::Core;
use crate::listen::Addr;
use crate::strategy::{Rejected, Request};
use crate::sys::process::{self, Status, Timer};
use crate::sys::{signal, Epoll, Interest};

const TIMER: u64 = u64::MAX;

/// A living child, as its parent knows it.
struct Child {
    /// Readable when it has ended.
    pidfd: Option<OwnedFd>,
    pid: Pid,
    peer: Addr,
    slot: SlotRef,
    /// The limit for which it is being ended, and when SIGKILL follows; `None` then: it has been sent.
    ending: Option<(Limit, Option<Instant>)>,
    permit: Permit,
}

/// The children of one server.
pub(super) struct Children {
    core: Arc<Core>,
    all: HashMap<u64, Child>,
    free: FreeSlots,
    timer: Option<Timer>,
}

impl Children {
    pub(super) fn new(core: &Arc<Core>) -> Self {
        Self { core: core.clone(), all: HashMap::new(), free: FreeSlots::default(), timer: None }
    }

    /// Forks a child for the request. The parent keeps the permit, and closes its copy of the socket without
    /// `shutdown`, which would end the child's too.
    pub(super) fn fork(
        &mut self,
        wakes: &Epoll,
        request: Request,
        fork: impl FnOnce(&mut Option<Request>, &SlotRef, &[RawFd]) -> io::Result<Pid>,
    ) -> Result<(), Rejected> {
        let slot = match self.free.take() {
            Ok(slot) => slot,
            Err(why) => return Err(Rejected::new(request, why)),
        };
        let mut request = Some(request);
        let forked = fork(&mut request, &slot, &self.descriptors(wakes));
        match (forked, request) {
            (Ok(pid), Some(request)) => {
                let Some((peer, permit)) = request.keep_permit() else { return Ok(()) };
                self.adopt(wakes, Child { pidfd: process::pidfd(pid).ok(), pid, peer, slot, ending: None, permit });
                Ok(())
            }
            (Err(why), Some(request)) => {
                self.free.give_back(slot);
                Err(Rejected::new(request, why))
            }
            (_, None) => Ok(()),
        }
    }

    /// What a child closes: all that tells the parent of the others.
    fn descriptors(&self, wakes: &Epoll) -> Vec<RawFd> {
        let pidfds = self.all.values().filter_map(|c| c.pidfd.as_ref());
        let timer = self.timer.as_ref().map(|t| t.as_fd().as_raw_fd());
        pidfds.map(AsRawFd::as_raw_fd).chain(timer).chain([wakes.as_fd().as_raw_fd()]).collect()
    }

    fn adopt(&mut self, wakes: &Epoll, child: Child) {
        signal::child_begins(child.pid.as_raw());
        let token = child.pid.as_raw() as u64;
        match &child.pidfd {
            Some(fd) if wakes.add(fd, Interest::Read, token).is_ok() => {
                self.all.insert(token, child);
                self.time(wakes);
            }
            // With SIGCHLD ignored it may be gone already. And one that nobody can watch is not left running.
            _ => {
                signal::child_ends(child.pid.as_raw());
                let status = process::end_now(child.pid);
                self.bury(child, status);
            }
        }
    }

    /// Looks who has ended, and ends who must.
    pub(super) fn reap(&mut self, wakes: &Epoll) {
        let mut tokens = [0; 32];
        while let Ok(ready) = wakes.ready(&mut tokens) {
            for token in ready.iter().filter(|t| **t != TIMER) {
                self.reap_one(wakes, *token);
            }
            if ready.contains(&TIMER) || self.core.control.is_cut() {
                self.end_who_must(wakes);
            }
            if ready.len() < 32 {
                break;
            }
        }
    }

    fn reap_one(&mut self, wakes: &Epoll, token: u64) {
        let Some(child) = self.all.get(&token) else { return };
        let Some(pidfd) = &child.pidfd else { return };
        signal::child_ends(child.pid.as_raw());
        let Some(status) = process::ended(pidfd.as_fd()) else { return };
        wakes.remove(pidfd); // before it is closed: other children may hold copies
        if let Some(child) = self.all.remove(&token) {
            self.bury(child, status);
        }
    }

    /// Accounts for a child that has ended, and gives its permit back.
    fn bury(&mut self, child: Child, status: Status) {
        let said = child.slot.said();
        let limit = child.ending.map(|(limit, _)| limit);
        let ended = match (status, said) {
            (Status::Killed(signal), _) => Ended::Killed { signal: signal.as_str(), limit },
            (Status::Exited(code), Some((verdict, text))) if code == verdict.exit_code() => said_to_be(verdict, text),
            (Status::Exited(0), None) => Ended::Served,
            (Status::Exited(code), _) => Ended::Exited(code),
            (Status::Gone, Some((verdict, text))) => said_to_be(verdict, text),
            (Status::Gone, None) => Ended::Failed("nobody knows how its process ended: SIGCHLD is ignored".to_owned()),
        };
        self.free.give_back(child.slot);
        observe::child_ended(&self.core, &child.peer, &ended);
        drop(child.permit);
    }

    /// Sets the timer to when somebody must be ended, where the server limits requests or cuts its drain.
    fn time(&mut self, wakes: &Epoll) {
        let Some(after) = self.next_look() else {
            if let Some(timer) = &self.timer {
                timer.unset();
            }
            return;
        };
        if self.timer.is_none() {
            let made = Timer::new().and_then(|timer| wakes.add(&timer, Interest::Read, TIMER).map(|()| timer));
            self.timer = made.ok();
        }
        if let Some(timer) = &self.timer {
            let _ = timer.set(after);
        }
    }

    /// How long until somebody may have to be ended.
    fn next_look(&self) -> Option<Duration> {
        let now = Instant::now();
        let kills = self.all.values().filter_map(|c| c.ending.and_then(|(_, kill_at)| kill_at));
        let kill = kills.min().map(|at| at.saturating_duration_since(now));
        let limit = self.core.config.limits.request.filter(|_| !self.all.is_empty());
        let looks = limit.map(|limit| {
            let millis = self.core.control.millis(now);
            let left = |deadline: u64| Duration::from_millis(deadline.saturating_sub(millis)) + AFTER_THE_LIMIT;
            let running = self.all.values().filter(|c| c.ending.is_none()).filter_map(|c| c.slot.deadline());
            running.map(left).min().unwrap_or(limit + AFTER_THE_LIMIT)
        });
        kill.into_iter().chain(looks).min()
    }

    /// SIGTERM for those over their limit, SIGKILL for those who have had it for a while.
    fn end_who_must(&mut self, wakes: &Epoll) {
        let (now, cut) = (Instant::now(), self.core.control.is_cut());
        let millis = self.core.control.millis(now);
        let late = |deadline: u64| millis >= deadline.saturating_add(AFTER_THE_LIMIT.as_millis() as u64);
        for child in self.all.values_mut() {
            let Some(pidfd) = &child.pidfd else { continue };
            match child.ending {
                None if cut || child.slot.deadline().is_some_and(late) => {
                    process::signal(pidfd.as_fd(), Signal::SIGTERM);
                    let limit = if cut { Limit::Drain } else { Limit::Request };
                    child.ending = Some((limit, Some(now + FROM_TERM_TO_KILL)));
                }
                Some((limit, Some(kill_at))) if kill_at <= now => {
                    process::signal(pidfd.as_fd(), Signal::SIGKILL);
                    child.ending = Some((limit, None));
                }
                _ => {}
            }
        }
        self.time(wakes);
    }
}

fn said_to_be(verdict: Verdict, text: String) -> Ended {
    match verdict {
        Verdict::Served => Ended::Served,
        Verdict::Failed | Verdict::Unbound => Ended::Failed(text),
        Verdict::TimedOut => Ended::TimedOut(text),
        Verdict::Disconnected => Ended::Disconnected(text),
        Verdict::Panicked => Ended::Panicked(text),
    }
}
