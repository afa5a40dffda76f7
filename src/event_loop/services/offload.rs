//! Work that may block, on threads beside the loop. Its result comes back to the loop.
//!
//! All loops of a server share the threads, because a pool is a bound. With `Blocking` there is a loop for each
//! connection, which ends while its work may still hang. With a pool for each, clients that come and go could start
//! any number of threads.

use std::sync::Arc;
use std::{fmt, io};

use parking_lot::Mutex;

use crate::event_loop::state::context::Context;
use crate::event_loop::state::work::Deferred;
use crate::event_loop::state::State;
use crate::panics::caught;

/// Why [`Context::blocking`] has no result.
#[derive(Debug)]
#[non_exhaustive]
pub enum BlockingError {
    /// The work panicked, with this text.
    Panicked(String),
    /// The system gave no thread for it, and none was running. The work was not done.
    NoThread(io::Error),
}

impl fmt::Display for BlockingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Panicked(text) => write!(f, "panicked: {text}"),
            Self::NoThread(e) => {
                write!(f, "cannot start a thread: {e}; the limit on threads (RLIMIT_NPROC, pids.max) is too low")
            }
        }
    }
}

impl std::error::Error for BlockingError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Panicked(_) => None,
            Self::NoThread(e) => Some(e),
        }
    }
}

impl Context<'_> {
    /// Runs `work` on a thread of a small pool, and then calls `done` on the loop with the result. Use it for work
    /// that would hold up the loop: a file, a database, a long computation (Twisted's `deferToThread`, asyncio's
    /// `run_in_executor`).
    ///
    /// ```
    /// use socketserver::Reactor;
    ///
    /// let mut reactor = Reactor::new()?;
    /// reactor.context().blocking(|| (1..=20u64).product::<u64>(), |cx, product| {
    ///     assert_eq!(product.unwrap(), 2_432_902_008_176_640_000);
    ///     cx.stop();
    /// });
    /// reactor.run()?;
    /// # Ok::<(), socketserver::Error>(())
    /// ```
    ///
    /// All loops of a server share up to 10 threads. A thread starts when it is needed, and ends after 10 s without
    /// work. A server that never calls this has none. Pieces of work end in any order. A panic in `work` is contained
    /// and logged; `done` gets it as an error, and also gets the error if there is no thread.
    ///
    /// More work waits in a queue without a bound. To bound it, pause reading until the work is done. Then each
    /// connection has one piece in the queue.
    ///
    /// `done` is called in a later turn, never within this callback. The connection that asked may be gone then: keep
    /// its [`ConnId`](crate::event_loop::ConnId), which then stands for nothing. A drain waits for busy connections,
    /// and not for work. When the reactor is dropped, so are `done` and the work that has not begun; work that runs
    /// is left alone.
    pub fn blocking<R: Send + 'static>(
        &mut self,
        work: impl FnOnce() -> R + Send + 'static,
        done: impl FnOnce(&mut Context<'_>, Result<R, BlockingError>) + 'static,
    ) {
        self.state.blocking(work, done);
    }
}

impl State {
    fn blocking<R: Send + 'static>(
        &mut self,
        work: impl FnOnce() -> R + Send + 'static,
        done: impl FnOnce(&mut Context<'_>, Result<R, BlockingError>) + 'static,
    ) {
        let key = self.offloaded.next;
        self.offloaded.next += 1;
        // `done` stays on the loop, because it need not be `Send`. Only the result crosses threads.
        let result = Arc::new(Mutex::new(None));
        let theirs = result.clone();
        let inbox = self.loops.inbox.clone();
        let run = move || {
            *theirs.lock() = Some(caught(work).map_err(BlockingError::Panicked));
            let _ = inbox.send(Box::new(move |cx| cx.state.finish_work(key))); // fails only if the loop is gone
        };
        match self.core.blocking.give(run) {
            Ok(ticket) => {
                let tell = move |cx: &mut Context<'_>| {
                    let Some(result) = result.lock().take() else { return };
                    if let Err(BlockingError::Panicked(text)) = &result {
                        cx.state.core.monitor.report_panic_of_call("blocking work", text);
                    }
                    done(cx, result);
                };
                self.offloaded.due.insert(key, (Box::new(tell), ticket));
            }
            Err(e) => {
                let tell = move |cx: &mut Context<'_>| done(cx, Err(BlockingError::NoThread(e)));
                self.queues.deferred.push_back(Deferred::Call(Box::new(tell)));
            }
        }
    }

    /// Calls `done` of a piece of work.
    fn finish_work(&mut self, key: u64) {
        if let Some((done, _)) = self.offloaded.due.remove(&key) {
            self.call_free("what blocking work has led to", done);
        }
    }
}

impl State {
    /// Drops the work that has not begun, at the end of the loop.
    pub(crate) fn forget_all_work(&self) {
        self.core.blocking.forget_all(self.offloaded.due.values().map(|(_, ticket)| *ticket));
    }
}
