//! What the serving thread does now and then: `service_actions`, or, in a worker process, the heartbeat.

use std::time::{Duration, Instant};

use super::call;
use crate::lifecycle::Core;
use crate::sync::left;

/// When the serving thread acts next. Where there is nothing to do, it never wakes for it.
pub(crate) struct Pace<'a> {
    core: &'a Core,
    /// `None` also where the time is too far to be told.
    due: Option<Instant>,
}

impl<'a> Pace<'a> {
    pub(crate) fn begin(core: &'a Core) -> Self {
        core.worker().into_iter().for_each(|worker| worker.beat());
        Self { core, due: every(core).and_then(|every| Instant::now().checked_add(every)) }
    }

    /// How long the thread may wait.
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

/// How often the serving thread acts. The hook is the master's, the heart the worker's.
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
