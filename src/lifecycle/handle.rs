//! [`ServerHandle`], the remote control of a server.

use std::sync::Arc;
use std::time::Duration;

use super::core::Core;
use super::restart::Restarts;
use super::scoreboard::check_count;
use crate::config::check_limit;
use crate::error::{Error, Result};
use crate::observe::{InHandler, Stats};
use crate::sys::wishes::Wish;

/// The remote control of a server. Clone it, keep it, send it to other threads. A handler gets it from
/// [`Connection::server`](crate::Connection::server).
#[derive(Debug, Clone)]
pub struct ServerHandle {
    pub(crate) core: Arc<Core>,
}

impl ServerHandle {
    /// Asks the server to stop. The server accepts no more connections and ends the waits of idle ones.
    /// Requests may finish within the drain limit; the server cuts the rest. Then
    /// [`serve_forever`](crate::TcpServer::serve_forever) returns.
    ///
    /// `shutdown` never blocks. Call it from anywhere (a handler, another thread, before serving), any number
    /// of times. (Python's `shutdown` blocks, and deadlocks in a handler.)
    ///
    /// A stop that comes before the server serves is kept: the next `serve_forever` only drains. The stop is
    /// over when a `serve_forever` has ended by it. The next one starts afresh, and a late second call changes
    /// nothing. [`handle_request`](crate::TcpServer::handle_request) does not drain, so the stop stays.
    pub fn shutdown(&self) {
        self.core.server().control.request_stop();
    }

    /// Stops as [`shutdown`](Self::shutdown) does, but cuts the connections at once. It also ends a drain in
    /// progress.
    pub fn shutdown_now(&self) {
        self.core.server().control.request_stop_now();
    }

    /// True if a stop was requested, so that a long request can end early. In a worker of
    /// [`PreForking`](crate::PreForking) it is also true if this worker is being replaced.
    pub fn is_shutting_down(&self) -> bool {
        self.core.control.with_master().any(|control| control.stopping())
    }

    /// Waits until the server is not serving. True if it is not, false if `timeout` has passed before
    /// (`None`: no limit).
    ///
    /// A server that has not begun yet is not serving. So if you start it on another thread, join that thread
    /// instead.
    ///
    /// # Errors
    /// [`Error::WaitInHandler`] in a handler of the same server: it would wait for itself.
    pub fn wait(&self, timeout: Option<Duration>) -> Result<bool> {
        if InHandler::is_here(self.core.monitor.server) {
            return Err(Error::WaitInHandler);
        }
        Ok(self.core.wait(timeout))
    }

    /// Stops accepting until [`resume`](Self::resume). Connections in progress go on. New ones wait in the
    /// kernel's queue. A connection that is being accepted at this moment may still be served.
    pub fn pause(&self) {
        self.core.server().control.pause();
    }

    /// Accepts again.
    pub fn resume(&self) {
        let control = &self.core.server().control;
        control.resume();
        // A master passes it on to its workers.
        control.wake_supervisor();
    }

    /// True if accepting is paused.
    pub fn is_paused(&self) -> bool {
        self.core.server().control.paused()
    }

    /// Changes the connection limit. A lower limit cuts no connection: it holds once enough have ended.
    ///
    /// # Errors
    /// [`Error::Setting`] for zero. To accept nothing, call [`pause`](Self::pause).
    pub fn set_max_connections(&self, limit: usize) -> Result<()> {
        check_limit(limit)?;
        let core = self.core.server();
        core.set_limit(limit);
        core.control.wake_gate();
        core.control.wake_supervisor();
        Ok(())
    }

    /// Changes the number of worker processes of [`PreForking`](crate::PreForking). The master starts the
    /// missing workers, or drains the surplus. SIGTTIN adds one worker, SIGTTOU removes one.
    ///
    /// # Errors
    /// [`Error::Setting`] for zero, for more than 512, and for a server without such workers.
    pub fn set_workers(&self, count: usize) -> Result<()> {
        let core = self.core.server();
        let Some(scoreboard) = core.scoreboard() else { return Err(without_workers("set_workers")) };
        check_count("set_workers", count)?;
        if core.control.wish(Wish::Workers(count)) {
            return Ok(());
        }
        scoreboard.set_wanted(count, &core.admission.permits);
        core.control.wake_supervisor();
        Ok(())
    }

