//! SIGINT and SIGTERM: the first asks every registered server to drain, the second ends the process at once.
//!
//! Signals belong to the process, and a library that takes them unasked breaks the program around it. So a
//! server asks for them. Handlers that were there before are called as well, and put back when the last such
//! server ends.
//!
//! The handler does only what signal-safety(7) allows: atomics, `clock_gettime`, `write`, `_exit`.

use std::io;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::Arc;
use std::thread::{self, ThreadId};
use std::time::Duration;

use nix::errno::Errno;
use nix::libc::{self, c_int, c_void, siginfo_t};
use nix::sys::signal::{pthread_sigmask, sigaction, SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal};
use nix::time::{clock_gettime, ClockId};
use parking_lot::Mutex;

use super::fork;
use super::process::disposition;
use super::stop_switch::{Ear, StopSwitch};
use super::wiped::books;

const SIGNALS: [Signal; 2] = [Signal::SIGINT, Signal::SIGTERM];

/// The most servers that share the signals of one process. The next one gets an error.
const SLOTS: usize = 64;

static SERVERS: [AtomicPtr<StopSwitch>; SLOTS] = [const { AtomicPtr::new(null_mut()) }; SLOTS];
/// The handlers that run at this moment. A server lets go of its switch only when there is none.
static INSIDE: AtomicUsize = AtomicUsize::new(0);
/// The first signal that has come.
static FIRST: First = First(AtomicU64::new(0));
/// timeout(1) and some container inits send a signal to a process and to its group: it comes twice, and is meant once.
const ECHO: Duration = Duration::from_millis(10);
/// The process that has kept a signal since it was forked, until it serves. A second signal acts as it would
/// without us.
static KEPT_BY: AtomicI32 = AtomicI32::new(0);
/// The handlers that were there before. They are called after ours.
static PREVIOUS: [Previous; 2] = [const { Previous::new() }; 2];

static INSTALLED: Mutex<Installed> = Mutex::new(Installed { users: 0, old: None, by: 0 });

struct Installed {
    users: usize,
    old: Option<[SigAction; 2]>,
    /// The mark of the process that has installed them, or has taken them over.
    by: u64,
}

struct Previous {
    /// The handler's function. 0: none.
    function: AtomicUsize,
    with_info: AtomicBool,
    ignored: AtomicBool,
}

impl Previous {
    const fn new() -> Self {
        Self { function: AtomicUsize::new(0), with_info: AtomicBool::new(false), ignored: AtomicBool::new(false) }
    }

    fn set(&self, handler: SigHandler) {
        let (function, with_info) = match handler {
            SigHandler::Handler(f) => (f as usize, false),
            SigHandler::SigAction(f) => (f as usize, true),
            SigHandler::SigDfl | SigHandler::SigIgn => (0, false),
        };
        self.ignored.store(matches!(handler, SigHandler::SigIgn), SeqCst);
        self.with_info.store(with_info, SeqCst);
        self.function.store(function, SeqCst);
    }

    /// True if there was neither a handler nor the wish to ignore the signal.
    fn is_default(&self) -> bool {
        self.function.load(SeqCst) == 0 && !self.ignored.load(SeqCst)
    }

    fn call(&self, signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
        let function = self.function.load(SeqCst);
        if function == 0 {
            return;
        }
        if self.with_info.load(SeqCst) {
            // SAFETY: `set` stored a function of exactly this type, as the kernel gave it to us.
            let f: extern "C" fn(c_int, *mut siginfo_t, *mut c_void) = unsafe { std::mem::transmute(function) };
            f(signal, info, context);
        } else {
            // SAFETY: `set` stored a function of exactly this type, as the kernel gave it to us.
            let f: extern "C" fn(c_int) = unsafe { std::mem::transmute(function) };
            f(signal);
        }
    }
}

