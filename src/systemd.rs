//! [`Notifier`]: tells the service manager how the server is (sd_notify(3)).
//!
//! Each message is one datagram. The socket stays open, because a server without a free descriptor must still be able
//! to say that it lives.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fmt::Display;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::atomic::{AtomicU8, Ordering::SeqCst};
use std::time::Duration;

use nix::time::{clock_gettime, ClockId};

use crate::sys::process::Private;

/// The pause between two reports if the manager has no watchdog.
const REPORT_EVERY: Duration = Duration::from_secs(10);

/// What the manager was told last.
const STARTING: u8 = 0;
const READY: u8 = 1;
const RELOADING: u8 = 2;
const STOPPING: u8 = 3;
const RESTARTING: u8 = 4;
const HANDED_OVER: u8 = 5;

/// The connection to a service manager.
#[derive(Debug)]
pub(crate) struct Notifier {
    socket: Private<UnixDatagram>,
    /// The pause between two reports. Half the watchdog's time, as sd_watchdog_enabled(3) advises.
    pub(crate) every: Duration,
    has_watchdog: bool,
    told: AtomicU8,
    /// What a successor needs to report as this process does.
    environment: Vec<(&'static str, OsString)>,
}

impl Notifier {
    /// Connects to the socket that `NOTIFY_SOCKET` names. `None` without one. It unsets the variables, so that
    /// programs that are started do not report as this one.
    ///
    /// # Errors
    /// The name is neither a path nor `@NAME`, or nobody receives there.
    pub(crate) fn from_environment() -> io::Result<Option<Self>> {
        let [name, usec, pid] = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"].map(|name| {
            let value = env::var_os(name);
            env::remove_var(name);
            value
        });
        let Some(name) = name else { return Ok(None) };
        let socket = connect(&name).map_err(|e| {
            let name = name.as_bytes().escape_ascii();
            io::Error::new(e.kind(), format!("NOTIFY_SOCKET is {name}: {e}"))
        })?;
        // Without `WATCHDOG_PID`, which is this process: the time is for the one that has the variable.
        let environment = [("NOTIFY_SOCKET", Some(name)), ("WATCHDOG_USEC", usec.clone())];
        let environment = environment.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
        let watchdog = watchdog(std::process::id(), usec, pid);
        let every = watchdog.map_or(REPORT_EVERY, |time| time / 2).max(Duration::from_millis(1));
        let (socket, told) = (Private::new(socket), AtomicU8::new(STARTING));
        Ok(Some(Self { socket, every, has_watchdog: watchdog.is_some(), told, environment }))
    }

    /// The server accepts. Told once, and again after a reload.
    pub(crate) fn ready<S: Display>(&self, status: impl FnOnce() -> S) {
        // Every turn of a loop comes here, so the usual case is one read.
        if matches!(self.told.load(SeqCst), STARTING | RELOADING) && self.told.swap(READY, SeqCst) != READY {
            let process = std::process::id();
            self.send(format_args!("READY=1\nMAINPID={process}\nSTATUS={}", status()));
        }
    }

    /// A reload has begun. [`ready`](Self::ready) ends it.
    pub(crate) fn reloading(&self) {
        if self.told.compare_exchange(READY, RELOADING, SeqCst, SeqCst).is_ok() {
            self.send(format_args!("RELOADING=1\nMONOTONIC_USEC={}\nSTATUS=reloading", monotonic_usec()));
        }
    }

    /// The server begins to stop. A server that serves again later is ready again.
    pub(crate) fn stopping(&self, status: impl Display) {
        if !self.is_over() && self.told.swap(STOPPING, SeqCst) != STOPPING {
            self.send(format_args!("STOPPING=1\nSTATUS={status}"));
        }
    }

    /// A successor is started. [`serves_on`](Self::serves_on) or [`handed_over`](Self::handed_over) ends it.
    pub(crate) fn restarting(&self) {
        if self.told.compare_exchange(READY, RESTARTING, SeqCst, SeqCst).is_ok() {
            self.send(format_args!("RELOADING=1\nMONOTONIC_USEC={}\nSTATUS=restarting", monotonic_usec()));
        }
    }

    /// There is no successor.
    pub(crate) fn serves_on(&self, status: impl Display) {
        if self.told.compare_exchange(RESTARTING, READY, SeqCst, SeqCst).is_ok() {
            self.send(format_args!("READY=1\nSTATUS={status}"));
        }
    }

    /// A successor serves. The manager hears it from this process, which has been the main one so far, and nothing
    /// more of this process.
    pub(crate) fn handed_over(&self, pid: u32) {
        self.told.store(HANDED_OVER, SeqCst);
        self.send(format_args!("MAINPID={pid}\nREADY=1\nSTATUS=process {pid} serves"));
    }

    /// Returns the variables that this process has unset.
    pub(crate) fn environment(&self) -> Vec<(&'static str, OsString)> {
        self.environment.clone()
    }

    fn is_over(&self) -> bool {
        self.told.load(SeqCst) == HANDED_OVER
    }

    /// A new run begins.
    pub(crate) fn starting(&self) {
        if !self.is_over() {
            self.told.store(STARTING, SeqCst);
        }
    }

    /// The server lives, and this is how it does.
    pub(crate) fn alive(&self, status: impl Display) {
        let watchdog = if self.has_watchdog { "WATCHDOG=1\n" } else { "" };
        if !self.is_over() {
            self.send(format_args!("{watchdog}STATUS={status}"));
        }
    }

    /// A manager that does not read, or is gone, is no reason to wait or to fail: it has its own time limits.
    fn send(&self, message: std::fmt::Arguments<'_>) {
        let _ = self.socket.send(message.to_string().as_bytes());
    }
}

fn connect(name: &OsStr) -> io::Result<UnixDatagram> {
    let address = match name.as_bytes() {
        [b'@', abstract_name @ ..] => SocketAddr::from_abstract_name(abstract_name)?,
        [b'/', ..] => SocketAddr::from_pathname(name)?,
        _ => return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is neither a path nor @NAME")),
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.connect_addr(&address)?;
    Ok(socket)
}

/// Returns the watchdog's time, if there is one and it is for this process.
fn watchdog(process: u32, usec: Option<OsString>, pid: Option<OsString>) -> Option<Duration> {
    let usec: u64 = usec?.to_str()?.parse().ok()?;
    let is_ours = pid.map_or(true, |pid| pid.to_str().and_then(|pid| pid.parse().ok()) == Some(process));
    (is_ours && usec > 0).then(|| Duration::from_micros(usec))
}

fn monotonic_usec() -> u128 {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |now| Duration::from(now).as_micros())
}
