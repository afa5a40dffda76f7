//! The remote control of a server.

use std::sync::Arc;
use std::time::Duration;

use super::core::Core;
use super::scoreboard::check_count;
use crate::config::check_limit;
use crate::error::{Error, Result};
use crate::observe::{InHandler, Stats};

/// The remote control of a server: clone it, keep it, send it to other threads, or take it from a connection with
/// [`Connection::server`](crate::Connection::server).
#[derive(Debug, Clone)]
pub struct ServerHandle {
    pub(crate) core: Arc<Core>,
}

impl ServerHandle {
    /// Asks the server to stop: it accepts no more, ends the waits of idle connections, lets requests finish within
    /// the drain limit, cuts the rest, and [`serve_forever`](crate::TcpServer::serve_forever) returns.
    ///
    /// Never blocks; may be called from anywhere (a handler, another thread, before serving) and any number of
    /// times. It holds: a server that was told to stop before it serves returns at once from the next
    /// `serve_forever`. Once a run has ended by it, the next run starts afresh, and a late second call changes nothing.
    /// (Python's `shutdown` blocks, and deadlocks in a handler.)
    pub fn shutdown(&self) {
        self.core.server().control.request_stop();
    }

    /// As [`shutdown`](Self::shutdown), but cuts the connections at once. Also hastens a drain in progress.
    pub fn shutdown_now(&self) {
        self.core.server().control.request_stop_now();
    }

    /// Whether a stop has been asked for, so that a long request can end early. From a connection of a worker of
    /// [`PreForking`](crate::PreForking) also: whether that worker is to end, for another one in its place.
    pub fn is_shutting_down(&self) -> bool {
        self.core.control.with_master().any(|control| control.stopping())
    }

    /// Waits until the server is not serving: `true` then, `false` once `timeout` has passed (`None`: no limit). A
    /// server that has not begun yet is not serving; whoever starts it on another thread joins that thread instead.
    ///
    /// # Errors
    /// [`Error::WaitInHandler`] in a handler of this very server, which would wait for itself.
    pub fn wait(&self, timeout: Option<Duration>) -> Result<bool> {
        if InHandler::is_here(self.core.monitor.server) {
            return Err(Error::WaitInHandler);
        }
        Ok(self.core.wait(timeout))
    }

    /// Accepts no more until [`resume`](Self::resume). Connections in progress go on; new ones wait in the kernel's
    /// queue. One connection whose acceptance has already begun may still be served.
    pub fn pause(&self) {
        self.core.server().control.pause();
    }

    /// Accepts again.
    pub fn resume(&self) {
        let control = &self.core.server().control;
        control.resume();
        control.ring(); // for a master, who tells its workers
    }

    /// Whether accepting is paused.
    pub fn is_paused(&self) -> bool {
        self.core.server().control.paused()
    }

    /// Changes how many connections are served at once. A lower limit cuts nobody: it holds once enough have ended.
    ///
    /// # Errors
    /// [`Error::Setting`] for zero; [`pause`](Self::pause) is the way to accept nothing.
    pub fn set_max_connections(&self, limit: usize) -> Result<()> {
        check_limit(limit)?;
        let core = self.core.server();
        core.set_limit(limit);
        core.control.ring_gate();
        core.control.ring();
        Ok(())
    }

    /// Changes how many worker processes serve, where they are [`PreForking`](crate::PreForking)'s: new ones are
    /// started, or those too many are drained. SIGTTIN and SIGTTOU do it by one.
    ///
    /// # Errors
    /// [`Error::Setting`] for zero or more than 512, and where the server has no such workers.
    pub fn set_workers(&self, count: usize) -> Result<()> {
        let core = self.core.server();
        let Some(scoreboard) = core.scoreboard() else { return Err(without_workers("set_workers")) };
        check_count("set_workers", count)?;
        scoreboard.set_wanted(count, &core.admission.permits);
        core.control.ring();
        Ok(())
    }

    /// Replaces all worker processes of [`PreForking`](crate::PreForking), one after another: each new one is ready
    /// before its predecessor is drained, so that nothing is lost. Returns at once. SIGHUP does the same. What the new
    /// ones are made of is the master's memory: code and configuration that it has read when it began stay as they
    /// are, while what [`after_fork`](crate::PreForking::after_fork) reads is read anew.
    ///
    /// # Errors
    /// [`Error::Setting`] where the server has no such workers.
    pub fn reload(&self) -> Result<()> {
        let core = self.core.server();
        let Some(scoreboard) = core.scoreboard() else { return Err(without_workers("reload")) };
        scoreboard.reload();
        core.control.ring();
        Ok(())
    }

    /// The counters at this moment.
    pub fn stats(&self) -> Stats {
        self.core.server().stats()
    }
}

fn without_workers(name: &'static str) -> Error {
    Error::setting(name, "this server has no worker processes; the strategy PreForking has some")
}
