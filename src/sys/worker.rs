//! The signals of worker processes, the pipe to their master, and names of processes.
//!
//! A worker hears of its master's death by a pipe, the lifeline, and SIGIO. Only the master holds the writing
//! end, so its end closes it, whatever it dies of. `O_ASYNC` makes that a signal: it reaches a worker
//! whatever its threads are doing, at no cost while nothing happens. `PR_SET_PDEATHSIG` would fire when the
//! forking thread ends, and a change of user forgets it.
//!
//! An orphan drains as at any stop. Nobody kills it if it computes for ever, so a timer of the kernel does
//! (timer_create(2)): the handler sets it.
//!
//! The handlers do only what signal-safety(7) allows: atomics, `poll`, `shutdown`, `dup3`, `clock_gettime`,
//! `timer_settime`, `write`.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU64, AtomicU8, Ordering::SeqCst};
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{fcntl, FcntlArg, OFlag};
use nix::libc::{self, c_int, c_void};
use nix::sys::signal::{sigaction, SaFlags, SigAction, SigEvent, SigHandler, SigSet, SigevNotify, Signal};
use nix::unistd::pipe2;

use super::process::Private;
use super::shared::SharedRef;
use super::stop_switch::StopSwitch;
use super::wishes::ChildPipes;
use super::{master, poll, signal};

/// A worker's wish for a successor. It lies in memory that the master sees too.
#[derive(Debug, Clone)]
pub(crate) struct SuccessorWish {
    is_there: SharedRef<AtomicU8>,
    pipes: Arc<ChildPipes>,
}

impl SuccessorWish {
    pub(crate) fn new(is_there: SharedRef<AtomicU8>, pipes: &Arc<ChildPipes>) -> Self {
        Self { is_there, pipes: pipes.clone() }
    }

    /// Asks the master for a successor, once. Async-signal-safe.
    pub(crate) fn express(&self) {
        if self.is_there.swap(1, SeqCst) == 0 {
            self.pipes.ring();
        }
    }
}

/// The parts of a worker that its signal handlers use.
#[derive(Debug)]
pub(crate) struct WorkerSwitches {
    pub(crate) stop: Arc<StopSwitch>,
    pub(crate) successor: SuccessorWish,
    /// True if the listeners stay open when the master dies.
    pub(crate) keeps_listeners: SharedRef<AtomicBool>,
    /// How long this process may live on after its master.
    pub(crate) outlives_master_by: Duration,
}

/// The worker that this process is.
static WORKER: AtomicPtr<Worker> = AtomicPtr::new(null_mut());

struct Worker {
    switches: WorkerSwitches,
    /// The timer that kills this process. `None` if the system has given none.
    end: Option<AtomicPtr<c_void>>,
    is_orphan: AtomicBool,
}

/// Its listening sockets. The rest of the list is -1.
static LISTENERS: [AtomicI32; 64] = [const { AtomicI32::new(-1) }; 64];

/// Bit `i` is set if the death of the master shuts listener `i` for every process.
static SHUT: AtomicU64 = AtomicU64::new(0);

/// The reading end of the lifeline.
static LIFELINE: AtomicI32 = AtomicI32::new(-1);

/// SIGIO: the master is dead. No orphan accepts any more, and each finishes what it has.
///
/// SIGTERM: another worker is to succeed this one. It does not end the worker. If it is sent to the whole group
/// (systemd, a terminal), the master gets it too, and drains all together. A worker that left by itself would not
/// know how much of the queue is still to be served. If it is sent to one worker alone, it means: replace it, and
/// lose nothing.
extern "C" fn on_worker_signal(number: c_int) {
    let errno = Errno::last_raw();
    // SAFETY: a non-null pointer comes from a box that `become_worker` has given up for good.
    if let Some(worker) = unsafe { WORKER.load(SeqCst).as_ref() } {
        if number == libc::SIGIO {
            if master_is_dead() {
                worker.obey_the_masters_death();
            }
        } else {
            worker.switches.successor.express();
        }
    }
    Errno::set_raw(errno);
}

/// True in a worker whose master is dead: the other end of the lifeline is closed. SIGIO may come from elsewhere too.
pub(crate) fn master_is_dead() -> bool {
    is_lifeline_closed(0).unwrap_or(false)
}

/// Waits for the master's death, for a second at most, and obeys it. True if the master is dead. Call it if a listener
/// of this worker was shut: another worker may have heard of the death a moment before, and shut it for all.
pub(crate) fn hear_of_the_masters_death() -> bool {
    // A signal interrupts the wait, perhaps the one for this death.
    let is_dead = (0..16).find_map(|_| is_lifeline_closed(1000)).unwrap_or(false);
    // SAFETY: as in the handler.
    if let (true, Some(worker)) = (is_dead, unsafe { WORKER.load(SeqCst).as_ref() }) {
        worker.obey_the_masters_death();
    }
    is_dead
}

/// `None` if a signal has interrupted the wait.
fn is_lifeline_closed(millis: c_int) -> Option<bool> {
    let mut fd = libc::pollfd { fd: LIFELINE.load(SeqCst), events: libc::POLLIN, revents: 0 };
    // SAFETY: poll(2) reads and writes one pollfd, which is valid for the call; it is async-signal-safe.
    let ready = unsafe { libc::poll(std::ptr::addr_of_mut!(fd), 1, millis) };
    (ready >= 0).then_some(ready == 1 && fd.revents & (libc::POLLHUP | libc::POLLERR) != 0)
}

