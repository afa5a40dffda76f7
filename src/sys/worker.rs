//! Signals of worker processes and of their master, the pipe that tells of its death, and names.
//!
//! The handlers do only what signal-safety(7) allows: atomics, `poll`, `shutdown`, `dup3`, `clock_gettime`,
//! `write`.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU64, Ordering::SeqCst};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{fcntl, FcntlArg, OFlag};
use nix::libc::{self, c_int};
use nix::sys::signal::{sigaction, SaFlags, SigAction, SigHandler, SigSet, Signal};
use nix::unistd::pipe2;

use super::process::Private;
use super::shared::SharedRef;
use super::stop_switch::StopSwitch;
use super::{poll, signal};

/// A worker's wish for a successor, which lies in memory that its master sees too.
#[derive(Debug, Clone)]
pub(crate) struct SuccessorWish {
    is_there: SharedRef<AtomicBool>,
    master: Arc<StopSwitch>,
}

impl SuccessorWish {
    pub(crate) fn new(is_there: SharedRef<AtomicBool>, master: &Arc<StopSwitch>) -> Self {
        Self { is_there, master: master.clone() }
    }

    /// Wakes the master, at the first time. Async-signal-safe.
    pub(crate) fn express(&self) {
        if !self.is_there.swap(true, SeqCst) {
            self.master.wake_supervisor();
        }
    }
}

/// What the handlers of a worker process turn.
#[derive(Debug)]
pub(crate) struct WorkerSwitches {
    pub(crate) stop: Arc<StopSwitch>,
    pub(crate) successor: SuccessorWish,
}

/// Those of the worker that this process is.
static WORKER: AtomicPtr<WorkerSwitches> = AtomicPtr::new(null_mut());
/// The sockets that it listens on, as many as are used.
static LISTENERS: [AtomicI32; 64] = [const { AtomicI32::new(-1) }; 64];

/// Bit `i` is set if the death of the master shuts listener `i` for every process.
static SHUT: AtomicU64 = AtomicU64::new(0);

/// Tells of the master's death.
static LIFELINE: AtomicI32 = AtomicI32::new(-1);

/// SIGTERM: another worker is to take the place of this one. (To the whole group it is the master's to obey, which then
/// tells all; so nobody is told twice.) SIGIO: the master is dead. Nobody will accept here any more, in none of the
/// orphans, and each finishes what it has.
extern "C" fn on_worker_signal(number: c_int) {
    let errno = Errno::last_raw();
    // SAFETY: a non-null pointer comes from a box that `become_worker` has given up for good.
    if let Some(worker) = unsafe { WORKER.load(SeqCst).as_ref() } {
        if number == libc::SIGIO {
            if master_is_dead() {
                let_go_of_listeners();
                worker.stop.request_stop();
            }
        } else {
            worker.successor.express();
        }
    }
    Errno::set_raw(errno);
}

/// Whether the other end of the lifeline is closed: SIGIO may come from elsewhere too.
fn master_is_dead() -> bool {
    let mut fd = libc::pollfd { fd: LIFELINE.load(SeqCst), events: libc::POLLIN, revents: 0 };
    // SAFETY: poll(2) reads and writes one pollfd, which is valid for the call; it is async-signal-safe.
    let ready = unsafe { libc::poll(std::ptr::addr_of_mut!(fd), 1, 0) };
    ready == 1 && fd.revents & (libc::POLLHUP | libc::POLLERR) != 0
}

fn let_go_of_listeners() {
    let shut = SHUT.load(SeqCst);
    for (place, fd) in LISTENERS.iter().map(|fd| fd.load(SeqCst)).take_while(|fd| *fd >= 0).enumerate() {
        // SAFETY: both take integers. On a listening socket, shutdown ends the listening for all who have it, also
        // those that are stopped; then the address is let go of, while the number stays taken, as threads may be about
        // to use it.
        unsafe {
            if shut & (1 << place) != 0 {
                libc::shutdown(fd, libc::SHUT_RD);
            }
            libc::dup3(LIFELINE.load(SeqCst), fd, libc::O_CLOEXEC);
        }
    }
}

