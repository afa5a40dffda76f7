//! [`Plan`]: all settings of a server but its strategy, and the bind, as far as it knows no handler.

use std::sync::Arc;
use std::time::Duration;

use log::Level;

use super::bound::Bound;
use crate::config::{check_limit, check_needed_time, ServerSettings};
use crate::error::{Error, Result};
use crate::lifecycle::{Core, Hooks, Restarts};
use crate::listen::{bind, check_sockets, Access, BindOptions, Listener};
use crate::net::Address;
use crate::observe::log_line;
use crate::privileges::RunAs;
use crate::sys::limits;
use crate::sys::socket::{SockType, TcpOptions};
use crate::systemd::Notifier;

/// What a [`ServerBuilder`](super::ServerBuilder) has been told.
pub(super) struct Plan {
    pub(super) settings: ServerSettings,
    pub(super) hooks: Hooks,
    pub(super) max_connections: Option<usize>,
    pub(super) reuse_port: bool,
    pub(super) only_v6: Option<bool>,
    pub(super) no_delay: bool,
    pub(super) keep_alive: bool,
    pub(super) keep_alive_time: Option<Duration>,
    pub(super) access: Access,
    pub(super) handles_signals: bool,
    pub(super) raises_descriptor_limit: bool,
    pub(super) notifies_systemd: bool,
    pub(super) run_as: Option<String>,
    pub(super) restart_limit: Option<Duration>,
    pub(super) addresses: Vec<Address>,
    pub(super) adopted: Vec<Result<Listener>>,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            settings: ServerSettings::default(),
            hooks: Hooks::default(),
            max_connections: None,
            reuse_port: false,
            only_v6: None,
            no_delay: true,
            keep_alive: true,
            keep_alive_time: None,
            access: Access::default(),
            handles_signals: false,
            raises_descriptor_limit: false,
            notifies_systemd: false,
            run_as: None,
            restart_limit: None,
            addresses: Vec::new(),
            adopted: Vec::new(),
        }
    }
}

/// A server that listens, and the restarts that it is to take part in once its strategy is prepared.
pub(super) struct Opened {
    pub(super) bound: Bound,
    pub(super) restarts: Option<(&'static Restarts, Duration)>,
}

impl Plan {
    /// Checks the settings, before the strategy is asked: its default limit depends on the descriptors.
    pub(super) fn check(&self) -> Result<Option<RunAs>> {
        self.settings.check()?;
        self.hooks.check()?;
        self.check_restarts()?;
        let run_as = self.run_as.as_deref().map(RunAs::named).transpose()?;
        if self.raises_descriptor_limit {
            let wanted = self.max_connections.unwrap_or(1024).saturating_add(64);
            limits::raise_descriptors(wanted).map_err(Error::system("raise RLIMIT_NOFILE"))?;
        }
        Ok(run_as)
    }

    /// Opens the sockets. The strategy has said its default limit, its capacity, and how many descriptors a number
    /// of connections needs.
    pub(super) fn open(
        mut self,
        kind: SockType,
        (default, capacity): (usize, usize),
        of_strategy: &dyn Fn(usize) -> usize,
    ) -> Result<Opened> {
        let limit = self.max_connections.unwrap_or(default);
        check_limit(limit)?;
        self.check_descriptors(limit, capacity, of_strategy)?;
        let restarts = self.restarts()?;
        // All settings are checked before the first socket: a mistake must not leave a bound address.
        let listeners = self.open_sockets(kind)?;
        let mut hooks = self.hooks;
        if self.notifies_systemd {
            hooks.notifier = reach_manager();
        }
        hooks.observers.know(&listeners);
        hooks.restarts = restarts.map(|(restarts, _)| restarts);
        let core =
            Core::new(self.settings, hooks, limit, capacity).map_err(Error::system("make the server's wake-ups"))?;
        // The program that has passed a socket keeps it, and starts another one when this ends.
        if listeners.iter().any(Listener::is_adopted) {
            core.control.is_to_be_succeeded();
        }
        core.has_taken_over(listeners.iter().filter(|listener| listener.is_handed_over()).count());
        Ok(Opened { bound: Bound { core, listeners: Arc::new(listeners) }, restarts })
    }

