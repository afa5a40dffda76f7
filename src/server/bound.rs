//! [`Bound`]: a server without its handler and its strategy, and how a run begins and ends.

use std::sync::Arc;
use std::time::Duration;

use log::Level;

use crate::error::{Error, Result};
use crate::lifecycle::{Core, Restarts};
use crate::listen::Listener;
use crate::observe::{log_line, Report};
use crate::sys::master::MasterSignals;
use crate::sys::restart::RestartSignal;
use crate::sys::{limits, signal};

/// The listeners of a server and its shared state.
#[derive(Debug)]
pub struct Bound {
    pub(crate) core: Arc<Core>,
    pub(crate) listeners: Arc<Vec<Listener>>,
}

impl Bound {
    /// Serves once: `serve` runs the strategy until the stop, and returns the number of handlers that it has left
    /// running.
    pub(super) fn run(
        &self,
        signals: &mut Signals,
        has_workers: bool,
        serve: &mut dyn FnMut() -> Result<u64>,
    ) -> Result<Report> {
        self.serve_here()?;
        // A second run needs its signals again: the end of the first has put the former handlers back.
        signals.install(&self.core, has_workers)?;
        let _serving = self.core.begin();
        let before = self.core.totals();
        self.warn_of_few_descriptors();
        warn_of_panics_that_abort();
        let abandoned = serve();
        signals.put_back();
        self.core.monitor.report_left_out();
        let report = self.core.totals().since(before);
        Ok(Report { abandoned: abandoned?, ..report })
    }

    /// Makes this process the one that serves. The program may have forked since the bind.
    pub(super) fn serve_here(&self) -> Result<()> {
        self.core.serve_here().map_err(Error::system(SERVE_HERE))?;
        self.listeners.iter().for_each(Listener::serve_here);
        Ok(())
    }

    /// Adds the server to those that a restart replaces.
    pub(super) fn take_part_in(&self, restarts: Option<(&'static Restarts, Duration)>) {
        if let Some((restarts, limit)) = restarts {
            restarts.add(&self.core, &self.listeners, limit);
        }
    }

    /// Warns, once in a run, of a connection limit that the system does not allow.
    fn warn_of_few_descriptors(&self) {
        let (core, descriptors) = (&self.core, limits::descriptors());
        let processes = core.scoreboard().map_or(1, |scoreboard| scoreboard.wanted());
        // Each worker process has descriptors of its own.
        let limit = core.admission.permits.limit().div_ceil(processes.max(1));
        if limit > descriptors.saturating_sub(RESERVE) {
            let text = format_args!(
                "max_connections is {limit}, but RLIMIT_NOFILE is {descriptors}: raise it (ulimit -n, or \
                 raise_descriptor_limit()) or lower the limit"
            );
            log_line(Level::Warn, "socketserver::limits", text);
        }
    }
}

/// Warns, once in a run, that a panic cannot be contained.
fn warn_of_panics_that_abort() {
    if cfg!(panic = "abort") {
        let text = format_args!(
            "this program is built with panic=abort: a panic in a handler ends the process, with Forking that of its \
             connection"
        );
        log_line(Level::Warn, "socketserver::server", text);
    }
}

/// The signals that a server handles, from the bind to the end of a run: it is told them as soon as it listens.
#[derive(Debug)]
pub(super) struct Signals {
    wanted: bool,
    installed: Option<Installed>,
}

#[derive(Debug)]
struct Installed {
    _stop: signal::Guard,
    _master: Option<MasterSignals>,
    _restart: Option<RestartSignal>,
}

impl Signals {
    pub(super) fn new(wanted: bool) -> Self {
        Self { wanted, installed: None }
    }

    pub(super) fn install(&mut self, core: &Core, has_workers: bool) -> Result<()> {
        if self.wanted && self.installed.is_none() {
            let switch = core.control.switch().clone();
            let stop = signal::Guard::install(switch).map_err(Error::system("handle SIGINT and SIGTERM"))?;
            let master = has_workers.then(MasterSignals::install).transpose();
            let master = master.map_err(Error::system("handle SIGHUP, SIGTTIN and SIGTTOU"))?;
            let restart = core.restarts().map(|_| RestartSignal::install()).transpose();
            let restart = restart.map_err(Error::system("handle SIGUSR2"))?;
            self.installed = Some(Installed { _stop: stop, _master: master, _restart: restart });
        }
        Ok(())
    }

    /// Puts the former handlers back.
    fn put_back(&mut self) {
        self.installed = None;
    }
}

/// The act of a process that was forked since the bind, and serves.
pub(crate) const SERVE_HERE: &str = "serve in a process that was forked";

/// The descriptors that a server needs besides its connections.
const RESERVE: usize = 16;
