//! [`Offload`]: threads for work that may wait. They are few, started on demand, and kept for a while.

use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard};

/// How long a thread waits for work before it ends.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// A piece of work. It must not panic.
type Job = Box<dyn FnOnce() + Send>;

/// The number of a piece of work, with which it can be [forgotten](Offload::forget). No number is used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Ticket(u64);

/// Threads for one kind of work. Threads without work end with this value. A thread whose job hangs ends when
/// the job returns.
pub(crate) struct Offload(Arc<Shared>);

struct Shared {
    /// The name of the threads.
    name: &'static str,
    /// The most threads at once. Jobs that hang cost no more threads than this.
    most: usize,
    state: Mutex<State>,
    work: Condvar,
}

#[derive(Default)]
struct State {
    queue: VecDeque<(Ticket, Job)>,
    next: u64,
    threads: usize,
    /// Threads that wait for work. A thread that was woken counts until it has taken its job.
    idle: usize,
    closed: bool,
}

impl Offload {
    pub(crate) fn new(name: &'static str, most: usize) -> Self {
        Self(Arc::new(Shared { name, most, state: Mutex::default(), work: Condvar::new() }))
    }

    /// Gives the job to an idle thread, to a new thread, or, at the limit, to the next thread that is free.
    /// The queue has no bound: the caller knows best what to do with work that does not fit.
    ///
    /// An error means that there is no thread and none could be started. The job has been dropped.
    pub(crate) fn give(&self, job: impl FnOnce() + Send + 'static) -> io::Result<Ticket> {
        let mut state = self.0.state.lock();
        let ticket = Ticket(state.next);
        state.next += 1;
        state.queue.push_back((ticket, Box::new(job)));
        // Each job in the queue has an idle thread, and so has this one.
        if state.queue.len() <= state.idle {
            self.0.work.notify_one();
            return Ok(ticket);
        }
        if state.threads >= self.0.most {
            return Ok(ticket);
        }
        state.threads += 1;
        drop(state);
        let shared = self.0.clone();
        let Err(e) = thread::Builder::new().name(self.0.name.to_owned()).spawn(move || shared.work()) else {
            return Ok(ticket);
        };
        let mut state = self.0.state.lock();
        state.threads -= 1;
        if state.threads > 0 {
            // Another thread takes the job when it is free.
            return Ok(ticket);
        }
        let job = state.take(ticket);
        drop(state);
        job.map_or(Ok(ticket), |_never_run| Err(e))
    }

    /// Drops the job if it has not begun. A job that runs is not interrupted.
    pub(crate) fn forget(&self, ticket: Ticket) {
        let job = self.0.state.lock().take(ticket);
        // Dropped without the lock: the job may hold the last reference to the server, whose end takes this
        // lock.
        drop(job);
    }

    /// The same for many tickets at once.
    pub(crate) fn forget_all(&self, tickets: impl Iterator<Item = Ticket>) {
        let tickets: HashSet<Ticket> = tickets.collect();
        if tickets.is_empty() {
            return;
        }
        let mut state = self.0.state.lock();
        let (gone, kept): (VecDeque<_>, _) =
            std::mem::take(&mut state.queue).into_iter().partition(|(ticket, _)| tickets.contains(ticket));
        state.queue = kept;
        drop(state);
        drop(gone);
    }
}

impl State {
    fn take(&mut self, ticket: Ticket) -> Option<Job> {
        // Usually the first one.
        let index = self.queue.iter().position(|(other, _)| *other == ticket)?;
        self.queue.remove(index).map(|(_, job)| job)
    }
}

impl Shared {
    fn work(&self) {
        let mut state = self.state.lock();
        loop {
            if let Some((_, job)) = state.queue.pop_front() {
                // The job may hold the last reference to the server, whose end takes this lock.
                MutexGuard::unlocked(&mut state, job);
                continue;
            }
            if state.closed {
                break;
            }
            state.idle += 1;
            let waited = self.work.wait_for(&mut state, KEEP_ALIVE);
            state.idle -= 1;
            if waited.timed_out() && state.queue.is_empty() {
                break;
            }
        }
        state.threads -= 1;
    }
}

impl Drop for Offload {
    /// Drops the jobs that have not begun, and ends the idle threads.
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.closed = true;
        let never = std::mem::take(&mut state.queue);
        drop(state);
        self.0.work.notify_all();
        drop(never);
    }
}

impl fmt::Debug for Offload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Offload").field("threads", &self.0.state.lock().threads).finish_non_exhaustive()
    }
}
