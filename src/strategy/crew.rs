//! Threads that accept for themselves: leader and followers.
//!
//! Every member waits in a seat of its own; the kernel wakes one of them for a connection, and that one serves it,
//! without a hand-over. A crew either has a fixed size, or sees to it that somebody always waits: the last to leave
//! a seat hires a successor before it runs user code.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::{bounded, Receiver, Sender, TrySendError};

use crate::accept::{AcceptEvent, Acceptor, Rejected, Request, Seat, ServingStrategy};
use crate::config::AtLimit;
use crate::error::{Error, Result};
use crate::hooks::Pace;
use crate::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use crate::sync::{thread, Mutex};
use crate::sys;

/// After a failed attempt to start a thread that the crew misses.
const HIRE_AGAIN: Duration = Duration::from_millis(100);

/// How the threads of a strategy are made and kept.
#[derive(Debug, Clone)]
pub(crate) struct ThreadSettings {
    pub(crate) name: String,
    /// Bytes; `None` is Rust's default (2 MiB).
    pub(crate) stack_size: Option<usize>,
    /// How long a thread waits for work before it ends, while another one waits too.
    pub(crate) keep_alive: Duration,
    /// How many threads wait for work at the most.
    pub(crate) spare: usize,
    /// A crew of this many, no more and no less; `None`: as many as there are connections.
    pub(crate) size: Option<usize>,
}

/// The largest stack, 1 TiB: more is a slip, and no thread would ever start.
const LARGEST_STACK: usize = 1 << 40;

