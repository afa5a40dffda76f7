//! [`drain()`], the end of a run: wake idle connections, let the others finish, cut the rest at the limit.

use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::time::{Duration, Instant};

use log::Level;

use crate::accept::ServingStrategy;
use crate::config::AFTER_A_LATE_WAKE_UP;
use crate::lifecycle::Core;
use crate::observe::log_line;
use crate::sync::{left, now};
use crate::sys;

/// The time that handlers get to return after the cut.
const AFTER_THE_CUT: Duration = Duration::from_millis(100);

/// Ends the connections in progress. It returns the number of handlers that are left running, at the drain
/// limit plus 100 ms at the latest.
pub(crate) fn drain(core: &Core, strategy: &dyn ServingStrategy) -> io::Result<u64> {
    // Step 1: idle connections read the end of the stream; requests may finish.
    core.report_stopping();
    core.wake_idle();
    if wait_until_idle(core, strategy, || core.drain_deadline())? {
        return Ok(0);
    }
    // Step 2, at the limit: all sockets are shut, so every wait ends with an error that names the drain
    // limit. The mark of the cut comes first, so that no connection takes the shut socket for its peer's end.
    let permits = &core.admission.permits;
    let left = permits.active();
    core.control.cut();
    core.registry.cut_all();
    core.waiting.wake_all();
    log_line(Level::Warn, "socketserver::drain", format_args!("the drain is over: cut {left} connections"));
    // Step 3: handlers that computed on cannot be ended. They are reported, and left behind.
    let grace = now() + AFTER_THE_CUT;
    wait_until_idle(core, strategy, || Some(grace))?;
    let abandoned = permits.active() as u64;
    core.monitor.counters().forced.fetch_add(abandoned, Relaxed);
    Ok(abandoned)
}

/// Waits until no connection and no accepting thread is left. False if the `deadline` passes first. A
/// `shutdown_now` may bring the deadline forward, so it is asked anew in each round.
fn wait_until_idle(
    core: &Core,
    strategy: &dyn ServingStrategy,
    deadline: impl Fn() -> Option<Instant>,
) -> io::Result<bool> {
    let mut prolonged: Option<Instant> = None;
    loop {
        // Cleared before the looks below: a change after them ends the wait.
        core.control.events.clear();
        // `Forking` reaps its children here.
        strategy.service_actions();
        // The server of a worker that ended alone may have been stopped meanwhile.
        core.wake_idle();
        if core.admission.permits.active() == 0 && core.run.workers.load(SeqCst) == 0 {
            return Ok(true);
        }
        let until = deadline().map(|at| prolonged.filter(|_| !core.control.is_urgent()).map_or(at, |p| p.max(at)));
        let patience = left(until);
        match until {
            Some(at) if patience == Some(Duration::ZERO) => {
                if prolonged.is_some() || core.control.is_urgent() {
                    return Ok(false);
                }
                // Late: the process was stopped or frozen. For as long again, connections may take what has come.
                let now = now();
                prolonged = Some(now + now.saturating_duration_since(at).min(AFTER_A_LATE_WAKE_UP));
            }
            _ => drop(sys::poll([Some(core.control.events.as_fd()), strategy.wake_fd()], None, patience)?),
        }
    }
}
