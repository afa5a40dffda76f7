//! The settings of [`ServerBuilder`] that concern the process, and not one server alone.

use std::time::Duration;

use super::ServerBuilder;

impl<S> ServerBuilder<S> {
    /// Handles SIGINT and SIGTERM, from the bind until `serve_forever` returns. The first signal drains the
    /// server, and every other server of the process with this setting. A second signal ends the process at
    /// once, with status 128 + its number, even if a handler spins. The same signal within 10 ms is no second one:
    /// timeout(1) sends it to the process and to its group. [`PreForking`](crate::PreForking) handles more signals.
    ///
    /// Handlers that were installed before are called too, and restored at the end. A signal that was ignored
    /// (as SIGINT is in background jobs of a script) is handled too. A blocked one is unblocked in the thread
    /// that binds, and blocked again in the end. Defaults to off: signals belong to the
    /// process, and a library must not take them unasked.
    ///
    /// A program may bind, fork, and serve in the child ([the guide](crate::guide::forking#going-to-the-background)).
    /// The process that serves hears the signals.
    pub fn handle_signals(mut self) -> Self {
        self.plan.handles_signals = true;
        self
    }

    /// Reports to systemd, or another manager that sets `NOTIFY_SOCKET` (sd_notify(3)). `READY`: the server
    /// accepts; with [`PreForking`](crate::PreForking), all workers do. `RELOADING`, then `READY`: a
    /// [reload](crate::ServerHandle::reload). `STOPPING`: it drains. `STATUS` has the counters. For a
    /// unit with `Type=notify` or `Type=notify-reload`. Without `NOTIFY_SOCKET` it does nothing.
    ///
    /// With `WatchdogSec=`, `WATCHDOG` is reported at half that time, on the thread in
    /// [`serve_forever`](crate::TcpServer::serve_forever). So a loop that hangs in a callback is noticed, as are a
    /// master of worker processes, and [`Sequential`](crate::Sequential) in a long request. Handlers that hang on
    /// threads of their own are not: [`request_timeout`](Self::request_timeout) is for them.
    ///
    /// The bind unsets `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`, so one server of a process reports, and
    /// programs that it starts do not. If nobody receives at `NOTIFY_SOCKET`, the bind logs a warning and the
    /// server serves without reports. Defaults to off.
    pub fn notify_systemd(mut self) -> Self {
        self.plan.notifies_systemd = true;
        self
    }

    /// Gives up root's rights once all addresses are bound. The process becomes this user for good, with its groups
    /// (setresuid(2), setgroups(2)). It cannot gain rights again (`PR_SET_NO_NEW_PRIVS`). `USER` or `USER:GROUP`,
    /// each a name or a number. Defaults to `None`: the process stays as it is.
    ///
    /// All of the process changes, not only this server: bind the others before, and start threads afterwards.
    /// [`raise_descriptor_limit`](Self::raise_descriptor_limit) comes first, so it may raise the limit as far as
    /// root may. The user cannot remove a Unix socket and its lock from root's folder: they stay there, and the
    /// next start replaces them. A process that is this user already (systemd's `User=`) loses nothing.
    ///
    /// # Errors
    /// For an unknown user or group, the bind fails with [`Error::Setting`](crate::Error::Setting) before an address
    /// is bound. It fails with [`Error::System`](crate::Error::System) if the process is not root's, has other
    /// threads, or could regain root's rights.
    pub fn run_as<'a>(mut self, user: impl Into<Option<&'a str>>) -> Self {
        self.plan.run_as = user.into().map(str::to_owned);
        self
    }

    /// Lets the program be replaced while it serves: [`ServerHandle::restart`](crate::ServerHandle::restart), and
    /// SIGUSR2 with [`handle_signals`](Self::handle_signals), start it anew, and its new process takes over the
    /// sockets. `limit` is the time that it has to serve; then it is ended, and this one serves on. Defaults to off.
    /// [The guide](crate::guide::beyond#a-restart-without-a-balancer) has the walk, and what does not work.
    ///
    /// Set it on all servers of the program, since it comes back with all of them. The first such bind notes the
    /// path of the program. Each bind looks into the environment for sockets of a former process, with this setting
    /// or without.
    ///
    /// # Errors
    /// The bind fails with [`Error::Setting`](crate::Error::Setting) for a limit of zero, and together with
    /// [`from_listener`](Self::from_listener): the new process would bind that socket itself, in vain. Give the address,
    /// or `fd:NUMBER`.
    pub fn restartable(mut self, limit: Duration) -> Self {
        self.plan.restart_limit = Some(limit);
        self
    }

    /// Raises the soft limit on descriptors (`RLIMIT_NOFILE`) when the server is bound. The new limit is
    /// [`max_connections`](Self::max_connections) (1024 if not set) and 64 more, or the hard limit if that is
    /// lower. If that is not enough, a warning is logged when serving begins. Defaults to off.
    ///
    /// It is the limit of the process: it stays raised, and started programs inherit it. If they use
    /// select(2), which cannot take descriptors from 1024 on, set it back with `ulimit -Sn`. Children of
    /// [`Forking`](crate::Forking) get the former limit back.
    pub fn raise_descriptor_limit(mut self) -> Self {
        self.plan.raises_descriptor_limit = true;
        self
    }
}
