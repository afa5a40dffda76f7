//! `verify_request`: the hook runs on a helper thread, and the server waits for its verdict within a limit.
//!
//! A thread cannot be made to return. On the connection's own thread, a name server that does not answer
//! would hold threads and permits until it does. With a helper, a permit is held for `verify_timeout` at
//! most, with every strategy, and an event loop is not held up at all. The price is a thread switch for each
//! connection.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::contain;
use crate::lifecycle::{Core, Incoming, ServerHandle, WakeAtCut};
use crate::net::Arrival;
use crate::offload::Ticket;
use crate::sys::{self, EventFd};

/// The hook's answer.
pub(crate) enum Verdict {
    Accepted,
    Refused,
    /// The hook panicked, with this text.
    Panicked(String),
}

impl Verdict {
    /// Returns the reason of a refusal as an error.
    pub(crate) fn check(self) -> io::Result<()> {
        match self {
            Self::Accepted => Ok(()),
            Self::Refused => Err(io::Error::new(io::ErrorKind::PermissionDenied, "verify_request said no")),
            Self::Panicked(text) => Err(io::Error::other(format!("verify_request panicked: {text}"))),
        }
    }
}

/// Makes the error for a hook that has not answered in time.
pub(crate) fn late(core: &Core) -> io::Error {
    let limit = core.settings.verify_timeout;
    io::Error::new(io::ErrorKind::TimedOut, format!("verify_request took longer than {limit:?}"))
}

/// Makes the error for a drain that was over before the hook has answered.
pub(crate) fn server_stops() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the server stops, and verify_request has not answered")
}

/// Asks the hook on a helper thread, which calls `answer` with the verdict.
pub(crate) fn ask(
    core: &Arc<Core>,
    arrived: &impl Arrival,
    answer: impl FnOnce(Verdict) + Send + 'static,
) -> io::Result<Ticket> {
    // A copy, not the connection: the hook may outlive it.
    let incoming = Incoming {
        peer: arrived.peer().clone(),
        local: arrived.local_addr(),
        credentials: arrived.peer_credentials(),
        proxy: arrived.proxy_header().cloned(),
        server: ServerHandle { core: core.clone() },
    };
    core.verifying.give(move || answer(verdict_of(&incoming)))
}

fn verdict_of(incoming: &Incoming) -> Verdict {
    let core = &incoming.server.core;
    let Some(hook) = &core.hooks.verify_request else { return Verdict::Accepted };
    match contain(core, || hook(incoming)) {
        Ok(true) => Verdict::Accepted,
        Ok(false) => Verdict::Refused,
        Err(text) => {
            // In a forked child, the parent counts and logs.
            if !core.control.in_child() {
                core.monitor.report_hook_panic("verify_request", &text);
            }
            Verdict::Panicked(text)
        }
    }
}

/// Asks the hook, if there is one, and waits for its verdict. An error says why the connection is refused.
///
/// `watches` is true if this thread must see a stop itself. Other threads are woken when the drain is over.
pub(crate) fn verify(core: &Arc<Core>, arrived: &impl Arrival, watches: bool) -> io::Result<()> {
    if core.hooks.verify_request.is_none() {
        return Ok(());
    }
    let until = Instant::now() + core.settings.verify_timeout;
    // Only a watching thread needs a descriptor: it waits for the verdict and for the stop in one `ppoll`.
    let wakeup = if watches { Some(EventFd::new()?) } else { None };
    let answer = Arc::new(VerdictWait { verdict: Mutex::new(None), told: Condvar::new(), wakeup });
    let theirs = answer.clone();
    // Without a helper nobody can be asked, so the connection is refused.
    let ticket = ask(core, arrived, move |verdict| theirs.give(verdict))?;
    let verdict = if watches { answer.watch(core, until)? } else { answer.wait(core, until) };
    match verdict {
        Some(verdict) => verdict.check(),
        None => {
            // A hook that has not begun need not begin. One that runs goes on, and its answer is dropped.
            core.verifying.forget(ticket);
            Err(if Instant::now() < until { server_stops() } else { late(core) })
        }
    }
}

/// One thread's wait for its verdict.
struct VerdictWait {
    verdict: Mutex<Option<Verdict>>,
    told: Condvar,
    wakeup: Option<EventFd>,
}

impl WakeAtCut for VerdictWait {
    fn wake(&self) {
        // Once this lock was free, a thread that has not seen the cut is in its wait, and is woken.
        drop(self.verdict.lock());
        self.told.notify_one();
    }
}

impl VerdictWait {
    fn give(&self, verdict: Verdict) {
        *self.verdict.lock() = Some(verdict);
        self.told.notify_one();
        self.wakeup.iter().for_each(EventFd::set);
    }

    /// Waits for the verdict. `None` after the time, or once the server has cut its connections.
    fn wait(self: &Arc<Self>, core: &Core, until: Instant) -> Option<Verdict> {
        let _entered = core.waiting.enter(self.clone());
        let mut verdict = self.verdict.lock();
        while verdict.is_none() && !core.control.is_cut() {
            if self.told.wait_until(&mut verdict, until).timed_out() {
                break;
            }
        }
        verdict.take()
    }

    /// Waits as [`wait`](Self::wait) does, and watches the stop and its limit too.
    fn watch(&self, core: &Core, until: Instant) -> io::Result<Option<Verdict>> {
        let control = &core.control;
        loop {
            if let Some(verdict) = self.verdict.lock().take() {
                return Ok(Some(verdict));
            }
            let by = core.drain_deadline().map_or(until, |drain| drain.min(until));
            let left = by.saturating_duration_since(Instant::now());
            if left == Duration::ZERO {
                return Ok(None);
            }
            let stop = if control.stopping() { control.urgent() } else { Some(control.stop_fd()) };
            sys::poll([self.wakeup.as_ref().map(AsFd::as_fd), stop], None, Some(left))?;
        }
    }
}
