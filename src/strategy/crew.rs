//! [`Crew`]: threads that accept themselves (leader and followers).
//!
//! Each member waits in a seat of its own. The kernel wakes one of them for a connection, and that member
//! serves it, without a hand-over. A crew either has a fixed size, or always has a waiting member. The last
//! one to leave a seat hires a successor before it runs user code. With a fixed size no member may be left,
//! and the kernel's backlog is the queue.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::{bounded, Receiver, Sender, TrySendError};

use crate::accept::{AcceptEvent, Acceptor, Rejected, Request, Seat, ServingStrategy};
use crate::config::AtLimit;
use crate::error::{Error, Result};
use crate::hooks::Pace;
use crate::lifecycle::Restarts;
use crate::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use crate::sync::{thread, Mutex};
use crate::sys;

/// The rest after a failed attempt to start a missing thread.
const HIRE_AGAIN: Duration = Duration::from_millis(100);

/// The settings of a strategy's threads.
#[derive(Debug, Clone)]
pub(crate) struct ThreadSettings {
    pub(crate) name: String,
    /// In bytes; `None` is Rust's default (2 MiB).
    pub(crate) stack_size: Option<usize>,
    /// How long a thread waits for work before it ends, while another one waits too.
    pub(crate) keep_alive: Duration,
    /// The most threads that wait for work.
    pub(crate) spare: usize,
    /// The fixed size of the crew. `None`: it grows with the connections.
    pub(crate) size: Option<usize>,
}

/// The most threads of a crew that grows, where connections are parked: the connection limit does not bound them.
const MOST_WITH_A_LOT: usize = 1024;

/// The largest stack, 1 TiB. More is a mistake: no thread would ever start.
const LARGEST_STACK: usize = match 1_usize.checked_shl(40) {
    Some(size) => size,
    None => 1 << 30, // a quarter of what a 32-bit process has
};

impl ThreadSettings {
    /// Checks the settings when the server is bound.
    pub(crate) fn check(&self) -> Result<()> {
        if self.name.contains('\0') {
            return Err(Error::setting("thread_name", "a name cannot contain a NUL"));
        }
        match self.stack_size {
            Some(bytes) if bytes > LARGEST_STACK => {
                Err(Error::setting("stack_size", format!("{bytes} bytes are more than a thread can have")))
            }
            _ => Ok(()),
        }
    }

    fn spawn(&self, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let mut builder = thread::Builder::new().name(self.name.clone());
        if let Some(bytes) = self.stack_size {
            builder = builder.stack_size(bytes);
        }
        builder.spawn(work).map(drop)
    }
}

/// Serves with threads that accept themselves. If the server refuses at its limit, one thread must always be
/// free to refuse: then it accepts, and hands each request over. Where connections are parked, a thread is free between
/// two requests, and refuses then.
pub(crate) fn serve(settings: &ThreadSettings, by_hand_over: &dyn ServingStrategy, acceptor: &Acceptor) -> Result<()> {
    if matches!(acceptor.core().settings.at_limit, AtLimit::Refuse(_)) && acceptor.lot().is_none() {
        return acceptor.run(by_hand_over);
    }
    let crew = Crew {
        acceptor: acceptor.clone(),
        settings: settings.clone(),
        members: AtomicUsize::new(0),
        waiting: AtomicUsize::new(0),
        fault: Mutex::new(None),
    };
    Arc::new(crew).supervise()
}

/// The threads of one run, and the thread in `serve_forever`, which supervises them.
struct Crew {
    acceptor: Acceptor,
    settings: ThreadSettings,
    /// The number of threads.
    members: AtomicUsize,
    /// The number of threads that wait for a connection, or were started to wait.
    waiting: AtomicUsize,
    /// The error that has ended accepting for all.
    fault: Mutex<Option<Error>>,
}

impl Crew {
    /// Supervises on the calling thread until the stop: it starts threads, and replaces those that have died.
    /// It does not accept. It waits on descriptors, and wakes only when there is something to do.
    fn supervise(self: Arc<Self>) -> Result<()> {
        let core = self.acceptor.core();
        let failed = Error::system("supervise the worker threads");
        // Before the first connection, which might take the last descriptor.
        self.acceptor.make_ready(self.settings.size.unwrap_or(1))?;
        // Without one thread the server cannot begin. With fewer than wanted it can: the loop tries again.
        if let Err(e) = self.complete() {
            if self.members.load(SeqCst) == 0 {
                return Err(Error::System { act: "start a thread".into(), source: e });
            }
        }
        let watch = || -> io::Result<()> {
            let mut actions = Pace::begin(core);
            while !core.control.stopping() {
                // Cleared before the look, so that a member that ends after it wakes the wait.
                core.control.events.clear();
                let retry = self.complete().err().map(|e| {
                    core.monitor.report_resting_worker(&Error::system("start a thread")(e));
                    HIRE_AGAIN
                });
                // No event reports that threads can be started again, so that is tried by the clock.
                let retry = retry.into_iter().chain(actions.left()).min();
                let restarts = core.restarts().map(Restarts::watch);
                let wait = [Some(core.control.events.as_fd()), Some(core.control.stop_fd()), restarts];
                if sys::poll(wait, None, retry)?.has(2) {
                    core.restarts().into_iter().for_each(Restarts::step);
                }
                actions.act();
            }
            Ok(())
        };
        watch().map_err(failed)?;
        self.end_parked();
        // A worker process that is stopped before it has a share of the limit: the queue still needs a thread.
        if self.members.load(SeqCst) == 0 {
            self.hire().unwrap_or_else(|e| core.monitor.report_resting_worker(&Error::system("start a thread")(e)));
        }
        self.fault.lock().take().map_or(Ok(()), Err)
    }

