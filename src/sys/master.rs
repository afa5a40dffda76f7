//! The signals of a master of worker processes: SIGHUP, SIGTTIN and SIGTTOU.
//!
//! They are handled from the bind on, like SIGINT and SIGTERM. A program may send them as soon as it reads
//! that the server listens. A run then does what they have asked for.
//!
//! The handler does only what signal-safety(7) allows: atomics, `signal`, `write`.

use std::io;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, Ordering::SeqCst};
use std::sync::Arc;

use nix::errno::Errno;
use nix::libc::{self, c_int, c_void, siginfo_t};
use nix::sys::signal::{sigaction, SaFlags, SigAction, SigHandler, SigSet, Signal};
use parking_lot::Mutex;

use super::process::disposition;
use super::signal::Unblocked;
use super::stop_switch::StopSwitch;

/// The signals of a master: reload, one worker more, one worker fewer.
pub(crate) const MASTER_SIGNALS: [Signal; 3] = [Signal::SIGHUP, Signal::SIGTTIN, Signal::SIGTTOU];

/// The switch of the master that runs now.
static MASTER: AtomicPtr<StopSwitch> = AtomicPtr::new(null_mut());
static RELOAD: AtomicBool = AtomicBool::new(false);
static MORE: AtomicI32 = AtomicI32::new(0);
/// True if the terminal has sent SIGTTIN or SIGTTOU, so that the signal is ignored until the master's next turn.
static IS_IGNORED: AtomicBool = AtomicBool::new(false);

static INSTALLED: Mutex<Installed> = Mutex::new(Installed { users: 0, former: Vec::new() });

struct Installed {
    users: usize,
    former: Vec<(Signal, SigAction)>,
}

extern "C" fn on_master_signal(number: c_int, info: *mut siginfo_t, _context: *mut c_void) {
    let errno = Errno::last_raw();
    // SAFETY: the kernel gives a handler with SA_SIGINFO a valid siginfo_t.
    let is_from_a_process = unsafe { (*info).si_code } <= 0;
    match number {
        libc::SIGHUP => RELOAD.store(true, SeqCst),
        // The terminal itself sends these two when a process in the background reads, or writes with `stty
        // tostop`. The call would begin again, and bring the signal again, for ever. Ignored, it goes on.
        _ if !is_from_a_process => {
            // SAFETY: `signal` is async-signal-safe, and an ignored signal runs no code.
            unsafe { libc::signal(number, libc::SIG_IGN) };
            IS_IGNORED.store(true, SeqCst);
        }
        libc::SIGTTIN => drop(MORE.fetch_add(1, SeqCst)),
        _ => drop(MORE.fetch_sub(1, SeqCst)),
    }
    // SAFETY: a non-null pointer comes from an Arc that a `Run` keeps. It clears the pointer before it lets go, on
    // the only thread there is.
    if let Some(switch) = unsafe { MASTER.load(SeqCst).as_ref() } {
        switch.wake_supervisor();
    }
    Errno::set_raw(errno);
}

fn handle(signal: Signal) -> nix::Result<SigAction> {
    let handler = SigHandler::SigAction(on_master_signal);
    let action = SigAction::new(handler, SaFlags::SA_RESTART | SaFlags::SA_ONSTACK, SigSet::empty());
    // SAFETY: the handler is async-signal-safe, see the head of this file.
    unsafe { sigaction(signal, &action) }
}

/// While this lives, SIGHUP, SIGTTIN and SIGTTOU are handled. The last one to go restores the former handlers.
#[derive(Debug)]
pub(crate) struct MasterSignals {
    _unblocked: Unblocked,
}

impl MasterSignals {
    pub(crate) fn install() -> io::Result<Self> {
        let unblocked = Unblocked::these(&MASTER_SIGNALS)?;
        let mut installed = INSTALLED.lock();
        installed.users += 1;
        // From here on, a drop takes back what is done, after a failure too.
        let this = Self { _unblocked: unblocked };
        if installed.users > 1 {
            return Ok(this);
        }
        RELOAD.store(false, SeqCst);
        MORE.store(0, SeqCst);
        for signal in MASTER_SIGNALS {
            match handle(signal) {
                Ok(former) => installed.former.push((signal, former)),
                Err(e) => {
                    drop(installed);
                    return Err(e.into());
                }
            }
        }
        Ok(this)
    }
}

impl Drop for MasterSignals {
    fn drop(&mut self) {
        let mut installed = INSTALLED.lock();
        installed.users -= 1;
        if installed.users > 0 {
            return;
        }
        for (signal, former) in installed.former.drain(..) {
            // SAFETY: this puts back what `sigaction` itself returned.
            let _ = unsafe { sigaction(signal, &former) };
        }
    }
}

/// Forgets the signals in a forked worker, where they are the master's.
pub(crate) fn forget() {
    MASTER.store(null_mut(), SeqCst);
    *INSTALLED.lock() = Installed { users: 0, former: Vec::new() };
}

/// The run of a master whose server handles signals. While it lives, they wake this master.
#[derive(Debug)]
pub(crate) struct Run {
    _switch: Arc<StopSwitch>,
}

impl Run {
    pub(crate) fn begin(switch: &Arc<StopSwitch>) -> Self {
        MASTER.store(Arc::as_ptr(switch).cast_mut(), SeqCst);
        // A program that goes to the background after the bind may have reset all handlers (daemon(7)).
        for signal in MASTER_SIGNALS.into_iter().filter(|signal| disposition(*signal) == Some(libc::SIG_DFL)) {
            let _ = handle(signal);
        }
        Self { _switch: switch.clone() }
    }

    /// Returns whether a reload was asked for since the last call, and how many workers more, or fewer.
    pub(crate) fn asked(&self) -> (bool, i32) {
        if IS_IGNORED.swap(false, SeqCst) {
            // What the terminal has interrupted is done by now.
            let _ = (handle(Signal::SIGTTIN), handle(Signal::SIGTTOU));
        }
        (RELOAD.swap(false, SeqCst), MORE.swap(0, SeqCst))
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        MASTER.store(null_mut(), SeqCst);
    }
}
