//! `verify_request`: asked on a thread of its own, waited for within a limit.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::contain;
use crate::connection::PeerCredentials;
use crate::finish::observe;
use crate::helpers;
use crate::lifecycle::{Core, ServerHandle};
use crate::listen::{Addr, Arrival};
use crate::sys::{self, EventFd};

pub(crate) type Verify = Box<dyn Fn(&Incoming) -> bool + Send + Sync>;

/// A connection, or a datagram, that [`verify_request`](crate::ServerBuilder::verify_request) decides about. It is a description,
/// not the connection itself: that may be gone before the hook returns.
#[derive(Debug, Clone)]
pub struct Incoming {
    peer: Addr,
    local: Addr,
    credentials: Option<PeerCredentials>,
    server: ServerHandle,
}

impl Incoming {
    /// Who has connected, or has sent the datagram.
    pub fn peer_addr(&self) -> &Addr {
        &self.peer
    }

    /// The server's address that the client has connected to; [`Addr::Unnamed`] where the system does not tell it.
    pub fn local_addr(&self) -> &Addr {
        &self.local
    }

    /// The process, user and group that have connected over a Unix socket; `None` over TCP, or where the system does not
    /// tell it.
    pub fn peer_credentials(&self) -> Option<PeerCredentials> {
        self.credentials
    }

    /// The server that was connected to: its counters, its stop.
    pub fn server(&self) -> &ServerHandle {
        &self.server
    }
}

/// What the hook has said.
pub(crate) enum Verdict {
    Accepted,
    Refused,
    /// With the panic's text.
    Panicked(String),
}

impl Verdict {
    /// Why the connection is refused, unless it is to be served.
    pub(crate) fn check(self) -> io::Result<()> {
        match self {
            Self::Accepted => Ok(()),
            Self::Refused => Err(io::Error::new(io::ErrorKind::PermissionDenied, "verify_request said no")),
            Self::Panicked(text) => Err(io::Error::other(format!("verify_request panicked: {text}"))),
        }
    }
}

/// The hook has not answered in time.
pub(crate) fn late(core: &Core) -> io::Error {
    let limit = core.config.verify_timeout;
    io::Error::new(io::ErrorKind::TimedOut, format!("verify_request took longer than {limit:?}"))
}

/// The drain was over before the hook has answered.
pub(crate) fn server_stops() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the server stops, and verify_request has not answered")
}

/// A question to the hook, on its way to a helper or with one.
pub(crate) struct Job {
    incoming: Incoming,
    tell: Box<dyn Fn(Verdict) + Send + Sync>,
}

impl helpers::Job for Arc<Job> {
    const NAME: &'static str = "verify";
    const MOST: usize = 64;

    fn run(self) {
        let core = &self.incoming.server.core;
        let Some(hook) = &core.config.verify_request else { return };
        (self.tell)(match contain(core, || hook(&self.incoming)) {
            Ok(true) => Verdict::Accepted,
            Ok(false) => Verdict::Refused,
            Err(text) => {
                if !core.control.in_child() {
                    observe::hook_panicked(core, "verify_request", &text); // a child tells its parent
                }
                Verdict::Panicked(text)
            }
        });
    }
}

/// Has a helper ask the hook; `tell` gets the verdict, there.
pub(crate) fn ask(
    core: &Arc<Core>,
    arrived: &impl Arrival,
    tell: impl Fn(Verdict) + Send + Sync + 'static,
) -> io::Result<Arc<Job>> {
    let incoming = Incoming {
        peer: arrived.peer().clone(),
        local: arrived.local_addr(),
        credentials: arrived.peer_credentials(),
        server: ServerHandle { core: core.clone() },
    };
    let job = Arc::new(Job { incoming, tell: Box::new(tell) });
    core.helpers.give(job.clone()).map_err(|(e, _)| e)?;
    Ok(job)
}

/// Asks the hook, if there is one, and waits for its verdict: an error says why the connection is refused.
///
/// `watches`: whether this thread must see a stop by itself. The others are woken when the drain is over.
pub(crate) fn verify(core: &Arc<Core>, arrived: &impl Arrival, watches: bool) -> io::Result<()> {
    if core.config.verify_request.is_none() {
        return Ok(());
    }
    let until = Instant::now() + core.config.verify_timeout;
    let bell = if watches { Some(EventFd::new()?) } else { None };
    let answer = Arc::new(Answer { verdict: Mutex::new(None), told: Condvar::new(), bell });
    let theirs = answer.clone();
    let job = ask(core, arrived, move |verdict| theirs.tell(verdict))?;
    let verdict = if watches { answer.watch(core, until)? } else { answer.wait(core, until) };
    match verdict {
        Some(verdict) => verdict.check(),
        None => {
            core.helpers.forget(|other| Arc::ptr_eq(other, &job));
            Err(if Instant::now() < until { server_stops() } else { late(core) })
        }
    }
}

/// Where a thread waits for its verdict.
struct Answer {
    verdict: Mutex<Option<Verdict>>,
    told: Condvar,
    bell: Option<EventFd>,
}

impl Answer {
    fn tell(&self, verdict: Verdict) {
        *self.verdict.lock() = Some(verdict);
        self.told.notify_one();
        self.bell.iter().for_each(EventFd::set);
    }

    /// `None` after the time, or once the server has cut its connections.
    fn wait(self: &Arc<Self>, core: &Core, until: Instant) -> Option<Verdict> {
        let _place = core.waiting.enter(self);
        let mut verdict = self.verdict.lock();
        while verdict.is_none() && !core.control.is_cut() {
            if self.told.wait_until(&mut verdict, until).timed_out() {
                break;
            }
        }
        verdict.take()
    }

    /// As [`wait`](Self::wait), and looks out for the stop and its limit.
    fn watch(&self, core: &Core, until: Instant) -> io::Result<Option<Verdict>> {
        let control = &core.control;
        loop {
            if let Some(verdict) = self.verdict.lock().take() {
                return Ok(Some(verdict));
            }
            let by = control.drain_deadline(core.config.drain_timeout).map_or(until, |drain| drain.min(until));
            let left = by.saturating_duration_since(Instant::now());
            if left == Duration::ZERO {
                return Ok(None);
            }
            let stop = if control.stopping() { control.urgent() } else { Some(control.stop.as_fd()) };
            sys::poll([self.bell.as_ref().map(AsFd::as_fd), stop], None, Some(left))?;
        }
    }
}

/// The threads that wait for a verdict, to be woken when the drain is over.
#[derive(Default)]
pub(crate) struct Waiting(Mutex<Vec<Arc<Answer>>>);

/// One of them, for as long as it waits.
struct Place<'a>(&'a Waiting, &'a Arc<Answer>);

impl Waiting {
    fn enter<'a>(&'a self, answer: &'a Arc<Answer>) -> Place<'a> {
        self.0.lock().push(answer.clone());
        Place(self, answer)
    }

    /// To be called after the cut.
    pub(crate) fn wake_all(&self) {
        for answer in &*self.0.lock() {
            drop(answer.verdict.lock()); // whoever has seen no cut waits by now
            answer.told.notify_one();
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0 .0.lock().retain(|other| !Arc::ptr_eq(other, self.1));
    }
}

impl std::fmt::Debug for Waiting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Waiting").field(&self.0.lock().len()).finish()
    }
}