    /// Starts the missing threads: those that have died, or one to wait if none waits.
    fn complete(self: &Arc<Self>) -> io::Result<()> {
        match self.settings.size {
            Some(size) => {
                while self.members.load(SeqCst) < size {
                    self.hire()?;
                }
            }
            None if self.needs_waiting() => self.hire()?,
            None => {}
        }
        Ok(())
    }

    /// Starts a thread. It counts as waiting at once, so that no other thread starts one for the same
    /// purpose.
    fn hire(self: &Arc<Self>) -> io::Result<()> {
        self.members.fetch_add(1, SeqCst);
        self.acceptor.core().run.workers.fetch_add(1, SeqCst);
        self.waiting.fetch_add(1, SeqCst);
        // If the thread does not start, the closure is dropped, and `Member::drop` takes the counts back.
        let mut member = Member { crew: self.clone(), waits: true, quiet: true };
        self.settings.spawn(move || member.work())
    }

    /// True if the member that has just taken a request must hire a successor: no member waits, and the limit
    /// allows another connection.
    fn needs_successor(&self) -> bool {
        self.settings.size.is_none() && self.needs_waiting()
    }

    /// True if a crew that grows lacks a member that waits.
    fn needs_waiting(&self) -> bool {
        // A parked connection may have a request at any time, also at the limit.
        let is_needed = match self.acceptor.lot() {
            Some(_) => self.members.load(SeqCst) < MOST_WITH_A_LOT,
            None => !self.acceptor.core().admission.permits.full(),
        };
        is_needed && self.waiting.load(SeqCst) == 0
    }

    /// Starts a thread that ends the parked connections at a stop, as all members may be busy. Without that thread, the
    /// next member that is free ends them.
    fn end_parked(self: &Arc<Self>) {
        let Some(lot) = self.acceptor.lot().cloned() else { return };
        let core = self.acceptor.core();
        // From the stop on, a connection that has sent nothing is not parked.
        if core.admission.permits.parked() == 0 {
            return;
        }
        self.members.fetch_add(1, SeqCst);
        core.run.workers.fetch_add(1, SeqCst);
        let member = Member { crew: self.clone(), waits: false, quiet: true };
        let started = self.settings.spawn(move || {
            let _member = member;
            let _ = lot.end_parked();
        });
        if let Err(e) = started {
            core.monitor.report_resting_worker(&Error::system("start a thread")(e));
        }
    }

    /// Takes a seat. `None` if the server has been dropped.
    fn seat(&self) -> Option<Seat<'static>> {
        self.acceptor.seat().map_err(|e| self.fail(e)).ok()
    }

    /// Ends accepting for all members. The first fault is the result of the run.
    fn fail(&self, fault: Error) {
        self.fault.lock().get_or_insert(fault);
        self.acceptor.core().control.request_stop();
    }
}

/// One thread of the crew. Its drop takes it out of the counts, however the thread ends.
struct Member {
    crew: Arc<Crew>,
    /// True if it counts as waiting.
    waits: bool,
    /// True if its end need not wake the supervisor: it was never started, or enough others wait.
    quiet: bool,
}

impl Member {
    fn work(&mut self) {
        // The thread runs now: if it dies from here on, the supervisor must replace it.
        self.quiet = false;
        while let Some(request) = self.next_request() {
            // A panic of the handler does not come out of `run`.
            request.run();
            // Starting a thread costs more than a short connection, so the thread waits for another one.
            if !self.wait_again() {
                return;
            }
        }
    }

    /// Waits for a request, leaves the seat, and hires a successor if needed. `None` if the thread should
    /// end.
    fn next_request(&mut self) -> Option<Request> {
        let crew = self.crew.clone();
        let mut patience = crew.settings.size.is_none().then_some(crew.settings.keep_alive);
        let mut seat = crew.seat()?;
        loop {
            match seat.next(patience) {
                Ok(AcceptEvent::Request(request)) => {
                    // The next waiting member uses the seat's descriptor.
                    drop(seat);
                    if let Some(request) = self.leave_seat_with(request) {
                        return Some(request);
                    }
                    // The request was refused, because no successor could be started. A rest lets a
                    // connection end.
                    seat = crew.seat()?;
                    if let Err(e) = seat.back_off() {
                        crew.fail(e);
                        return None;
                    }
                }
                Ok(AcceptEvent::Timeout) => {
                    // A thread that was woken for a connection must not retire. The kernel has put the
                    // connection on no other sleeper's set: the others do not know of it.
                    if !seat.is_called() && self.retire_unless_last() {
                        return None;
                    }
                    // The last one stays, without a time limit. A thread that joins it later retires instead.
                    patience = None;
                }
                Ok(AcceptEvent::Watched) => {}
                Ok(AcceptEvent::Stopped) => return None,
                Err(e) => {
                    crew.fail(e);
                    return None;
                }
            }
        }
    }

