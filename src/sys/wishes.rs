//! What a forked child may ask its parent for ([`Wishes`]), and how the two wake each other ([`ChildPipes`]).
//!
//! A child that a hostile client has taken over must not be able to jam its parent or its siblings. So there
//! is no descriptor that several processes can set and clear, as an eventfd is.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::libc;
use nix::unistd::{pipe2, read, write};

use super::process::Private;

/// A child's request to its parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    Stop,
    StopNow,
    Pause,
    Resume,
    /// The connection limit.
    Limit(usize),
    /// The number of worker processes.
    Workers(usize),
    Reload,
    Restart,
    /// The first error of the run has been printed.
    ErrorSaid,
}

/// The wishes of one child, in memory that it shares with its parent. Zero: none.
///
/// Each stands there twice, the second time with all bits inverted. So a stray write is no wish.
#[derive(Debug, Default)]
pub(crate) struct Wishes {
    stop: Twice,
    pause: Twice,
    limit: Twice,
    workers: Twice,
    reload: Twice,
    restart: Twice,
    error_said: Twice,
}

#[derive(Debug, Default)]
struct Twice(AtomicUsize, AtomicUsize);

impl Twice {
    fn set(&self, number: usize) {
        self.1.store(!number, SeqCst);
        self.0.store(number, SeqCst);
    }

    /// Calls `act` with the number, if there is one. Afterwards it is gone, unless there is another by then.
    fn take(&self, act: impl FnOnce(usize)) {
        let number = self.0.load(SeqCst);
        if number > 0 {
            if self.1.load(SeqCst) == !number {
                act(number);
            }
            let _ = self.0.compare_exchange(number, 0, SeqCst, SeqCst);
        }
    }

    fn is_set(&self) -> bool {
        self.0.load(SeqCst) > 0
    }
}

impl Wishes {
    pub(super) fn express(&self, wish: Wish) {
        match wish {
            Wish::Stop => self.stop.set(1),
            Wish::StopNow => self.stop.set(2),
            Wish::Pause => self.pause.set(1),
            Wish::Resume => self.pause.set(2),
            Wish::Limit(limit) => self.limit.set(limit),
            Wish::Workers(count) => self.workers.set(count),
            Wish::Reload => self.reload.set(1),
            Wish::Restart => self.restart.set(1),
            Wish::ErrorSaid => self.error_said.set(1),
        }
    }

    /// Calls `fulfil` with each wish, in the parent. Nothing in a wish is to be trusted: a child may write
    /// anything. Afterwards the wish is gone, which the child sees.
    pub(crate) fn fulfil(&self, mut fulfil: impl FnMut(Wish)) {
        self.limit.take(|limit| fulfil(Wish::Limit(limit)));
        self.workers.take(|count| fulfil(Wish::Workers(count)));
        self.reload.take(|_| fulfil(Wish::Reload));
        self.restart.take(|_| fulfil(Wish::Restart));
        self.error_said.take(|_| fulfil(Wish::ErrorSaid));
        self.pause.take(|level| fulfil(if level == 1 { Wish::Pause } else { Wish::Resume }));
        self.stop.take(|level| fulfil(if level == 1 { Wish::Stop } else { Wish::StopNow }));
    }

    /// True if the parent has yet to fulfil a wish, other than that for a stop.
    fn are_pending(&self) -> bool {
        [&self.pause, &self.limit, &self.workers, &self.reload, &self.restart, &self.error_said]
            .into_iter()
            .any(Twice::is_set)
    }

    /// Waits until the parent has fulfilled the wishes, but not long: it may be busy.
    pub(super) fn wait(&self) {
        for _ in 0..400 {
            if !self.are_pending() {
                return;
            }
            std::thread::sleep(Duration::from_micros(250));
        }
    }
}

/// The two pipes between a process and its forked children.
#[derive(Debug)]
pub(crate) struct ChildPipes {
    /// The parent holds the writing end, and closes it at a stop. No child can take that back.
    stop: [Private; 2],
    stop_is_closed: AtomicBool,
    /// A child writes into it when it has a wish. Only the parent reads.
    bell: [Private; 2],
}