    /// Replaces all worker processes of [`PreForking`](crate::PreForking), one after another. Each new worker
    /// is ready before the old one is drained, so no connection is lost. `reload` returns at once. SIGHUP
    /// does the same.
    ///
    /// New workers are forked from the master, so code and configuration in the master's memory stay as they
    /// are. The master reads the files of TLS again. What [`after_fork`](crate::PreForking::after_fork) reads is read again.
    ///
    /// # Errors
    /// [`Error::Setting`] for a server without such workers.
    pub fn reload(&self) -> Result<()> {
        let core = self.core.server();
        let Some(scoreboard) = core.scoreboard() else { return Err(without_workers("reload")) };
        if !core.control.wish(Wish::Reload) {
            scoreboard.reload();
        }
        core.control.wake_supervisor();
        Ok(())
    }

    /// Replaces this process without a loss: starts the program anew, and returns when the new process serves.
    /// Returns its process number. It is for a new version of the program, or a new configuration.
    ///
    /// The new process is the successor. It gets the same arguments, the present environment and working directory,
    /// and the listening sockets of all servers that are [restartable](crate::ServerBuilder::restartable). It binds
    /// its addresses as always, and each bind takes the socket that is there already. When all of them are served,
    /// this process drains, and its `serve_forever` returns. Until then it serves on. SIGUSR2 does the same.
    ///
    /// `restart` waits: a handler on a thread may call it. [`request_restart`](Self::request_restart) does not wait.
    ///
    /// # Errors
    /// [`Error::Restart`] with the reason, which is logged too; this process serves on:
    /// - the successor could not be started, has ended before it was ready, or was not ready within its time;
    /// - another restart is under way, or no restartable server is in `serve_forever`;
    /// - the call would wait for itself: on the thread that serves, in a child or in a worker process;
    /// - this is process 1 of a container.
    ///
    /// [`Error::Setting`] if the server is not restartable.
    pub fn restart(&self) -> Result<u32> {
        let restarts = self.restarts("restart")?;
        if self.core.is_worker() || self.core.control.in_child() {
            let why = "this process is a child of the server, and cannot wait for it; call request_restart";
            return Err(Error::Restart { why: why.to_owned() });
        }
        restarts.restart()
    }

    /// Asks for a [restart](Self::restart), and does not wait for it. Call it from anywhere: a callback of an event
    /// loop, a child, a worker process. The log has the outcome.
    ///
    /// # Errors
    /// [`Error::Setting`] if the server is not restartable.
    pub fn request_restart(&self) -> Result<()> {
        let restarts = self.restarts("request_restart")?;
        if !self.core.server().control.wish(Wish::Restart) {
            restarts.request();
        }
        Ok(())
    }

    fn restarts(&self, name: &'static str) -> Result<&'static Restarts> {
        let restarts = self.core.server().hooks.restarts;
        restarts.ok_or_else(|| Error::setting(name, "this server was not made with ServerBuilder::restartable"))
    }

    /// Does what a child has asked for, as far as it makes sense: the child may have written anything.
    pub(crate) fn fulfil(&self, wish: Wish) {
        match wish {
            Wish::Stop => self.shutdown(),
            Wish::StopNow => self.shutdown_now(),
            Wish::Pause => self.pause(),
            Wish::Resume => self.resume(),
            Wish::Limit(limit) => drop(self.set_max_connections(limit)),
            Wish::Workers(count) => drop(self.set_workers(count)),
            Wish::Reload => drop(self.reload()),
            Wish::Restart => drop(self.request_restart()),
            Wish::ErrorSaid => drop(self.core.server().monitor.unheard.note()),
        }
    }

    /// Returns the counters at this moment.
    #[doc(alias = "metrics")]
    pub fn stats(&self) -> Stats {
        self.core.server().stats()
    }
}

fn without_workers(name: &'static str) -> Error {
    Error::setting(name, "this server has no worker processes; the strategy PreForking has some")
}
