//! Worker processes around any engine: [`PreForking`], and what its hook is given.
//!
//! [`PreForking`] is at the crate's root as well. Come here for [`WorkerExit`], which
//! [`on_worker_exit`](PreForking::on_worker_exit) gets. [The guide](crate::guide::forking) has the signals and
//! the rules.

// An engine around engines, and no strategy: a strategy says where one request runs, pre-forking says how many
// accept loops there are. So it takes any engine, an event loop too, and runs it once in each worker. Engines
// start their threads when they run, never when they are made: so the forks come before any thread.
//
// The walk: `run` → `Supervisor::serve` → `reconcile` → `Worker::start` (fork) → in the worker `run_worker` →
// the engine's `run`; in the master `poll_workers` → `reap`. The two share a core, its eventfds and its memory
// (`lifecycle::Scoreboard`). Rules without a process stand apart, and are tested alone: `starts`, `shares`.
// How connections are accepted or served is the engine's, and signal handlers are in `sys::worker`.

mod settings;
mod shares;
mod starts;
mod supervisor;
mod worker;

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::lifecycle::{of_a_master, Awaited, Core, Scoreboard, OF_A_WORKER};
use crate::listen::{Listener, LISTENERS};
use crate::server::{Bound, Engine, Single};
use crate::strategy::forking::{check_system, COUNT_THREADS};
use crate::sys::{self, process};
use settings::PreForkingSettings;
use supervisor::Supervisor;

pub use settings::{PreForking, WorkerExit};

impl<H, E: Engine<H>> Engine<H> for PreForking<E> {
    fn connection_limits(&self, handler: &H) -> Result<(usize, usize)> {
        self.settings.check()?;
        check_system(true)?;
        if self.engine.has_workers() {
            let why = "a worker process has no workers of its own; give it an engine that serves";
            return Err(Error::setting("PreForking::new", why));
        }
        let (each, most) = self.engine.connection_limits(handler)?;
        Ok((self.settings.workers.saturating_mul(each), self.settings.workers.saturating_mul(most)))
    }

    fn has_workers(&self) -> bool {
        true
    }

    /// Those of the master, or of a worker: whichever are more.
    fn descriptors(&self, connections: usize) -> usize {
        let workers = self.settings.workers.max(1);
        let in_a_worker = OF_A_WORKER + self.engine.descriptors(connections.div_ceil(workers));
        in_a_worker.max(of_a_master(workers))
    }

    fn prepare(&self, bound: &Bound, follows: bool, handler: &H) -> Result<()> {
        let (each, most) = self.engine.connection_limits(handler)?;
        let limit = (!follows).then(|| bound.core.admission.permits.limit());
        let scoreboard = Scoreboard::for_server(self.settings.workers, limit, each, most)
            .map_err(Error::system("map memory for the workers"))?;
        // Until all workers serve, the former process has these sockets too.
        scoreboard.keep_listeners(bound.listeners.iter().any(Listener::is_handed_over));
        bound.core.become_master(scoreboard);
        Ok(())
    }

    fn run(&mut self, bound: &Bound, handler: &Arc<H>) -> Result<u64> {
        let (_, most) = self.engine.connection_limits(handler)?;
        let Self { engine, settings } = self;
        let mut run = |bound: &Bound| {
            let _serving = bound.core.begin();
            engine.run(bound, handler)
        };
        supervisor(settings, bound, most, &mut run)?.serve()
    }

    /// Serves one connection in a worker of its own. Returns when that worker has ended.
    fn run_once(&mut self, bound: &Bound, handler: &Arc<H>, timeout: Option<Duration>) -> Result<Single> {
        let (_, most) = self.engine.connection_limits(handler)?;
        let Self { engine, settings } = self;
        let mut run = |bound: &Bound| {
            let single = engine.run_once(bound, handler, timeout)?;
            wait_until_idle(&bound.core)?;
            Ok(CODES.iter().position(|s| *s == single).unwrap_or(0) as u64 + 1)
        };
        let before = bound.core.totals().accepted;
        let answer = supervisor(settings, bound, most, &mut run)?.serve_once()?;
        let single = answer.and_then(|code| CODES.get(code as usize - 1).copied());
        match single {
            Some(single) => Ok(single),
            // It died without an answer. If a connection came, its handler is to blame, and that is counted.
            None if bound.core.totals().accepted > before => Ok(Single::Taken),
            None => Ok(Single::Stopped),
        }
    }
}

/// A worker's answer to its master is a place in this list, from one.
const CODES: [Single; 3] = [Single::Taken, Single::TimedOut, Single::Stopped];

/// Makes the supervisor of a run. It refuses before anything is forked.
fn supervisor<'a>(
    settings: &'a PreForkingSettings,
    bound: &'a Bound,
    most: usize,
    run: worker::Run<'a>,
) -> Result<Supervisor<'a>> {
    check_threads()?;
    if bound.listeners.len() > LISTENERS {
        let why = format!("{} addresses are more than {} at most", bound.listeners.len(), LISTENERS);
        return Err(Error::setting("listen", why));
    }
    let Some(scoreboard) = bound.core.scoreboard() else {
        return Err(Error::setting("PreForking", "the server was not made for it"));
    };
    Supervisor::new(bound, settings, scoreboard.clone(), most, run)
}

/// Refuses a fork beside other threads: it would copy the locks that they hold, but not the threads.
fn check_threads() -> Result<()> {
    match process::threads().map_err(Error::system(COUNT_THREADS))? {
        0 | 1 => Ok(()),
        count => Err(Error::Threads { others: count - 1 }),
    }
}

/// Waits for the end of the one connection. The engine may serve it on another thread than the one that
/// accepted it.
fn wait_until_idle(core: &Core) -> Result<()> {
    let _gate = core.admission.gate.lock();
    core.admission.permits.await_return(Awaited::End);
    loop {
        core.control.gate.clear();
        if core.admission.permits.active() == 0 {
            return Ok(());
        }
        let wait = [Some(core.control.gate.as_fd()), Some(core.control.now.as_fd())];
        let ready = sys::poll(wait, None, None).map_err(Error::system("wait for the end of a connection"))?;
        if ready.has(1) {
            return Ok(());
        }
    }
}