    /// Returns the request, to be run now. `None` if a successor was needed and could not be started: then
    /// the request is refused, and this thread waits on. So the server stays reachable.
    fn leave_seat_with(&mut self, request: Request) -> Option<Request> {
        self.stop_waiting();
        if !self.crew.needs_successor() {
            return Some(request);
        }
        match self.crew.hire() {
            Ok(()) => Some(request),
            // Its client has been served before, and is not refused. The supervisor tries again.
            Err(_) if request.is_again() => {
                self.crew.acceptor.core().control.wake_supervisor();
                Some(request)
            }
            Err(why) => {
                self.start_waiting();
                Rejected::new(request, why).refuse();
                None
            }
        }
    }

    /// True if this thread should wait again. False if enough others wait: then it is out of the count
    /// already.
    fn wait_again(&mut self) -> bool {
        self.start_waiting();
        if self.crew.settings.size.is_none() && self.crew.waiting.load(SeqCst) > self.crew.settings.spare {
            return !self.retire_unless_last();
        }
        true
    }

    /// True if this thread no longer counts as waiting, because another one waits.
    fn retire_unless_last(&mut self) -> bool {
        // In one step: of two threads that retire at the same time, the second one sees that it is the last.
        let fewer = |n: usize| (n > 1).then_some(n - 1);
        let retires = self.crew.waiting.fetch_update(SeqCst, SeqCst, fewer).is_ok();
        if retires {
            self.waits = false;
            self.quiet = true;
        }
        retires
    }

    fn start_waiting(&mut self) {
        self.crew.waiting.fetch_add(1, SeqCst);
        self.waits = true;
    }

    fn stop_waiting(&mut self) {
        self.crew.waiting.fetch_sub(1, SeqCst);
        self.waits = false;
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if self.waits {
            self.stop_waiting();
        }
        self.crew.members.fetch_sub(1, SeqCst);
        let core = self.crew.acceptor.core();
        core.run.workers.fetch_sub(1, SeqCst);
        // A supervisor replaces it; a drain waits for the last one.
        if !self.quiet || core.control.stopping() {
            core.control.wake_supervisor();
        }
    }
}

/// A thread that has just given its permit back gets this time to take the next request.
const ABOUT_TO_WAIT: Duration = Duration::from_millis(100);

/// Counts a thread while it lives.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn new(threads: &Arc<AtomicUsize>) -> Self {
        threads.fetch_add(1, SeqCst);
        Self(threads.clone())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

/// Gives requests to threads that are kept for a while. It is used by
/// [`handle_request`](crate::TcpServer::handle_request), and by servers that refuse at their limit.
#[derive(Debug)]
pub(crate) struct HandOver {
    to: Sender<Request>,
    from: Receiver<Request>,
    threads: Arc<AtomicUsize>,
}

impl Default for HandOver {
    fn default() -> Self {
        let (to, from) = bounded(0);
        Self { to, from, threads: Arc::default() }
    }
}

impl HandOver {
    /// Gives the request to a waiting thread, or to a new one.
    pub(crate) fn give(&self, settings: &ThreadSettings, request: Request) -> std::result::Result<(), Rejected> {
        let request = match self.to.try_send(request) {
            Ok(()) => return Ok(()),
            Err(TrySendError::Full(request) | TrySendError::Disconnected(request)) => request,
        };
        // The permit says that a thread is free, but it may still be on its way back to the channel.
        if settings.size.is_some_and(|size| self.threads.load(SeqCst) >= size) {
            let given = self.to.send_timeout(request, ABOUT_TO_WAIT);
            return given.map_err(|e| Rejected::new(e.into_inner(), io::Error::other("all threads are busy")));
        }
        let place = Place::new(&self.threads);
        let (keep_alive, more) = (settings.keep_alive, self.from.clone());
        // If the thread does not start, the request must come back: so it is not moved into the closure.
        let parcel = Arc::new(Mutex::new(Some(request)));
        let theirs = parcel.clone();
        let work = move || {
            let _place = place;
            let mut next = theirs.lock().take();
            drop(theirs);
            while let Some(request) = next {
                request.run();
                next = more.recv_timeout(keep_alive).ok();
            }
        };
        let Err(why) = settings.spawn(work) else { return Ok(()) };
        let back = parcel.lock().take();
        back.map_or(Ok(()), |request| Err(Rejected::new(request, why)))
    }
}

#[cfg(all(test, shuttle))]
mod model;
#[cfg(test)]
mod tests;
