//! [`Pace`]: when the serving thread does what comes by the clock.
//!
//! Python calls `service_actions` after every request. Here the threads that accept are not the thread in
//! `serve_forever`. So the hook has a pace of its own. A program can rely on it, and a slow hook is not
//! called more often on a busy server.

use std::time::{Duration, Instant};

use super::call;
use crate::lifecycle::Core;
use crate::sync::left;

/// What the serving thread does by the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Duty {
    /// Call `service_actions`; in a worker process, beat its heart.
    Actions,
    /// Report to the service manager.
    Report,
}

pub(crate) const DUTIES: [Duty; 2] = [Duty::Actions, Duty::Report];

/// The times of the serving thread's next duties. If nothing is set, the thread never wakes for them.
pub(crate) struct Pace<'a> {
    core: &'a Core,
    /// `None` without a duty, and if the time is too far to be counted.
    due: [Option<Instant>; DUTIES.len()],
}

impl<'a> Pace<'a> {
    pub(crate) fn begin(core: &'a Core) -> Self {
        core.worker().into_iter().for_each(|worker| worker.beat());
        Self { core, due: DUTIES.map(|duty| next(core, duty)) }
    }

    /// Returns how long the thread may wait.
    pub(crate) fn left(&self) -> Option<Duration> {
        left(self.due.into_iter().flatten().min())
    }

    /// Does what is due.
    pub(crate) fn act(&mut self) {
        for (due, duty) in self.due.iter_mut().zip(DUTIES) {
            if due.is_some_and(|due| due <= Instant::now()) {
                perform(self.core, duty);
                *due = next(self.core, duty);
            }
        }
    }
}

fn next(core: &Core, duty: Duty) -> Option<Instant> {
    every(core, duty).and_then(|every| Instant::now().checked_add(every))
}

/// Returns the pause between two times. A worker process beats; its master calls the hook, and reports.
pub(crate) fn every(core: &Core, duty: Duty) -> Option<Duration> {
    match (duty, core.worker()) {
        (Duty::Actions, Some(worker)) => worker.beats_every(),
        (Duty::Actions, None) => core.hooks.service_actions.as_ref().map(|actions| actions.every),
        (Duty::Report, Some(_)) => None,
        (Duty::Report, None) => core.hooks.notifier.as_ref().map(|notifier| notifier.every),
    }
}

pub(crate) fn perform(core: &Core, duty: Duty) {
    match (duty, core.worker(), &core.hooks.service_actions) {
        (Duty::Actions, Some(worker), _) => worker.beat(),
        (Duty::Actions, None, Some(actions)) => call(core, "service_actions", &actions.hook),
        (Duty::Actions, None, None) => {}
        (Duty::Report, ..) => core.report_alive(),
    }
}