extern "C" fn on_signal(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    let errno = Errno::last_raw();
    let previous = &PREVIOUS[usize::from(signal == libc::SIGTERM)];
    let ear = tell_servers();
    let process = std::process::id() as i32;
    if ear == Ear::Deaf || (ear == Ear::Waits && KEPT_BY.swap(process, SeqCst) == process) {
        // No server here obeys: the program has forked, and another process serves. The signal does what it
        // would do without us.
        if previous.is_default() {
            // SAFETY: both calls are async-signal-safe; the signal, blocked while we run, acts on return.
            unsafe {
                libc::signal(signal, libc::SIG_DFL);
                libc::raise(signal);
            }
        }
    } else if ear == Ear::Obeys && FIRST.is_before(signal, since_boot()) {
        // A second signal means now, and nothing else may be able to run: a handler may spin, a lock may be
        // held. `_exit` needs neither. The status is 128 and the signal's number, as shells report it.
        for pid in books().children.iter().map(|c| c.load(SeqCst)).filter(|pid| *pid > 0) {
            // SAFETY: kill takes two integers and is async-signal-safe; the child has not been waited for, so
            // the number is still its own.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
        // SAFETY: `_exit` may be called at any time, and does not return.
        unsafe { libc::_exit(128 + signal) };
    }
    previous.call(signal, info, context);
    Errno::set_raw(errno);
}

/// The first signal: its time in milliseconds, and in the lowest byte its number. 0: none has come.
struct First(AtomicU64);

impl First {
    /// Notes a signal, and returns true if another one has come before. The same signal within [`ECHO`] is no other one.
    /// Async-signal-safe.
    fn is_before(&self, signal: c_int, at: Duration) -> bool {
        let millis = at.as_millis() as u64;
        match self.0.compare_exchange(0, (millis + 1) << 8 | signal as u64, SeqCst, SeqCst) {
            Ok(_) => false,
            Err(first) => {
                let passed = (millis + 1).saturating_sub(first >> 8);
                first & 0xff != signal as u64 || passed >= ECHO.as_millis() as u64
            }
        }
    }

    fn clear(&self) {
        self.0.store(0, SeqCst);
    }
}

/// Returns the monotonic clock's time. Async-signal-safe.
fn since_boot() -> Duration {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from)
}

/// Stops the servers of this process, and returns what the signal means for them together. Async-signal-safe.
fn tell_servers() -> Ear {
    let mut together = Ear::Deaf;
    INSIDE.fetch_add(1, SeqCst);
    for server in &SERVERS {
        // SAFETY: a non-null pointer comes from an Arc. `Guard::drop` gives it up only after it has cleared the slot
        // and seen INSIDE at zero; we are inside.
        let Some(switch) = (unsafe { server.load(SeqCst).as_ref() }) else { continue };
        match switch.ear() {
            Ear::Obeys => {
                switch.request_stop();
                together = Ear::Obeys;
            }
            Ear::Waits if together == Ear::Deaf => together = Ear::Waits,
            Ear::Waits | Ear::Deaf => {}
        }
    }
    INSIDE.fetch_sub(1, SeqCst);
    together
}

/// True if some server of this process handles SIGINT and SIGTERM.
pub(crate) fn are_handled() -> bool {
    INSTALLED.lock().users > 0
}

/// True if signals stop this server.
pub(crate) fn are_handled_by(switch: &Arc<StopSwitch>) -> bool {
    SERVERS.iter().any(|server| server.load(SeqCst).cast_const() == Arc::as_ptr(switch))
}

/// Forgets all servers and children, in a forked worker, whose handlers have been reset.
pub(crate) fn forget() {
    SERVERS.iter().for_each(|server| server.store(null_mut(), SeqCst));
    forget_parent();
    *INSTALLED.lock() = Installed { users: 0, old: None, by: 0 };
}

/// Forgets what concerns the parent alone, in a forked process.
fn forget_parent() {
    FIRST.clear();
    // Another thread of the parent may have been inside at the fork.
    INSIDE.store(0, SeqCst);
    // Zero in wiped memory: a write would only take a page of it.
    let children = books().children.iter().filter(|child| child.load(SeqCst) != 0);
    children.for_each(|child| child.store(0, SeqCst));
}

/// Takes the handlers over in a process that was forked since they were installed, and that serves from now on. A
/// signal that came since the fork stops the server.
///
/// Programs that go to the background often reset all handlers (daemon(7)), so missing ones are installed again. A
/// handler that the program has installed meanwhile stays.
pub(crate) fn take_over(switch: &StopSwitch) -> io::Result<()> {
    let mut installed = INSTALLED.lock();
    if installed.users == 0 || installed.by == fork::this_process() {
        return Ok(());
    }
    forget_parent();
    for signal in SIGNALS {
        if disposition(signal) == Some(libc::SIG_DFL) {
            // SAFETY: the handler is async-signal-safe, see the head of this file.
            unsafe { sigaction(signal, &action()) }?;
        }
    }
    installed.by = fork::this_process();
    if KEPT_BY.swap(0, SeqCst) == std::process::id() as i32 {
        FIRST.is_before(0, since_boot());
        switch.request_stop();
    }
    Ok(())
}

/// Notes a child that a second signal takes along. Beyond a thousand of them, the rest finish by themselves.
pub(crate) fn child_begins(pid: i32) {
    let _ = places_of(pid).find(|c| c.load(SeqCst) == 0 && c.compare_exchange(0, pid, SeqCst, SeqCst).is_ok());
}