impl ThreadSettings {
    /// For the strategies' settings, when the server is bound.
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

/// Serves with threads that accept for themselves, or, where somebody must always be there to refuse, by hand-over.
pub(crate) fn serve(settings: &ThreadSettings, by_hand_over: &dyn ServingStrategy, acceptor: &Acceptor) -> Result<()> {
    if matches!(acceptor.core().settings.at_limit, AtLimit::Refuse(_)) {
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

struct Crew {
    acceptor: Acceptor,
    settings: ThreadSettings,
    /// Threads there are.
    members: AtomicUsize,
    /// Threads that wait for a connection, or have been started to.
    waiting: AtomicUsize,
    /// What has ended accepting for all.
    fault: Mutex<Option<Error>>,
}

impl Crew {
    /// The calling thread's part until the stop: it hires, and replaces who is missing.
    fn supervise(self: Arc<Self>) -> Result<()> {
        let core = self.acceptor.core();
        let failed = Error::system("supervise the worker threads");
        self.acceptor.make_ready(self.settings.size.unwrap_or(1))?;
        if let Err(e) = self.complete() {
            if self.members.load(SeqCst) == 0 {
                return Err(Error::System { act: "start a thread".into(), source: e });
            }
        }
        let watch = || -> io::Result<()> {
            let mut actions = Pace::begin(core);
            while !core.control.stopping() {
                core.control.events.clear();
                let retry = self.complete().err().map(|e| {
                    core.monitor.report_resting_worker(&Error::system("start a thread")(e));
                    HIRE_AGAIN
                });
                let retry = retry.into_iter().chain(actions.left()).min();
                let wait = [Some(core.control.events.as_fd()), Some(core.control.stop.as_fd())];
                sys::poll(wait, None, retry)?;
                actions.act();
            }
            Ok(())
        };
        watch().map_err(failed)?;
        self.fault.lock().take().map_or(Ok(()), Err)
    }

    /// Hires whoever is missing: a worker that has died, or one to wait where nobody does.
    fn complete(self: &Arc<Self>) -> io::Result<()> {
        match self.settings.size {
            Some(size) => {
                while self.members.load(SeqCst) < size {
                    self.hire()?;
                }
            }
            None if self.waiting.load(SeqCst) == 0 && !self.acceptor.core().admission.permits.full() => self.hire()?,
            None => {}
        }
        Ok(())
    }

    /// Starts a thread; it counts as waiting from now on, so that nobody hires another one in its place.
    fn hire(self: &Arc<Self>) -> io::Result<()> {
        self.members.fetch_add(1, SeqCst);
        self.acceptor.core().run.workers.fetch_add(1, SeqCst);
        self.waiting.fetch_add(1, SeqCst);
        let mut member = Member { crew: self.clone(), waits: true, quiet: true };
        self.settings.spawn(move || member.work())
    }

    /// Whether the one who has just taken a request must hire a successor: nobody waits, and one more may be served.
    fn needs_successor(&self) -> bool {
        self.settings.size.is_none() && self.waiting.load(SeqCst) == 0 && !self.acceptor.core().admission.permits.full()
    }

    /// A seat, as soon as the system has the descriptors for it; `None` when the server stops meanwhile.
    fn seat(&self) -> Option<Seat<'static>> {
        loop {
            match self.acceptor.seat() {
                Ok(seat) => return Some(seat),
                Err(e) => self.acceptor.core().monitor.report_resting_worker(&e),
            }
            let control = &self.acceptor.core().control;
            let rested = sys::poll([Some(control.stop.as_fd())], None, Some(HIRE_AGAIN));
            if control.stopping() || rested.is_err() {
                return None;
            }
        }
    }

    /// Ends accepting for all, with this cause.
    fn fail(&self, fault: Error) {
        self.fault.lock().get_or_insert(fault);
        self.acceptor.core().control.request_stop();
    }
}

/// One thread of the crew. Dropping it strikes it off, however the thread ends.
struct Member {
    crew: Arc<Crew>,
    waits: bool,
    /// Whether nobody needs to hear of its end: it was never started, or enough others wait.
    quiet: bool,
}

impl Member {
    fn work(&mut self) {
        self.quiet = false;
        while let Some(request) = self.next_request() {
            request.run();
            if !self.wait_again() {
                return;
            }
        }
    }

    /// Waits for a request, leaves the seat, and sees to a successor. `None`: there is no more work here.
    fn next_request(&mut self) -> Option<Request> {
        let crew = self.crew.clone();
        let mut patience = crew.settings.size.is_none().then_some(crew.settings.keep_alive);
        let mut seat = crew.seat()?;
        loop {
            match seat.next(patience) {
                Ok(AcceptEvent::Request(request)) => {
                    drop(seat);
                    if let Some(request) = self.leave_seat_with(request) {
                        return Some(request);
                    }
                    seat = crew.seat()?;
                    if let Err(e) = seat.back_off() {
                        crew.fail(e);
                        return None;
                    }
                }
                Ok(AcceptEvent::Timeout) => {
                    if !seat.is_called() && self.retire_unless_last() {
                        return None;
                    }
                    patience = None; // the last one stays, without looking at the clock; who joins it retires
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

    /// The request, to be run now; or nothing, where the successor could not be started: then it is refused, and
    /// this thread goes on waiting.
    fn leave_seat_with(&mut self, request: Request) -> Option<Request> {
        self.stop_waiting();
        if !self.crew.needs_successor() {
            return Some(request);
        }
        match self.crew.hire() {
            Ok(()) => Some(request),
            Err(why) => {
                self.start_waiting();
                Rejected::new(request, why).refuse();
                None
            }
        }
    }

    /// Whether this thread is to wait again; not, if enough others do.
    fn wait_again(&mut self) -> bool {
        self.start_waiting();
        if self.crew.settings.size.is_none() && self.crew.waiting.load(SeqCst) > self.crew.settings.spare {
            return !self.retire_unless_last();
        }
        true
    }

    fn retire_unless_last(&mut self) -> bool {
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
        if !self.quiet || core.control.stopping() {
            core.control.wake_supervisor();
        }
    }
}

/// A thread that has just given its permit back gets this long to come for the next request.
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

/// Gives requests to threads that are kept for a while: for [`handle_request`](crate::TcpServer::handle_request), and
/// for servers that refuse at their limit.
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
    /// To a thread that waits, or to a new one.
    pub(crate) fn give(&self, settings: &ThreadSettings, request: Request) -> std::result::Result<(), Rejected> {
        let request = match self.to.try_send(request) {
            Ok(()) => return Ok(()),
            Err(TrySendError::Full(request) | TrySendError::Disconnected(request)) => request,
        };
        if settings.size.is_some_and(|size| self.threads.load(SeqCst) >= size) {
            let given = self.to.send_timeout(request, ABOUT_TO_WAIT);
            return given.map_err(|e| Rejected::new(e.into_inner(), io::Error::other("all threads are busy")));
        }
        let place = Place::new(&self.threads);
        let (keep_alive, more) = (settings.keep_alive, self.from.clone());
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
