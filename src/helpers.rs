//! Threads for work that may wait: few, started on demand, kept for a while.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard};

/// How long one waits for work before it ends.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// What a helper does. It must not panic.
pub(crate) trait Job: Send + 'static {
    /// The name of the threads.
    const NAME: &'static str;
    /// So many run at once; those that hang cost no more threads than this.
    const MOST: usize;

    fn run(self);
}

/// Threads for one kind of job. Those who wait for work end with this value; one whose job hangs, when that returns.
pub(crate) struct Helpers<J: Job>(Arc<Shared<J>>);

struct Shared<J> {
    state: Mutex<State<J>>,
    work: Condvar,
}

struct State<J> {
    /// By numbers that are never given again.
    queue: VecDeque<(u64, J)>,
    next: u64,
    threads: usize,
    /// Threads that wait for work, those included that have been called and have not come yet.
    idle: usize,
    closed: bool,
}

impl<J: Job> Helpers<J> {
    /// Has the job run: by a helper that waits, by a new one, or, where there are enough, by the next that is free.
    /// Where there is no thread for it, and will be none, the job comes back.
    pub(crate) fn give(&self, job: J) -> Result<(), (io::Error, J)> {
        let mut state = self.0.state.lock();
        let number = state.next;
        state.next += 1;
        state.queue.push_back((number, job));
        if state.queue.len() <= state.idle {
            self.0.work.notify_one();
            return Ok(());
        }
        if state.threads >= J::MOST {
            return Ok(());
        }
        state.threads += 1;
        drop(state);
        let shared = self.0.clone();
        let Err(e) = thread::Builder::new().name(J::NAME.to_owned()).spawn(move || shared.work()) else {
            return Ok(());
        };
        let mut state = self.0.state.lock();
        state.threads -= 1;
        if state.threads > 0 {
            return Ok(()); // another one comes to it
        }
        state.take(|(other, _)| *other == number).map_or(Ok(()), |job| Err((e, job)))
    }

    /// Nobody waits for these jobs any more: what has not begun does not begin.
    pub(crate) fn forget(&self, is_one: impl Fn(&J) -> bool) {
        let mut state = self.0.state.lock();
        let (gone, kept): (VecDeque<_>, _) =
            std::mem::take(&mut state.queue).into_iter().partition(|(_, job)| is_one(job));
        state.queue = kept;
        drop(state);
        drop(gone); // one may be the last to know the server, whose end takes this lock
    }
}

impl<J> State<J> {
    fn take(&mut self, is_it: impl Fn(&(u64, J)) -> bool) -> Option<J> {
        let place = self.queue.iter().position(is_it)?; // as a rule the first
        self.queue.remove(place).map(|(_, job)| job)
    }
}

impl<J: Job> Shared<J> {
    fn work(&self) {
        let mut state = self.state.lock();
        loop {
            if let Some((_, job)) = state.queue.pop_front() {
                // The job may be the last to know the server, whose end takes this lock.
                MutexGuard::unlocked(&mut state, move || job.run());
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

impl<J: Job> Default for Helpers<J> {
    fn default() -> Self {
        let state = State { queue: VecDeque::new(), next: 0, threads: 0, idle: 0, closed: false };
        Self(Arc::new(Shared { state: Mutex::new(state), work: Condvar::new() }))
    }
}

impl<J: Job> Drop for Helpers<J> {
    /// What has not begun does not begin.
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.closed = true;
        let never = std::mem::take(&mut state.queue);
        drop(state);
        self.0.work.notify_all();
        drop(never);
    }
}

impl<J: Job> fmt::Debug for Helpers<J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Helpers").field("threads", &self.0.state.lock().threads).finish_non_exhaustive()
    }
}
