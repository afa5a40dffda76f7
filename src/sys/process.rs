//! Processes: fork, descriptors that no child keeps, pidfds, and waiting for one's own children.

use std::io::{self, Write};
use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc::{self, siginfo_t};
use nix::sys::signal::{pthread_sigmask, SigSet, SigmaskHow, Signal};
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::sys::wait::WaitStatus;
use nix::unistd::Pid;

use super::ends::wait_for;
use super::number::{clamped, LONGEST_WAIT};
use super::raw::{self, Answer};
use super::shared::{Shareable, SharedRef, HERITAGE};
use super::window::Window;
use super::wiped::{books, forget_pidfds};

/// The number of this process.
pub(crate) fn id() -> i32 {
    Pid::this().as_raw()
}

/// The number of the process that has forked this one, or of the one that has taken its place at its death.
pub(crate) fn parent() -> i32 {
    nix::unistd::getppid().as_raw()
}

/// Returns the most processes that this one's user may have, if the kernel or RLIMIT_NPROC limits them.
pub(crate) fn limit() -> Option<u64> {
    let most = std::fs::read_to_string("/proc/sys/kernel/pid_max").ok().and_then(|text| text.trim().parse().ok());
    let own = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NPROC).ok();
    most.into_iter().chain(own.map(|(soft, _)| clamped(soft, u64::MAX))).min()
}

/// Returns the number of threads of this process. It can be asked before every fork.
pub(crate) fn threads() -> io::Result<u64> {
    // Of a process with one thread this changes nothing; of others it is refused (unshare(2)). It costs a tenth of a
    // `stat` in `/proc`. A sandbox may refuse it to all: then count.
    // SAFETY: unshare takes an integer.
    if unsafe { libc::unshare(libc::CLONE_THREAD) } == 0 {
        return Ok(1);
    }
    count_threads()
}

/// As [`threads`], by `/proc`.
pub(crate) fn count_threads() -> io::Result<u64> {
    // A directory has two links of its own and one for each folder in it: a folder is a thread.
    Ok(std::fs::metadata("/proc/self/task")?.nlink().saturating_sub(2))
}

/// The signals of a child. Handlers are the parent's, so they go. SIGCHLD is at its default, so that the
/// child's own children can be waited for. Some are left to the parent: where the server handles SIGINT, for
/// one, since a terminal sends it to all.
///
/// Sets of bits: a child that follows no pointer has no page to map for it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ChildSignals {
    reset: u64,
    leave: u64,
    left: Answer,
}

impl ChildSignals {
    /// Makes the sets from the handlers there are now. Handlers of faults stay: they concern the process they
    /// happen in alone (the standard library's reports a stack overflow). What this process leaves to its own
    /// parent, its children do too.
    pub(crate) fn of_this_process(leave: &[Signal]) -> Self {
        let faults = [Signal::SIGSEGV, Signal::SIGBUS];
        let unwaited = disposition(Signal::SIGCHLD) == Some(libc::SIG_IGN);
        let stays = [libc::SIG_DFL, libc::SIG_IGN, leave_to_the_parent as *const () as libc::sighandler_t];
        let is_handled = |s: &Signal| disposition(*s).is_some_and(|now| !stays.contains(&now));
        let handled = Signal::iterator().filter(|s| !faults.contains(s) && !leave.contains(s)).filter(is_handled);
        let bits =
            |signals: &mut dyn Iterator<Item = Signal>| signals.fold(0, |bits, signal| bits | 1 << signal as u64);
        let reset = bits(&mut handled.chain(unwaited.then_some(Signal::SIGCHLD)));
        let flags = libc::SA_RESTART | libc::SA_ONSTACK | libc::SA_SIGINFO;
        let left = leave.first().map_or_else(Answer::default, |signal| {
            Answer::by(*signal as i32, leave_to_the_parent as *const () as usize, flags)
        });
        Self { reset, leave: bits(&mut leave.iter().copied()), left }
    }