impl Worker {
    fn new(switches: WorkerSwitches) -> Self {
        let kill = SigevNotify::SigevSignal { signal: Signal::SIGKILL, si_value: 0 };
        let (mut event, mut timer): (_, libc::timer_t) = (SigEvent::new(kill).sigevent(), null_mut());
        let (of_event, of_timer) = (std::ptr::addr_of_mut!(event), std::ptr::addr_of_mut!(timer));
        // SAFETY: timer_create(2) reads the one and writes the other; both are valid for the call.
        let is_made = unsafe { libc::timer_create(libc::CLOCK_MONOTONIC, of_event, of_timer) } == 0;
        Self { switches, end: is_made.then(|| AtomicPtr::new(timer)), is_orphan: AtomicBool::new(false) }
    }

    /// Stops this worker, and sets the time of its end. Async-signal-safe.
    fn obey_the_masters_death(&self) {
        let_go_of_listeners(self.switches.keeps_listeners.load(SeqCst));
        self.switches.stop.request_stop();
        let Some(timer) = self.end.as_ref().filter(|_| !self.is_orphan.swap(true, SeqCst)) else { return };
        let after = self.switches.outlives_master_by;
        let never = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        let end = libc::timespec {
            tv_sec: i32::try_from(after.as_secs()).unwrap_or(i32::MAX).into(),
            tv_nsec: after.subsec_nanos() as libc::c_long,
        };
        let end = libc::itimerspec { it_interval: never, it_value: end };
        // SAFETY: timer_settime(2) reads one value, which is valid for the call. The timer lives as long as this process.
        unsafe { libc::timer_settime(timer.load(SeqCst), 0, std::ptr::addr_of!(end), null_mut()) };
    }
}

fn let_go_of_listeners(keep: bool) {
    let shut = if keep { 0 } else { SHUT.load(SeqCst) };
    for (place, fd) in LISTENERS.iter().map(|fd| fd.load(SeqCst)).take_while(|fd| *fd >= 0).enumerate() {
        // Shut, the socket listens for no process any more, not even for one that is stopped. Replaced by
        // another file, the descriptor lets go of the address, so that it is free while the orphans finish.
        // The number stays taken: threads may be about to use it.
        // SAFETY: both calls take integers.
        unsafe {
            if shut & (1 << place) != 0 {
                libc::shutdown(fd, libc::SHUT_RD);
            }
            libc::dup3(LIFELINE.load(SeqCst), fd, libc::O_CLOEXEC);
        }
    }
}

/// Makes this process a worker: it obeys its own signals, and no more those of the master. With each listener
/// comes whether the master's death shuts it for every process.
pub(crate) fn become_worker(
    switches: WorkerSwitches,
    listeners: &[(BorrowedFd<'_>, bool)],
    lifeline: &Private,
) -> io::Result<()> {
    signal::forget();
    master::forget();
    // First all that the handlers read, then the handlers.
    for (place, (listener, _)) in LISTENERS.iter().zip(listeners) {
        place.store(listener.as_raw_fd(), SeqCst);
    }
    let shut = listeners.iter().take(LISTENERS.len()).enumerate().filter(|(_, (_, shut_for_all))| *shut_for_all);
    SHUT.store(shut.fold(0, |bits, (place, _)| bits | 1 << place), SeqCst);
    LISTENERS.iter().skip(listeners.len()).for_each(|place| place.store(-1, SeqCst));
    LIFELINE.store(lifeline.as_raw_fd(), SeqCst);
    WORKER.store(Box::into_raw(Box::new(Worker::new(switches))), SeqCst);
    handle(Signal::SIGTERM, on_worker_signal)?;
    handle(Signal::SIGIO, on_worker_signal)?;
    // SAFETY: fcntl with F_SETOWN takes three integers.
    Errno::result(unsafe { libc::fcntl(lifeline.as_raw_fd(), libc::F_SETOWN, libc::getpid()) })?;
    fcntl(lifeline, FcntlArg::F_SETFL(OFlag::O_ASYNC | OFlag::O_NONBLOCK))?;
    if !poll([Some(lifeline.as_fd())], None, Some(Duration::ZERO))?.none() {
        // The master died before the signal was set up.
        on_worker_signal(libc::SIGIO);
    }
    Ok(())
}

fn handle(signal: Signal, handler: extern "C" fn(c_int)) -> nix::Result<SigAction> {
    let action =
        SigAction::new(SigHandler::Handler(handler), SaFlags::SA_RESTART | SaFlags::SA_ONSTACK, SigSet::empty());
    // SAFETY: the handlers of this file are async-signal-safe.
    unsafe { sigaction(signal, &action) }
}

/// Makes a pipe: the reading end, which never waits, and the writing end.
pub(crate) fn pipe() -> io::Result<(Private, Private)> {
    let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
    fcntl(&read, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok((Private::new(read), Private::new(write)))
}

/// Sets the name of this process in `ps` and `top`: 15 bytes, the rest is cut off.
pub(crate) fn set_name(name: &str) -> io::Result<()> {
    let name = CString::new(name).map_err(io::Error::other)?;
    Ok(nix::sys::prctl::set_name(&name)?)
}