impl ChildPipes {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { stop: pipe()?, stop_is_closed: AtomicBool::new(false), bell: pipe()? })
    }

    /// Returns what children see of a stop: readable (as a hang-up) from the stop on.
    pub(crate) fn stop(&self) -> BorrowedFd<'_> {
        self.stop[0].as_fd()
    }

    /// Returns what the parent waits for: readable if some child has a wish.
    pub(crate) fn bell(&self) -> BorrowedFd<'_> {
        self.bell[0].as_fd()
    }

    /// Returns the descriptors that children keep.
    pub(crate) fn of_children(&self) -> [BorrowedFd<'_>; 2] {
        [self.stop(), self.bell[1].as_fd()]
    }

    /// Announces a stop to the children. Async-signal-safe.
    pub(super) fn close_stop(&self) {
        if self.stop_is_closed.swap(true, SeqCst) {
            return;
        }
        // A child that is just being forked may have a copy of this end for a moment. The byte reaches the others.
        let _ = write(&self.stop[1], &[0]);
        // Another file takes the place of the writing end: the number stays taken.
        // SAFETY: dup3 takes three integers.
        unsafe { libc::dup3(self.bell[0].as_raw_fd(), self.stop[1].as_raw_fd(), libc::O_CLOEXEC) };
    }

    /// Makes the pipe anew after a stop, for the children of the next run.
    pub(super) fn reopen_stop(&self) -> io::Result<()> {
        if self.stop_is_closed.load(SeqCst) {
            replace(&self.stop)?;
            self.stop_is_closed.store(false, SeqCst);
        }
        Ok(())
    }

    /// Makes both pipes anew, in a process that was forked from the one that made them, and serves now.
    pub(crate) fn renew(&self) -> io::Result<()> {
        replace(&self.bell)?;
        replace(&self.stop)?;
        self.stop_is_closed.store(false, SeqCst);
        Ok(())
    }

    /// Wakes the parent. Async-signal-safe. If the pipe is full, the parent is about to look.
    pub(crate) fn ring(&self) {
        let _ = write(&self.bell[1], &[0]);
    }

    /// Empties the bell, before a look at the wishes.
    pub(crate) fn hear(&self) {
        // Not until it is empty: a child that writes without end must not hold up the parent. Not much at once: a page of
        // the stack that is written costs a fault after each fork.
        let _ = read(&self.bell[0], &mut [0; 256]);
    }
}

/// Makes a pipe anew, at the same numbers.
fn replace(pipe: &[Private; 2]) -> io::Result<()> {
    for (new, old) in self::pipe()?.iter().zip(pipe) {
        // SAFETY: dup3 takes three integers.
        Errno::result(unsafe { libc::dup3(new.as_raw_fd(), old.as_raw_fd(), libc::O_CLOEXEC) })?;
    }
    Ok(())
}

fn pipe() -> io::Result<[Private; 2]> {
    let (read, write) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
    Ok([Private::new(read), Private::new(write)])
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;

    fn taken(wishes: &Wishes) -> Vec<Wish> {
        let mut taken = Vec::new();
        wishes.fulfil(|wish| taken.push(wish));
        taken
    }

    #[test]
    fn each_wish_is_taken_once_and_a_later_one_counts() {
        let wishes = Wishes::default();
        assert_eq!(taken(&wishes), []);
        for wish in [Wish::Limit(7), Wish::Workers(3), Wish::Reload, Wish::Pause, Wish::Resume, Wish::Stop] {
            wishes.express(wish);
        }
        assert!(wishes.are_pending());
        assert_eq!(taken(&wishes), [Wish::Limit(7), Wish::Workers(3), Wish::Reload, Wish::Resume, Wish::Stop]);
        assert!(!wishes.are_pending() && taken(&wishes).is_empty());
    }

    #[test]
    fn a_stray_write_is_no_wish() {
        let wishes = Wishes::default();
        for twice in [&wishes.stop, &wishes.pause, &wishes.limit, &wishes.workers, &wishes.reload] {
            twice.0.store(usize::MAX, SeqCst);
            twice.1.store(usize::MAX, SeqCst);
        }
        assert_eq!(taken(&wishes), []);
        assert!(!wishes.are_pending());
    }

    #[test]
    fn the_pipe_tells_of_each_stop() {
        let pipes = ChildPipes::new().unwrap();
        let tells = || super::super::poll([Some(pipes.stop())], None, Some(Duration::ZERO)).unwrap().has(0);
        for _ in 0..2 {
            assert!(!tells());
            pipes.close_stop();
            pipes.close_stop();
            assert!(tells());
            // A child that reads takes nothing away.
            while read(&pipes.stop[0], &mut [0; 16]).is_ok_and(|n| n > 0) {}
            assert!(tells());
            pipes.reopen_stop().unwrap();
        }
    }
}