    #[inline(always)]
    fn apply(self) {
        for (mut signals, answer) in [(self.reset, Answer::default()), (self.leave, self.left)] {
            while signals != 0 {
                // SAFETY: a default signal runs no code, and `leave_to_the_parent` is async-signal-safe.
                unsafe { answer.set(signals.trailing_zeros() as i32) };
                signals &= signals - 1;
            }
        }
    }
}

/// The handler of a signal that is left to the parent. It does nothing. An ignored signal (SIG_IGN) would stay
/// ignored in programs that a handler starts, and a shell could not even trap it. `execve` resets a handler.
extern "C" fn leave_to_the_parent(signal: libc::c_int, info: *mut siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid siginfo_t, whose code is there for every signal.
    let by_kernel = unsafe { (*info).si_code } == libc::SI_KERNEL;
    // The terminal itself asks this process to stop, and would ask again at each try to use it. From now on it
    // may write (`tostop`), or its read fails.
    if by_kernel && (signal == libc::SIGTTIN || signal == libc::SIGTTOU) {
        // SAFETY: signal(2) takes two integers here, and is async-signal-safe.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

/// Returns how this process answers a signal: a function, `SIG_DFL` or `SIG_IGN`.
pub(super) fn disposition(signal: Signal) -> Option<libc::sighandler_t> {
    let mut now = std::mem::MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: with a null action this only writes the present one into `now`.
    let done = unsafe { libc::sigaction(signal as i32, std::ptr::null(), now.as_mut_ptr()) };
    // SAFETY: `now` has been written where the call succeeded.
    (done == 0).then(|| unsafe { now.assume_init() }.sa_sigaction)
}

/// Forks a child that runs `body` and exits with its result. The child never comes back from here.
///
/// The caller has made sure that this process has no other threads, or has the user's promise that they do no
/// harm.
#[inline(always)]
pub(crate) fn fork_child(signals: &ChildSignals, body: impl FnOnce() -> i32) -> io::Result<Pid> {
    // Else what is buffered would be written twice.
    let _ = io::stdout().flush();
    let (signals, pidfds) = (*signals, books().pidfds.runs());
    // No signal reaches the child before its handlers are reset, so none runs the parent's handler there.
    let mut before = SigSet::empty();
    pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), Some(&mut before))?;
    // SAFETY: single-threaded, or the user's promise (`allow_threads`): the child may run any code.
    let forked = unsafe { libc::fork() };
    if forked == 0 {
        signals.apply();
        raw::unblock_signals();
        pidfds.all().for_each(|(first, last)| close_all(first, last));
        forget_pidfds();
        exit(body());
    }
    let forked = Errno::result(forked).map(Pid::from_raw);
    pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&before), None)?;
    Ok(forked?)
}

/// As [`fork_child`], with what the window shows.
pub(crate) fn fork_child_with<T: Shareable + 'static>(
    signals: &ChildSignals,
    window: &Window<T>,
    body: impl FnOnce(&SharedRef<T>) -> i32,
) -> io::Result<Pid> {
    // The child never comes back, so it never drops the window.
    fork_child(signals, || body(&window.shown()))
}

/// Has the kernel kill this child when its parent's thread ends. That thread must be the parent's only one.
pub(crate) fn die_with(parent: i32) -> io::Result<()> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
    // The parent may have died in between.
    if self::parent() != parent {
        return Err(io::Error::other("the parent is dead already"));
    }
    Ok(())
}

/// A descriptor that no child keeps, from its making to its close.
#[derive(Debug)]
pub(crate) struct Private<T: AsFd = OwnedFd>(T);

impl<T: AsFd> Private<T> {
    pub(crate) fn new(fd: T) -> Self {
        let number = fd.as_fd().as_raw_fd();
        let mut private = HERITAGE.private.lock();
        let place = private.partition_point(|other| *other < number);
        private.insert(place, number);
        Self(fd)
    }
}

