//! The end of a run: wake idle connections, let the rest finish, cut what is left at the limit.

use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::time::{Duration, Instant};

use log::Level;

use crate::accept::ServingStrategy;
use crate::lifecycle::Core;
use crate::observe::log_line;
use crate::sync::{left, now};
use crate::sys;

/// After the cut, handlers get this long to notice and to return.
const AFTER_THE_CUT: Duration = Duration::from_millis(100);

/// Ends what is in progress, while the strategy looks after its part. Returns at the drain limit plus 100 ms at the
/// latest, with the number of handlers that were left running.
pub(crate) fn drain(core: &Core, strategy: &dyn ServingStrategy) -> io::Result<u64> {
    core.wake_idle();
    if wait_until_idle(core, strategy, || core.drain_deadline())? {
        return Ok(0);
    }
    let permits = &core.admission.permits;
    let left = permits.active();
    core.control.cut();
    core.registry.cut_all();
    core.waiting.wake_all();
    log_line(Level::Warn, "socketserver::drain", format_args!("the drain is over: cut {left} connections"));
    let grace = now() + AFTER_THE_CUT;
    wait_until_idle(core, strategy, || Some(grace))?;
    let abandoned = permits.active() as u64;
    core.monitor.counters().forced.fetch_add(abandoned, Relaxed);
    Ok(abandoned)
}

/// Waits until no connection and no accepting thread is left; `false` if `deadline`, which may come closer meanwhile,
/// passes first.
fn wait_until_idle(
    core: &Core,
    strategy: &dyn ServingStrategy,
    deadline: impl Fn() -> Option<Instant>,
) -> io::Result<bool> {
    loop {
        core.control.events.clear();
        strategy.service_actions();
        core.wake_idle(); // a worker that ended alone may see its server follow
        if core.admission.permits.active() == 0 && core.run.workers.load(SeqCst) == 0 {
            return Ok(true);
        }
        let left = left(deadline());
        if left == Some(Duration::ZERO) {
            return Ok(false);
        }
        sys::poll([Some(core.control.events.as_fd()), strategy.wake_fd()], None, left)?;
    }
}
