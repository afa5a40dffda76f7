//! [`Pace`]: the calls of `service_actions`, or of the heartbeat in a worker process.
//!
//! Python calls `service_actions` after every request. Here the threads that accept are not the thread in
//! `serve_forever`. So the hook has a pace of its own. A program can rely on it, and a slow hook is not
//! called more often on a busy server.

use std::time::{Duration, Instant};

use super::call;
use crate::lifecycle::Core;
use crate::sync::left;

/// The time of the serving thread's next action. If nothing is set, the thread never wakes for it.
pub(crate) struct Pace<'a> {
    core: &'a Core,
    /// `None` without an action, and if the time is too far to be counted.
    due: Option<Instant>,
}

impl<'a> Pace<'a> {
    pub(crate) fn begin(core: &'a Core) -> Self {
        core.worker().into_iter().for_each(|worker| worker.beat());
        Self { core, due: every(core).and_then(|every| Instant::now().checked_add(every)) }
    }

    /// Returns how long the thread may wait.
    pub(crate) fn left(&self) -> Option<Duration> {
        left(self.due)
    }

    /// Acts if the time has come.
    pub(crate) fn act(&mut self) {
        if self.due.is_some_and(|due| due <= Instant::now()) {
            perform(self.core);
            *self = Self::begin(self.core);
        }
    }
}

/// Returns the pause between two actions. A worker process beats; only its master calls the hook.
pub(crate) fn every(core: &Core) -> Option<Duration> {
    match core.worker() {
        Some(worker) => worker.beats_every(),
        None => core.hooks.service_actions.as_ref().map(|actions| actions.every),
    }
}

pub(crate) fn perform(core: &Core) {
    match (core.worker(), &core.hooks.service_actions) {
        (Some(worker), _) => worker.beat(),
        (None, Some(actions)) => call(core, "service_actions", &actions.hook),
        (None, None) => {}
    }
}