impl<T: AsFd> Deref for Private<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: AsFd> AsFd for Private<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl<T: AsFd> Drop for Private<T> {
    /// Before it is closed: from then on the number may be another file's.
    fn drop(&mut self) {
        let mut private = HERITAGE.private.lock();
        if let Ok(place) = private.binary_search(&self.0.as_fd().as_raw_fd()) {
            private.remove(place);
        }
    }
}

/// The pidfd of a child. No child that this crate forks keeps it.
#[derive(Debug)]
pub(crate) enum PidFd {
    /// In the books of this process.
    Noted(OwnedFd),
    /// Its number is too high for them.
    Private(Private),
}

impl PidFd {
    /// Opens a descriptor that becomes readable when the child ends.
    pub(crate) fn open(pid: Pid) -> io::Result<Self> {
        let fd = pidfd(pid)?;
        let is_noted = books().pidfds.add(fd.as_raw_fd());
        Ok(if is_noted { Self::Noted(fd) } else { Self::Private(Private::new(fd)) })
    }

    /// As [`open`](Self::open), for a child that was forked a while ago. `None` if something else has waited for it: its
    /// number may be another process's now.
    pub(crate) fn of_child(pid: Pid) -> io::Result<Option<Self>> {
        let fd = match Self::open(pid) {
            Err(e) if e.raw_os_error() == Some(libc::ESRCH) => return Ok(None),
            opened => opened?,
        };
        let look = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        let is_ours = wait_for(libc::P_PIDFD, fd.as_fd().as_raw_fd(), look).err() != Some(Errno::ECHILD);
        Ok(is_ours.then_some(fd))
    }
}

impl AsFd for PidFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Noted(fd) => fd.as_fd(),
            Self::Private(fd) => fd.as_fd(),
        }
    }
}

impl Drop for PidFd {
    /// Before it is closed: from then on the number may be another file's.
    fn drop(&mut self) {
        if let Self::Noted(fd) = self {
            books().pidfds.remove(fd.as_raw_fd());
        }
    }
}

/// Closes the parents' private descriptors in a child, except for some. Neighbours go in one call, if the kernel has
/// it.
pub(crate) fn close_private<'a>(but: impl Iterator<Item = BorrowedFd<'a>> + Clone) {
    // In place: memory that is allocated here would be copied for the child.
    let mut run: Option<(RawFd, RawFd)> = None;
    // What it keeps is nothing for its own children either.
    HERITAGE.private.lock().retain(|fd| {
        let keeps = but.clone().any(|kept| kept.as_raw_fd() == *fd);
        if !keeps {
            run = match run {
                Some((first, last)) if last + 1 == *fd => Some((first, *fd)),
                Some((first, last)) => {
                    close_all(first, last);
                    Some((*fd, *fd))
                }
                None => Some((*fd, *fd)),
            };
        }
        keeps
    });
    run.into_iter().for_each(|(first, last)| close_all(first, last));
}

#[inline(always)]
fn close_all(first: RawFd, last: RawFd) {
    // SAFETY: these are private descriptors, used no more in this process.
    if unsafe { raw::close_range(first, last) }.is_err() {
        (first..=last).for_each(|fd| {
            let _ = nix::unistd::close(fd);
        });
    }
}

/// Ends the process without destructors and `atexit` functions, which are the parent's.
#[inline(always)]
fn exit(code: i32) -> ! {
    let _ = io::stdout().flush();
    raw::exit(code)
}