    /// Opens the sockets on all addresses, behind those that were given.
    fn open_sockets(&mut self, kind: SockType) -> Result<Vec<Listener>> {
        let tcp = TcpOptions {
            backlog: i32::try_from(self.settings.backlog).unwrap_or(i32::MAX),
            reuse_port: self.reuse_port,
            only_v6: self.only_v6,
            no_delay: self.no_delay,
            keep_alive: self.keep_alive,
            keep_alive_time: self.keep_alive_time,
        };
        check_sockets(tcp, self.access)?;
        let options = BindOptions { kind, tcp, access: self.access };
        let mut listeners = std::mem::take(&mut self.adopted).into_iter().collect::<Result<Vec<_>>>()?;
        for address in &self.addresses {
            listeners.extend(bind(address, options)?);
        }
        Ok(listeners)
    }

    fn check_restarts(&self) -> Result<()> {
        let Some(limit) = self.restart_limit else { return Ok(()) };
        check_needed_time("restartable", limit)?;
        if !self.adopted.is_empty() {
            let why =
                "the successor would bind a socket of from_listener itself, in vain; give its address, or fd:NUMBER";
            return Err(Error::setting("restartable", why));
        }
        Ok(())
    }

    /// Returns the restarts of this process, if the server is to take part in them, and the time for each.
    fn restarts(&self) -> Result<Option<(&'static Restarts, Duration)>> {
        let Some(limit) = self.restart_limit else { return Ok(None) };
        let restarts = Restarts::of_this_process().map_err(Error::system("prepare for restarts"))?;
        Ok(Some((restarts, limit)))
    }

    /// Checks that the process may open what the server needs: a server that has said that it listens must be able
    /// to serve.
    fn check_descriptors(&self, limit: usize, capacity: usize, of_strategy: &dyn Fn(usize) -> usize) -> Result<()> {
        // A pool of N threads promises N connections. Without such a number, connections beyond the descriptors
        // wait in the kernel's queue.
        let connections = if capacity == usize::MAX { 1 } else { limit.min(capacity) };
        // A Unix socket has its lock and its folder open.
        let of_each = |address: &Address| if matches!(address, Address::Unix(_)) { 3 } else { 1 };
        let own = OF_A_CORE
            + usize::from(self.notifies_systemd)
            + if self.restart_limit.is_some() { OF_RESTARTS } else { 0 }
            + self.addresses.iter().map(of_each).sum::<usize>();
        let needed = own.saturating_add(of_strategy(connections));
        if self.raises_descriptor_limit && capacity != usize::MAX {
            limits::raise_descriptors(needed.saturating_add(64)).map_err(Error::system("raise RLIMIT_NOFILE"))?;
        }
        let (free, most) = (limits::free_descriptors(needed), limits::descriptors());
        if free >= needed {
            return Ok(());
        }
        let why = format!(
            "to serve {connections} at once, the server needs {needed} descriptors, and may open {free}: RLIMIT_NOFILE \
             is {most}; raise it (ulimit -n, or raise_descriptor_limit()), or serve fewer"
        );
        Err(Error::setting("max_connections", why))
    }
}

/// Connects to the service manager. A server that cannot report serves all the same, as sd_notify(3) advises.
fn reach_manager() -> Option<Notifier> {
    Notifier::from_environment().unwrap_or_else(|e| {
        let text = format_args!("cannot reach the service manager, and serves without its reports: {e}");
        log_line(Level::Warn, "socketserver::server", text);
        None
    })
}

/// The descriptors by which a process waits for restarts, and the set of an accepting thread that watches them.
const OF_RESTARTS: usize = 3;

/// The descriptors of a server's wake-ups, and the one that it refuses with.
const OF_A_CORE: usize = 5;
