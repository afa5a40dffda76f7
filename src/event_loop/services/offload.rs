//! Work that may wait, on threads beside the loop; what comes of it is told on the loop.

use std::sync::Arc;
use std::{fmt, io};

use parking_lot::Mutex;

use log::Level;

use crate::event_loop::state::context::Context;
use crate::event_loop::state::work::Deferred;
use crate::event_loop::state::State;
use crate::observe::log_line;
use crate::panics::caught;

/// Why there is no result of [`Context::blocking`].
#[derive(Debug)]
#[non_exhaustive]
pub enum BlockingError {
    /// The work panicked, with this text.
    Panicked(String),
    /// The system gave no thread for it, and none was there: nothing was done.
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
    /// Has `work` done on a thread of a small pool, and then calls `done` on the loop with what it returned: for what
    /// would hold up the loop, as a file, a database or a long computation does (Twisted's `deferToThread`, asyncio's
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
    /// Up to 10 threads are started as they are needed, for all loops of a server together, and end after 10 s without
    /// work; a server that never calls this has none. More work than that waits in a queue, which nothing bounds but the callers: a protocol that pauses
    /// reading until its work is done has one piece in it, so that the connection limit bounds it. Pieces of work end in
    /// any order. A panic in `work` is contained, logged, and told to `done`, as is that no thread can be had.
    ///
    /// `done` is called in a later turn, never within this callback. The connection that has asked may be gone by then:
    /// keep its [`ConnId`](crate::event_loop::ConnId), which stands for nothing in that case. A drain does not wait for work, only
    /// for connections that are not idle. When the reactor is dropped, work that has not begun is dropped, nobody waits
    /// for what runs, and `done` is dropped without a call.
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
        let result = Arc::new(Mutex::new(None));
        let theirs = result.clone();
        let inbox = self.loops.inbox.clone();
        let run = move || {
            *theirs.lock() = Some(caught(work).map_err(panicked));
            let _ = inbox.send(Box::new(move |cx| cx.state.finish_work(key))); // fails where the loop is gone
        };
        match self.core.blocking.give(run) {
            Ok(ticket) => {
                let tell = move |cx: &mut Context<'_>| {
                    let Some(result) = result.lock().take() else { return };
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

    fn finish_work(&mut self, key: u64) {
        if let Some((done, _)) = self.offloaded.due.remove(&key) {
            self.call_free("what blocking work has led to", done);
        }
    }
}

impl State {
    /// The loop is at its end: nobody waits for what it has given away.
    pub(crate) fn forget_all_work(&self) {
        self.offloaded.due.values().for_each(|(_, ticket)| self.core.blocking.forget(*ticket));
    }
}

fn panicked(text: String) -> BlockingError {
    log_line(Level::Error, "socketserver::event_loop", format_args!("blocking work panicked: {}", text.escape_debug()));
    BlockingError::Panicked(text)
}
