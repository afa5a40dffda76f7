//! The threads on which `verify_request` runs: few, started on demand, kept for a while.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::verify::Job;

/// So many hooks run at once; what hangs costs no more threads than this.
pub(super) const MOST: usize = 64;
/// How long one waits for work before it ends.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// A server's helpers. Those who wait end with it; one whose hook hangs, when that returns.
#[derive(Default)]
pub(crate) struct Helpers(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    work: Condvar,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Arc<Job>>,
    threads: usize,
    /// Threads that wait for work, those included that have been called and have not come yet.
    idle: usize,
    closed: bool,
}

impl Helpers {
    /// Has the job run: by a helper that waits, by a new one, or, where there are enough, by the next that is free.
    pub(super) fn give(&self, job: &Arc<Job>) -> io::Result<()> {
        let mut state = self.0.state.lock();
        state.queue.push_back(job.clone());
        if state.queue.len() <= state.idle {
            self.0.work.notify_one();
            return Ok(());
        }
        if state.threads >= MOST {
            return Ok(());
        }
        state.threads += 1;
        drop(state);
        let shared = self.0.clone();
        let Err(e) = thread::Builder::new().name("verify".to_owned()).spawn(move || shared.work()) else {
            return Ok(());
        };
        let mut state = self.0.state.lock();
        state.threads -= 1;
        if state.threads > 0 {
            return Ok(()); // another one comes to it
        }
        state.queue.retain(|other| !Arc::ptr_eq(other, job));
        Err(e)
    }

    /// Nobody waits for this verdict any more: a job that has not begun is not begun.
    pub(crate) fn forget(&self, job: &Arc<Job>) {
        let mut state = self.0.state.lock();
        let place = state.queue.iter().position(|other| Arc::ptr_eq(other, job)); // as a rule the first
        drop(place.and_then(|place| state.queue.remove(place)));
    }
}

impl Shared {
    fn work(&self) {
        let mut state = self.state.lock();
        loop {
            if let Some(job) = state.queue.pop_front() {
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

impl Drop for Helpers {
    fn drop(&mut self) {
        self.0.state.lock().closed = true;
        self.0.work.notify_all();
    }
}

impl fmt::Debug for Helpers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Helpers").field("threads", &self.0.state.lock().threads).finish_non_exhaustive()
    }
}