/// This process is a forked worker from here on: what the master does at signals is not for it. `lifeline` becomes
/// readable when the master dies, whoever it runs as by then, and even where nobody waits for it. (Not so
/// PR_SET_PDEATHSIG, which is about the forking thread, and forgotten at a change of user.) Of each listener:
/// whether it is shut for every process then, or only let go of here.
pub(crate) fn become_worker(
    switches: WorkerSwitches,
    listeners: &[(BorrowedFd<'_>, bool)],
    lifeline: &Private,
) -> io::Result<()> {
    signal::forget();
    for (place, (listener, _)) in LISTENERS.iter().zip(listeners) {
        place.store(listener.as_raw_fd(), SeqCst);
    }
    let shut = listeners.iter().take(LISTENERS.len()).enumerate().filter(|(_, (_, shut_for_all))| *shut_for_all);
    SHUT.store(shut.fold(0, |bits, (place, _)| bits | 1 << place), SeqCst);
    LISTENERS.iter().skip(listeners.len()).for_each(|place| place.store(-1, SeqCst));
    LIFELINE.store(lifeline.as_raw_fd(), SeqCst);
    WORKER.store(Box::into_raw(Box::new(switches)), SeqCst);
    handle(Signal::SIGTERM, on_worker_signal)?;
    handle(Signal::SIGIO, on_worker_signal)?;
    // SAFETY: fcntl with F_SETOWN takes three integers.
    Errno::result(unsafe { libc::fcntl(lifeline.as_raw_fd(), libc::F_SETOWN, libc::getpid()) })?;
    fcntl(lifeline, FcntlArg::F_SETFL(OFlag::O_ASYNC | OFlag::O_NONBLOCK))?;
    if !poll([Some(lifeline.as_fd())], None, Some(std::time::Duration::ZERO))?.none() {
        on_worker_signal(libc::SIGIO); // it died before, perhaps
    }
    Ok(())
}

fn handle(signal: Signal, handler: extern "C" fn(c_int)) -> nix::Result<SigAction> {
    let action =
        SigAction::new(SigHandler::Handler(handler), SaFlags::SA_RESTART | SaFlags::SA_ONSTACK, SigSet::empty());
    // SAFETY: the handlers of this file are async-signal-safe.
    unsafe { sigaction(signal, &action) }
}

/// What a master is told by signals.
pub(crate) const MASTER_SIGNALS: [Signal; 3] = [Signal::SIGHUP, Signal::SIGTTIN, Signal::SIGTTOU];

static MASTER: AtomicPtr<StopSwitch> = AtomicPtr::new(null_mut());
static RELOAD: AtomicBool = AtomicBool::new(false);
static MORE: AtomicI32 = AtomicI32::new(0);

extern "C" fn on_master_signal(number: c_int) {
    let errno = Errno::last_raw();
    match number {
        libc::SIGHUP => RELOAD.store(true, SeqCst),
        libc::SIGTTIN => drop(MORE.fetch_add(1, SeqCst)),
        _ => drop(MORE.fetch_sub(1, SeqCst)),
    }
    // SAFETY: a non-null pointer comes from an Arc that the guard keeps; it restores the former handlers before it
    // lets go, on the only thread there is.
    if let Some(switch) = unsafe { MASTER.load(SeqCst).as_ref() } {
        switch.wake_supervisor();
    }
    Errno::set_raw(errno);
}

/// While it lives, SIGHUP, SIGTTIN and SIGTTOU are this master's.
#[derive(Debug)]
pub(crate) struct MasterSignals {
    former: Vec<(Signal, SigAction)>,
    _switch: Arc<StopSwitch>,
}

impl MasterSignals {
    pub(crate) fn install(switch: &Arc<StopSwitch>) -> io::Result<Self> {
        MASTER.store(Arc::as_ptr(switch).cast_mut(), SeqCst);
        RELOAD.store(false, SeqCst);
        MORE.store(0, SeqCst);
        let mut this = Self { former: Vec::new(), _switch: switch.clone() };
        for signal in MASTER_SIGNALS {
            this.former.push((signal, handle(signal, on_master_signal)?));
        }
        Ok(this)
    }

    /// Whether a reload was asked for since the last look, and how many workers more, or fewer.
    pub(crate) fn asked(&self) -> (bool, i32) {
        (RELOAD.swap(false, SeqCst), MORE.swap(0, SeqCst))
    }
}

impl Drop for MasterSignals {
    fn drop(&mut self) {
        for (signal, former) in &self.former {
            // SAFETY: this puts back what `sigaction` itself returned.
            let _ = unsafe { sigaction(*signal, former) };
        }
        MASTER.store(null_mut(), SeqCst);
    }
}

/// A pipe: the reading end, which never waits, and the writing end.
pub(crate) fn pipe() -> io::Result<(Private, Private)> {
    let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
    fcntl(&read, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok((Private::new(read), Private::new(write)))
}

/// The name of this process in `ps` and `top`: 15 bytes, the rest is cut off.
pub(crate) fn set_name(name: &str) -> io::Result<()> {
    let name = CString::new(name).map_err(io::Error::other)?;
    Ok(nix::sys::prctl::set_name(&name)?)
}
