//! SIGUSR2, which asks for a restart, and the request itself.
//!
//! One request serves the whole process: a program is started anew with all of its servers. The handler does only
//! what signal-safety(7) allows: atomics and `write`.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::OnceLock;

use nix::errno::Errno;
use nix::libc::{self, c_int};
use nix::sys::signal::{sigaction, SaFlags, SigAction, SigHandler, SigSet, Signal};
use parking_lot::Mutex;

use super::fork;
use super::process::{disposition, Private};
use super::signal::Unblocked;
use super::EventFd;

/// The signal that asks for a restart, as nginx and gunicorn have it.
pub(crate) const SIGNAL: Signal = Signal::SIGUSR2;

/// The request of this process. Made once, so a handler may look at it at any time.
static REQUEST: OnceLock<Request> = OnceLock::new();

/// A request for a restart, and the eventfd that announces it.
#[derive(Debug)]
pub(crate) struct Request {
    is_there: AtomicBool,
    event: Private<EventFd>,
    /// The mark of the process that obeys.
    owner: AtomicU64,
}

impl Request {
    /// Returns the request of this process.
    pub(crate) fn of_this_process() -> io::Result<&'static Self> {
        if REQUEST.get().is_none() {
            let event = Private::new(EventFd::new()?);
            let owner = AtomicU64::new(fork::this_process());
            let _ = REQUEST.set(Self { is_there: AtomicBool::new(false), event, owner });
        }
        REQUEST.get().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Asks for a restart. Async-signal-safe.
    pub(crate) fn make(&self) {
        self.is_there.store(true, SeqCst);
        self.event.set();
    }

    /// True if a restart was asked for since the last call.
    pub(crate) fn take(&self) -> bool {
        // Cleared before the look: what comes later sets it again.
        self.event.clear();
        self.is_there.swap(false, SeqCst)
    }

    /// True if a restart was asked for, and nobody has taken the request.
    pub(crate) fn is_made(&self) -> bool {
        self.is_there.load(SeqCst)
    }

    /// Makes this process the one that obeys, after a fork. True if it was another one.
    pub(crate) fn own(&self) -> io::Result<bool> {
        let is_new = self.owner.swap(fork::this_process(), SeqCst) != fork::this_process();
        if is_new {
            self.event.renew()?;
        }
        Ok(is_new)
    }
}

impl AsFd for Request {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

extern "C" fn on_restart_signal(_number: c_int) {
    let errno = Errno::last_raw();
    // A child that is about to start the successor has a copy of the handler.
    if let Some(request) = REQUEST.get().filter(|request| fork::is_this_process(request.owner.load(SeqCst))) {
        request.make();
    }
    Errno::set_raw(errno);
}

fn handle() -> nix::Result<SigAction> {
    let handler = SigHandler::Handler(on_restart_signal);
    let action = SigAction::new(handler, SaFlags::SA_RESTART | SaFlags::SA_ONSTACK, SigSet::empty());
    // SAFETY: the handler is async-signal-safe, see the head of this file.
    unsafe { sigaction(SIGNAL, &action) }
}

/// Installs the handler again in a process that was forked since, if it has reset all handlers (daemon(7)).
pub(crate) fn take_over() -> io::Result<()> {
    if INSTALLED.lock().0 > 0 && disposition(SIGNAL) == Some(libc::SIG_DFL) {
        handle()?;
    }
    Ok(())
}

static INSTALLED: Mutex<(usize, Option<SigAction>)> = Mutex::new((0, None));

/// While this lives, SIGUSR2 asks for a restart. The last one to go restores the former handler.
#[derive(Debug)]
pub(crate) struct RestartSignal {
    _unblocked: Unblocked,
}

impl RestartSignal {
    pub(crate) fn install() -> io::Result<Self> {
        let unblocked = Unblocked::these(&[SIGNAL])?;
        let mut installed = INSTALLED.lock();
        if installed.0 == 0 {
            installed.1 = Some(handle()?);
        }
        installed.0 += 1;
        Ok(Self { _unblocked: unblocked })
    }
}

impl Drop for RestartSignal {
    fn drop(&mut self) {
        let mut installed = INSTALLED.lock();
        installed.0 -= 1;
        if installed.0 == 0 {
            if let Some(former) = installed.1.take() {
                // SAFETY: this puts back what `sigaction` itself returned.
                let _ = unsafe { sigaction(SIGNAL, &former) };
            }
        }
    }
}

/// The signal, if this process handles it: its children leave it to it then.
pub(crate) fn handled() -> Option<Signal> {
    (INSTALLED.lock().0 > 0).then_some(SIGNAL)
}
