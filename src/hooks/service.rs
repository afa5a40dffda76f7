//! `service_actions`: what the serving thread does now and then.

use std::time::{Duration, Instant};

use super::call;
use crate::lifecycle::Core;

/// The hook, and its pace.
pub(crate) struct Actions {
    pub(crate) every: Duration,
    pub(crate) hook: Box<dyn Fn() + Send + Sync>,
}

/// When the serving thread calls the hook next. Without one, it never wakes for it.
pub(crate) struct Pace<'a> {
    core: &'a Core,
    /// `None` also where the time is too far to be told.
    due: Option<Instant>,
}

impl<'a> Pace<'a> {
    pub(crate) fn begin(core: &'a Core) -> Self {
        Self { core, due: core.config.service_actions.as_ref().and_then(|a| Instant::now().checked_add(a.every)) }
    }

    /// How long the thread may wait.
    pub(crate) fn left(&self) -> Option<Duration> {
        self.due.map(|due| due.saturating_duration_since(Instant::now()))
    }

    /// Calls the hook if its time has come.
    pub(crate) fn act(&mut self) {
        if self.due.is_some_and(|due| due <= Instant::now()) {
            Actions::act(self.core);
            *self = Self::begin(self.core);
        }
    }
}

impl Actions {
    pub(crate) fn act(core: &Core) {
        if let Some(actions) = &core.config.service_actions {
            call(core, "service_actions", &actions.hook);
        }
    }
}