/// Opens a descriptor that becomes readable when the process ends.
pub(super) fn pidfd(pid: Pid) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_open takes two integers.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) })?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Checks that the kernel can watch children: `pidfd_open` (Linux 5.3), `waitid` by it (5.4), and signals by it. An
/// old kernel cannot, and a sandbox may forbid it.
pub(crate) fn check_pidfds() -> io::Result<()> {
    let own = match pidfd(Pid::this()) {
        // The number of descriptors is checked elsewhere.
        Err(e) if matches!(e.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) => return Ok(()),
        own => own?,
    };
    // SAFETY: pidfd_send_signal takes two integers, a null siginfo and no flags. Signal 0 is none.
    Errno::result(unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, own.as_raw_fd(), 0, std::ptr::null::<siginfo_t>(), 0)
    })?;
    // This process is no child of its own.
    match wait(own.as_fd()) {
        Ok(_) | Err(Errno::ECHILD | Errno::EINTR) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// How a child has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    /// By itself, with this code.
    Exited(i32),
    /// By a signal of this name.
    Killed(&'static str),
    /// Nobody can know: something else has waited for it, or SIGCHLD is ignored.
    Gone,
}

/// Returns the end of this child, if it has ended. It never waits, and takes no other child's end.
pub(crate) fn ended(pidfd: BorrowedFd<'_>) -> Option<Status> {
    match wait(pidfd) {
        Ok(info) => status(&info),
        Err(Errno::EINTR) => None,
        Err(_) => Some(Status::Gone),
    }
}

fn wait(pidfd: BorrowedFd<'_>) -> nix::Result<siginfo_t> {
    wait_for(libc::P_PIDFD, pidfd.as_raw_fd(), libc::WEXITED | libc::WNOHANG)
}

/// Reads what `waitid` has written. `None`: the child has not ended.
pub(super) fn status(info: &siginfo_t) -> Option<Status> {
    // SAFETY: `waitid` fills these fields; where no child has ended they are zeroes.
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    match info.si_code {
        _ if pid == 0 => None,
        libc::CLD_EXITED => Some(Status::Exited(status)),
        // A child that has this process trace it (PTRACE_TRACEME) is reported at each signal, asked for or not.
        libc::CLD_TRAPPED | libc::CLD_STOPPED | libc::CLD_CONTINUED => None,
        _ => Some(Status::Killed(Signal::try_from(status).map_or("a real-time signal", Signal::as_str))),
    }
}

/// Kills a child that cannot be watched, and waits for it, which is a matter of moments. Its number is still
/// its own, since it has not been waited for.
pub(crate) fn end_now(pid: Pid) -> Status {
    let _ = nix::sys::signal::kill(pid, Signal::SIGKILL);
    match nix::sys::wait::waitpid(pid, None) {
        Ok(WaitStatus::Exited(_, code)) => Status::Exited(code),
        Ok(WaitStatus::Signaled(_, signal, _)) => Status::Killed(signal.as_str()),
        _ => Status::Gone,
    }
}

/// Sends a signal to this very process, never to another that has got its number.
pub(crate) fn signal(pidfd: BorrowedFd<'_>, signal: Signal) {
    // SAFETY: pidfd_send_signal takes two integers, a null siginfo and no flags.
    unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal as i32, std::ptr::null::<siginfo_t>(), 0)
    };
}

/// A timer that makes a descriptor readable.
#[derive(Debug)]
pub(crate) struct Timer(TimerFd);

impl Timer {
    pub(crate) fn new() -> io::Result<Self> {
        let flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
        Ok(Self(TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?))
    }

    /// Makes it readable after this time, instead of any time set before.
    pub(crate) fn set(&self, after: Duration) -> io::Result<()> {
        let after = after.clamp(Duration::from_nanos(1), LONGEST_WAIT);
        Ok(self.0.set(Expiration::OneShot(after.into()), TimerSetTimeFlags::empty())?)
    }

    /// Makes it unreadable, and takes its time away.
    pub(crate) fn unset(&self) {
        let _ = self.0.unset();
    }

    /// True if its time has passed. From then on it is unreadable.
    pub(crate) fn is_over(&self) -> bool {
        nix::unistd::read(&self.0, &mut [0; 8]).is_ok()
    }
}

impl AsFd for Timer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
