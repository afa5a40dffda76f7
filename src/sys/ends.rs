//! [`Ends`]: the ends of children by SIGCHLD, without a descriptor for each of them.
//!
//! The signal is blocked and read from a descriptor, so no code of ours runs as a handler. It is taken only where the
//! program has no use for it: at its default the kernel would throw it away. A handler that the program installs later
//! is noticed ([`Ends::are_ours`]), and finds its signal as soon as this is dropped.
//!
//! A mask outlives `execve`. So it is taken only while no code of the program runs that may start others, and the crate's
//! own starts give it back ([`let_through`]).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::{self, ThreadId};

use nix::errno::Errno;
use nix::libc::{self, siginfo_t};
use nix::sys::signal::{pthread_sigmask, SigSet, SigmaskHow, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;

use super::fork;
use super::process::{status, Private, Status};
use super::raw;

/// True while an [`Ends`] blocks the signal.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// A descriptor that is readable when a child has ended. SIGCHLD is blocked meanwhile.
#[derive(Debug)]
pub(crate) struct Ends {
    fd: Private<SignalFd>,
    thread: ThreadId,
    /// The mark of the process whose children they are.
    owner: u64,
}

impl Ends {
    /// Hears of the ends of children from now on. `None` if the program has a use for the signal, or gives it another
    /// answer than the default. This process must have one thread only: another one would take signals away.
    pub(crate) fn of_this_process() -> io::Result<Option<Self>> {
        let mut before = SigSet::empty();
        pthread_sigmask(SigmaskHow::SIG_BLOCK, None, Some(&mut before))?;
        if before.contains(Signal::SIGCHLD) || !is_at_default() {
            return Ok(None);
        }
        let set = SigSet::from(Signal::SIGCHLD);
        let fd = SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        let ends = Self { fd: Private::new(fd), thread: thread::current().id(), owner: fork::this_process() };
        pthread_sigmask(SigmaskHow::SIG_BLOCK, Some(&set), None)?;
        TAKEN.store(true, SeqCst);
        Ok(Some(ends))
    }

    /// True while the program has not given the signal another answer.
    pub(crate) fn are_ours(&self) -> bool {
        is_at_default()
    }

    /// Returns a child that has ended or was stopped, of this crate or not. One signal stands for all children that end
    /// before it is read: [`an_ended_child`] has the others. A signal that a process has sent (kill(2)) is told as of no
    /// child: zero.
    pub(crate) fn next(&self) -> Option<Pid> {
        let mut told = std::mem::MaybeUninit::<libc::signalfd_siginfo>::uninit();
        let args = [self.fd.as_raw_fd() as usize, told.as_mut_ptr() as usize, std::mem::size_of_val(&told), 0, 0, 0];
        // SAFETY: the kernel writes at most one such struct through the pointer, which is valid for the call.
        let length = raw::answer(unsafe { raw::call(libc::SYS_read, args) }).ok()?;
        // SAFETY: the kernel has written all of it.
        let told = (length == args[2]).then(|| unsafe { told.assume_init() })?;
        let is_by_kernel = (libc::CLD_EXITED..=libc::CLD_CONTINUED).contains(&told.ssi_code);
        Some(Pid::from_raw(if is_by_kernel { told.ssi_pid as i32 } else { 0 }))
    }
}

impl AsFd for Ends {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Ends {
    fn drop(&mut self) {
        // A mask is a thread's own.
        if self.thread == thread::current().id() && fork::has_not_forked_since(self.owner) {
            TAKEN.store(false, SeqCst);
            unblock();
        }
    }
}

/// In a process that is about to become a program: lets the signal through, if it was blocked here. Async-signal-safe.
pub(super) fn let_through() {
    if TAKEN.load(SeqCst) {
        unblock();
    }
}

fn unblock() {
    let _ = pthread_sigmask(SigmaskHow::SIG_UNBLOCK, Some(&SigSet::from(Signal::SIGCHLD)), None);
}

/// True if SIGCHLD is at its default, and ended children wait to be asked for.
fn is_at_default() -> bool {
    let mut now = std::mem::MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: with a null action this only writes the present one into `now`.
    let done = unsafe { libc::sigaction(libc::SIGCHLD, std::ptr::null(), now.as_mut_ptr()) };
    // SAFETY: `now` has been written where the call succeeded.
    let now = (done == 0).then(|| unsafe { now.assume_init() });
    now.is_some_and(|now| now.sa_sigaction == libc::SIG_DFL && now.sa_flags & libc::SA_NOCLDWAIT == 0)
}

/// Returns a child that has ended, of this crate or of the program. It can still be waited for.
pub(crate) fn an_ended_child() -> Option<Pid> {
    let info = wait_for(libc::P_ALL, 0, libc::WEXITED | libc::WNOHANG | libc::WNOWAIT).ok()?;
    // SAFETY: `waitid` fills this field; where no child has ended it is zero.
    Some(unsafe { info.si_pid() }).filter(|pid| *pid > 0).map(Pid::from_raw)
}

/// Returns the end of this child, if it has ended. It takes no other child's end.
pub(crate) fn end_of(pid: Pid) -> Option<Status> {
    match wait_for(libc::P_PID, pid.as_raw(), libc::WEXITED | libc::WNOHANG) {
        Ok(info) => status(&info),
        Err(Errno::EINTR) => None,
        Err(_) => Some(Status::Gone),
    }
}

/// True if this is no child of this process any more: other code has waited for it.
pub(crate) fn is_gone(pid: i32) -> bool {
    wait_for(libc::P_PID, pid, libc::WEXITED | libc::WNOHANG | libc::WNOWAIT).err() == Some(Errno::ECHILD)
}

/// Sends a signal to this child by its number, unless other code has waited for it.
pub(crate) fn signal(pid: Pid, signal: Signal) {
    if !is_gone(pid.as_raw()) {
        let _ = nix::sys::signal::kill(pid, signal);
    }
}

/// Waits for children (waitid(2)). `errno` stays as it is: that nothing has ended is the rule here, and to write it would
/// cost a page.
pub(super) fn wait_for(kind: libc::idtype_t, id: i32, options: libc::c_int) -> nix::Result<siginfo_t> {
    // SAFETY: siginfo_t is plain integers, for which all zeroes is a value.
    let mut info: siginfo_t = unsafe { std::mem::zeroed() };
    let args = [kind as usize, id as usize, std::ptr::addr_of_mut!(info) as usize, options as usize, 0, 0];
    // SAFETY: waitid writes one siginfo_t through the pointer, which is valid for the call.
    let done = raw::answer(unsafe { raw::call(libc::SYS_waitid, args) });
    done.map(|_| info).map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or(libc::EINVAL)))
}
