//! [`Forking`]: a process for each connection. What happens in a handler, happens to that process.
//!
//! The walk of a request: [`Forking::fork`] counts the threads and forks. The child ([`child`]) lets go of
//! what is the parent's, serves, and writes a verdict into its slot ([`slots`]). The parent keeps the permit,
//! watches the child ([`children`]), ends it at its limits ([`overdue`]), and accounts for its end ([`account`]).
//! [`bounds`] are what a process is held to; worker processes of `PreForking` have the same.
//!
//! The only `unsafe` here is the promise of [`Forking::allow_threads`]. System calls are in `sys::process`.

mod account;
mod bounds;
mod child;
mod children;
mod hear;
mod overdue;
mod slots;
mod table;

use std::cell::{Cell, OnceCell, RefCell};
use std::fmt;
use std::io;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use nix::sys::signal::Signal;

use crate::accept::{Acceptor, Rejected, Request, ServingStrategy};
use crate::connection::warm_up;
use crate::error::{Error, Result};
use crate::lifecycle::Core;
use crate::sys::process::{self, ChildSignals, Private};
use crate::sys::{restart, signal, Epoll};

use children::Children;

pub(crate) use bounds::{bound_settings, Bounds};

/// A process for each connection: what happens in a handler, happens to that connection only.
///
/// After a panic, an abort, an exit, a segfault or a stack overflow the child is gone, and the server goes on. So it
/// is after a leak or an endless loop, where a limit ends the child. The end is classified, counted, logged and given
/// to the [`handle_error`](crate::ServerBuilder::handle_error) hook. Memory is copied on write: a handler sees the
/// server's state as it was at the fork, and changes only its own copy. [The guide](crate::guide::forking) has what a
/// handler may do there, and the exit codes.
///
/// The server must have no other threads, since `fork` copies only one of them, and every lock as it is. It refuses
/// to start and to fork if there are others ([`Error::Threads`]). Unlike Python's `ForkingMixIn`, it never waits for
/// a child at its limit, and reaps its own children only. A child keeps neither the listener nor the signal handlers.
///
/// ```no_run
/// use socketserver::{Connection, Forking, HandlerResult};
/// use socketserver::{StreamRequestHandler, TcpServer};
///
/// struct Greeter;
///
/// impl StreamRequestHandler for Greeter {
///     fn handle(&self, conn: &mut Connection) -> HandlerResult {
///         conn.send_line(format!("Hello from process {}", std::process::id()))
///     }
/// }
///
/// type Server = TcpServer<Greeter, Forking>;
/// Server::bind("127.0.0.1:1234", Greeter)?.serve_forever()?;
/// # Ok::<(), socketserver::Error>(())
/// ```
pub struct Forking {
    bounds: Bounds,
    after_fork: Option<Box<dyn Fn() + Send>>,
    threads_allowed: bool,
    /// Made before the first fork, so never in a child of another server.
    children: RefCell<Option<Children>>,
    /// The pidfds of the children or the signal for their ends, and the timer. Readable, it makes the acceptor call
    /// [`service_actions`](ServingStrategy::service_actions).
    watch: OnceCell<Private<Epoll>>,
    /// Made at the first fork of a run: asking for the dispositions of all signals costs more than the rest
    /// of a fork's bookkeeping.
    signals: Cell<Option<ChildSignals>>,
}

impl Default for Forking {
    fn default() -> Self {
        Self::new()
    }
}

impl Forking {
    /// Default limit: 128 children.
    pub fn new() -> Self {
        Self {
            bounds: Bounds::default(),
            after_fork: None,
            threads_allowed: false,
            children: RefCell::new(None),
            watch: OnceCell::new(),
            signals: Cell::new(None),
        }
    }

    /// Called in each child before its handler. Reseed random number generators here: otherwise they give every child
    /// the same numbers. Set [bounds of your own](crate::guide::forking#bounds-of-your-own). A panic in it fails the
    /// connection.
    #[must_use]
    pub fn after_fork(mut self, hook: impl Fn() + Send + 'static) -> Self {
        self.after_fork = Some(Box::new(hook));
        self
    }

    bound_settings!(bounds);

    /// Forks even where the process has other threads.
    ///
    /// # Safety
    /// The child has only the thread that forked, but the memory of all threads. A lock that another thread held at
    /// that moment stays locked for ever. So, unless it runs nothing but async-signal-safe code, the child may hang
    /// in the first `println!`, `log` call, allocation or mutex (POSIX, fork). The caller makes sure that no other
    /// thread ever holds anything that a handler, the logger or the standard library in the child needs.
    #[allow(unsafe_code)] // no unsafe act: the caller's promise, which `sys::process::fork_child` relies on
    #[must_use]
    pub unsafe fn allow_threads(mut self) -> Self {
        self.threads_allowed = true;
        self
    }

    /// Refuses a fork beside other threads. A lock that another thread holds (of the allocator, of the logger)
    /// would stay locked in the child for ever. A handler may call anything, so this crate cannot mend that.
    fn check_threads(&self) -> Result<()> {
        if self.threads_allowed {
            return Ok(());
        }
        match process::threads() {
            Ok(1) => Ok(()),
            Ok(count) => Err(Error::Threads { others: count.saturating_sub(1) }),
            Err(e) => Err(Error::system(COUNT_THREADS)(e)),
        }
    }