/// Forgets a child. To be called before it is waited for: from then on its number may be another process's.
pub(crate) fn child_ends(pid: i32) {
    let _ = places_of(pid).find(|c| c.load(SeqCst) == pid && c.compare_exchange(pid, 0, SeqCst, SeqCst).is_ok());
}

/// All places, from the one that a process of this number most likely has: numbers that are used at one time are
/// neighbours.
fn places_of(pid: i32) -> impl Iterator<Item = &'static AtomicI32> {
    let children = &books().children;
    let (before, from) = children.split_at(pid as usize % children.len());
    from.iter().chain(before)
}

/// While this lives, these signals reach this thread. A program that was started with a blocked signal would never
/// see it. A mask outlives `execve`, and the program that starts a server may have blocked all signals.
#[derive(Debug)]
pub(super) struct Unblocked {
    were_blocked: SigSet,
    thread: ThreadId,
}

impl Unblocked {
    pub(super) fn these(signals: &[Signal]) -> io::Result<Self> {
        let (mut before, these) = (SigSet::empty(), signals.iter().copied().collect());
        pthread_sigmask(SigmaskHow::SIG_UNBLOCK, Some(&these), Some(&mut before))?;
        let were_blocked = signals.iter().copied().filter(|signal| before.contains(*signal)).collect();
        Ok(Self { were_blocked, thread: thread::current().id() })
    }
}

impl Drop for Unblocked {
    fn drop(&mut self) {
        // Another thread has a mask of its own.
        if self.thread == thread::current().id() {
            let _ = pthread_sigmask(SigmaskHow::SIG_BLOCK, Some(&self.were_blocked), None);
        }
    }
}

/// While this lives, SIGINT and SIGTERM stop this server. The last one to go restores the former handlers.
#[derive(Debug)]
pub(crate) struct Guard {
    switch: Arc<StopSwitch>,
    _unblocked: Unblocked,
}

impl Guard {
    pub(crate) fn install(switch: Arc<StopSwitch>) -> io::Result<Self> {
        let mut installed = INSTALLED.lock();
        let pointer = Arc::as_ptr(&switch).cast_mut();
        let free = SERVERS.iter().find(|s| s.compare_exchange(null_mut(), pointer, SeqCst, SeqCst).is_ok());
        if free.is_none() {
            return Err(io::Error::other("64 servers of this process handle signals already"));
        }
        installed.users += 1;
        let guard = Self { switch, _unblocked: Unblocked::these(&SIGNALS)? };
        if installed.users == 1 {
            FIRST.clear();
            installed.by = fork::this_process();
            let old = install_handlers();
            match old {
                Ok(old) => installed.old = Some(old),
                Err(e) => {
                    drop(installed);
                    return Err(e);
                }
            }
        }
        Ok(guard)
    }
}

fn action() -> SigAction {
    SigAction::new(SigHandler::SigAction(on_signal), SaFlags::SA_RESTART | SaFlags::SA_ONSTACK, SigSet::empty())
}

fn install_handlers() -> io::Result<[SigAction; 2]> {
    let set = |signal: Signal, previous: &Previous| -> io::Result<SigAction> {
        // SAFETY: the handler is async-signal-safe, see the head of this file.
        let old = unsafe { sigaction(signal, &action()) }?;
        previous.set(old.handler());
        Ok(old)
    };
    Ok([set(SIGNALS[0], &PREVIOUS[0])?, set(SIGNALS[1], &PREVIOUS[1])?])
}

impl Drop for Guard {
    fn drop(&mut self) {
        let mut installed = INSTALLED.lock();
        installed.users -= 1;
        // First the handlers, then the server: a signal in between still finds one that it stops.
        if installed.users == 0 {
            for (signal, old) in SIGNALS.into_iter().zip(installed.old.take().into_iter().flatten()) {
                // SAFETY: this puts back what `sigaction` itself returned.
                let _ = unsafe { sigaction(signal, &old) };
            }
        }
        let pointer = Arc::as_ptr(&self.switch).cast_mut();
        for server in &SERVERS {
            let _ = server.compare_exchange(pointer, null_mut(), SeqCst, SeqCst);
        }
        // In a forked process the count is that of the parent's threads.
        while installed.by == fork::this_process() && INSIDE.load(SeqCst) != 0 {
            std::hint::spin_loop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_that_comes_twice_at_once_is_one() {
        let first = First(AtomicU64::new(0));
        let at = |millis| Duration::from_millis(millis);
        assert!(!first.is_before(libc::SIGTERM, at(0)), "the first");
        assert!(!first.is_before(libc::SIGTERM, at(9)), "its echo");
        assert!(first.is_before(libc::SIGTERM, at(10)), "the second");
        assert!(first.is_before(libc::SIGINT, at(1)), "another one, at any time");
    }
}
