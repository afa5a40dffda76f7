//! Timers of connections, and calls that the loop makes later.

use std::time::{Duration, Instant};

use crate::event_loop::primitives::slab::ConnId;
use crate::event_loop::primitives::timers::TimerId;
use crate::event_loop::state::context::Context;
use crate::event_loop::state::transport::Transport;
use crate::event_loop::state::work::TimerTask;
use crate::event_loop::state::State;

impl State {
    /// Lists a timer with its connection, so that it ends with it. Fired ones are swept out when the list has doubled.
    pub(crate) fn keep_timer(&mut self, id: ConnId, timer: TimerId) {
        let Some(conn) = self.conns.get_mut(id) else { return drop(self.time.timers.cancel(timer)) };
        if conn.timers.len() >= MANY && conn.timers.len().is_power_of_two() {
            conn.timers.retain(|timer| self.time.timers.is_pending(*timer));
        }
        conn.timers.push(timer);
    }

    pub(crate) fn cancel(&mut self, timer: TimerId) -> bool {
        self.time.timers.cancel(timer).is_some()
    }
}

/// A list of timers shorter than this is not worth sweeping.
const MANY: usize = 16;

impl Context<'_> {
    /// Calls `call` after `delay`, never within this callback. Equal times keep their order, and the clock is
    /// monotonic. A panic in `call` is contained and logged.
    pub fn call_later(&mut self, delay: Duration, call: impl FnOnce(&mut Context<'_>) + 'static) -> TimerId {
        let now = self.now();
        self.state.time.timers.set(now, delay, TimerTask::Call(Box::new(call)))
    }

    /// Cancels a timer. `false` if it has fired, was cancelled, or belongs to another loop.
    pub fn cancel(&mut self, timer: TimerId) -> bool {
        self.state.cancel(timer)
    }

    /// Sets a timer anew, `delay` from now. `false` if it has fired, was cancelled, or belongs to another loop.
    pub fn reset(&mut self, timer: TimerId, delay: Duration) -> bool {
        let now = self.now();
        self.state.time.timers.reset(timer, now, delay)
    }

    /// Returns the time by the loop's clock.
    pub fn now(&self) -> Instant {
        self.state.time.clock.now()
    }
}

impl Transport<'_> {
    /// Sets a timer of this connection: [`timer`](crate::Protocol::timer) is called after `delay`. It ends with the
    /// connection. [`cancel`](Context::cancel) and [`reset`](Context::reset) take it as well.
    pub fn set_timer(&mut self, delay: Duration) -> TimerId {
        let (now, id) = (self.cx.now(), self.id);
        let timer = self.cx.state.time.timers.set(now, delay, TimerTask::Protocol(id));
        self.cx.state.keep_timer(id, timer);
        timer
    }
}