    fn watch(&self) -> io::Result<&Epoll> {
        if self.watch.get().is_none() {
            let _ = self.watch.set(Private::new(Epoll::new()?));
        }
        self.watch.get().map(Deref::deref).ok_or_else(|| io::Error::other("no descriptor set"))
    }

    /// Forks a child for the request. The child never comes back from here.
    fn fork(&self, request: Request) -> std::result::Result<(), Rejected> {
        if let Err(e) = self.check_threads() {
            self.leave_ends();
            return Err(Rejected::new(request, io::Error::other(e)));
        }
        let Some(core) = request.core().cloned() else { return Ok(()) };
        let mut children = self.children.borrow_mut();
        let watch = match self.prepare(&core, &mut children) {
            Ok(watch) => watch,
            Err(why) => return Err(Rejected::new(request, why)),
        };
        let Some(children) = children.as_mut() else { return Ok(()) };
        let signals = self.signals.get().unwrap_or_else(|| {
            // A child need not resolve what the parent has touched once. The destructor of a thread-local alone would
            // cost it a dozen page faults in the dynamic linker.
            warm_up();
            let interrupt = signal::are_handled().then_some(Signal::SIGINT);
            let left_to_the_parent: Vec<_> = interrupt.into_iter().chain(restart::handled()).collect();
            ChildSignals::of_this_process(&left_to_the_parent)
        });
        self.signals.set(Some(signals));
        let parent = process::id();
        children.fork(watch, request, |request, window| {
            process::fork_child_with(&signals, window, |slot| child::run(request, slot, self, parent))
        })
    }

    /// Has each child watched by itself from now on.
    fn leave_ends(&self) {
        // A panic may have come from where they are in use.
        let Ok(mut children) = self.children.try_borrow_mut() else { return };
        if let (Some(children), Some(watch)) = (children.as_mut(), self.watch.get()) {
            children.leave_ends(watch);
        }
    }

    /// Forgets the children of the process that this one was forked from, without their destructors.
    fn forget_children_of_another(&self) -> io::Result<()> {
        let mut children = self.children.borrow_mut();
        if children.as_ref().is_some_and(Children::are_of_another) {
            std::mem::forget(children.take());
            self.watch()?.renew()?;
        }
        Ok(())
    }

    /// Makes what is needed before there can be children, once.
    fn prepare(&self, core: &Arc<Core>, children: &mut Option<Children>) -> io::Result<&Epoll> {
        let watch = self.watch()?;
        if children.is_none() {
            *children = Some(Children::new(core, watch)?);
        }
        Ok(watch)
    }
}

/// While this lives, SIGCHLD announces children that have ended, if it can.
struct HearsEnds<'a>(&'a Forking);

impl<'a> HearsEnds<'a> {
    fn of(forking: &'a Forking, core: &Core) -> Self {
        // Another thread could take the signal away. A hook could start a program, which would have it blocked for ever,
        // or have children and handlers of its own.
        if !forking.threads_allowed && !core.hooks.are_beside_children() {
            if let (Some(children), Some(watch)) = (forking.children.borrow_mut().as_mut(), forking.watch.get()) {
                children.hear_ends(watch);
            }
        }
        Self(forking)
    }
}

impl Drop for HearsEnds<'_> {
    fn drop(&mut self) {
        self.0.leave_ends();
    }
}

/// The act of counting threads, as an error names it.
pub(crate) const COUNT_THREADS: &str = "count the threads of this process, in /proc/self/task; mount /proc";

/// Checks that the system can watch child processes and, if they are to be, count the threads of this one. It is
/// called before a server listens: without them no child could be served.
pub(crate) fn check_system(counts_threads: bool) -> Result<()> {
    let act = "watch child processes by pidfd; Linux 5.4 or later can, if the sandbox allows it (pidfd_open)";
    process::check_pidfds().map_err(Error::system(act))?;
    if counts_threads {
        process::count_threads().map_err(Error::system(COUNT_THREADS))?;
    }
    Ok(())
}

impl ServingStrategy for Forking {
    fn process_request(&self, request: Request) -> std::result::Result<(), Rejected> {
        self.fork(request)
    }

    fn service_actions(&self) {
        if let (Some(children), Some(watch)) = (self.children.borrow_mut().as_mut(), self.watch.get()) {
            children.poll(watch);
        }
    }

    fn wake_fd(&self) -> Option<BorrowedFd<'_>> {
        self.watch.get().map(AsFd::as_fd)
    }

    fn serve(&self, acceptor: &Acceptor) -> Result<()> {
        self.check_threads()?;
        self.forget_children_of_another().map_err(Error::system("watch for events"))?;
        self.prepare(acceptor.core(), &mut self.children.borrow_mut())
            .map_err(Error::system("prepare to watch children"))?;
        // The program may have other handlers than at the last run.
        self.signals.set(None);
        let _hears = HearsEnds::of(self, acceptor.core());
        acceptor.run(self)
    }

    /// The set of its children, their timer, their ends, and what it shares with them: memory and a bell. The pidfd of
    /// a child comes in place of its connection.
    fn descriptors(&self) -> usize {
        6
    }

    fn max_connections(&self) -> Result<usize> {
        self.bounds.check()?;
        check_system(!self.threads_allowed)?;
        Ok(128)
    }
}

impl fmt::Debug for Forking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Forking").field("bounds", &self.bounds).finish_non_exhaustive()
    }
}
