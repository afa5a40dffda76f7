//! The concurrent parts under a scheduler that tries thousands of schedules: shuttle, under `--cfg shuttle` only.
//!
//! The code is the real one, from [`TcpServer`] down to the permits. Its locks, atomics, threads and time are the
//! model's ([`crate::sync::model`]), and so are the waits in the kernel and what wakes them ([`crate::sys::model`]). Sockets are
//! real.
//!
//! ```text
//! RUSTFLAGS="--cfg shuttle" cargo test --lib --target-dir target/shuttle model::
//! ```
//! A deadlock, a panic or a failed assertion prints the schedule. `SCHEDULE=… cargo test … model::NAME` (the printed
//! lines joined to one) plays it again, with `SHUTTLE_CAPTURE_BACKTRACE=1` to see where each thread of a deadlock stands.
//! `SCHEDULES` is the number of schedules for each scenario (10,000), `SOAK=1` makes it 200,000.

mod lifecycle;
mod mailbox;
mod parking;
mod permits;
mod serving;
mod stopping;

use std::os::fd::{AsRawFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::Arc;
use std::time::Duration;

use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::Runner;

use crate::server::{Engine, TcpServer};
use crate::sync::thread::{spawn, yield_now, JoinHandle};
use crate::sync::{Condvar, Mutex};
use crate::{Connection, Failure, HandlerResult, Report, ServerBuilder, ServerHandle, StreamRequestHandler};

/// Longer than any schedule.
const FOR_EVER: Duration = Duration::from_secs(1 << 31);

/// Tries the scenario under random schedules, and under a hundredth as many that interrupt hardly ever, and then for
/// long.
pub(crate) fn check(scenario: impl Fn() + Send + Sync + 'static) {
    if let Ok(schedule) = std::env::var("SCHEDULE") {
        return shuttle::replay(scenario, &schedule);
    }
    let soak = std::env::var("SOAK").is_ok_and(|on| on == "1");
    let default = if soak { 200_000 } else { 10_000 };
    let schedules = std::env::var("SCHEDULES").ok().and_then(|n| n.parse().ok()).unwrap_or(default);
    let scenario = Arc::new(scenario);
    let again = scenario.clone();
    Runner::new(RandomScheduler::new(schedules), config()).run(move || scenario());
    Runner::new(PctScheduler::new(3, schedules / 100 + 1), config()).run(move || again());
}

fn config() -> shuttle::Config {
    let mut config = shuttle::Config::new();
    config.stack_size = 1 << 18; // whole handlers run on it
    config
}

/// What the handler has seen.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    counts: Mutex<Counts>,
    changed: Condvar,
}

#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Counts {
    pub(crate) active: usize,
    most: usize,
    ended: usize,
    refused: usize,
    released: bool,
}

impl Tally {
    fn change(&self, change: impl FnOnce(&mut Counts)) {
        change(&mut self.counts.lock());
        self.changed.notify_all();
    }

    /// Waits without a limit, so that a wait for nothing is a deadlock, which shuttle finds.
    pub(crate) fn until(&self, done: impl Fn(&Counts) -> bool) {
        let mut counts = self.counts.lock();
        while !done(&counts) {
            self.changed.wait(&mut counts);
        }
    }

    pub(crate) fn release(&self) {
        self.change(|counts| counts.released = true);
    }

    fn counts(&self) -> Counts {
        *self.counts.lock()
    }
}

/// How long a handler stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stay {
    /// It returns at once.
    Short,
    /// Until the tally releases it.
    UntilReleased,
    /// Until no further request comes.
    NextRequest,
}

#[derive(Debug)]
pub(crate) struct Visit(pub(crate) Arc<Tally>, pub(crate) Stay);

impl StreamRequestHandler for Visit {
    fn handle(&self, conn: &mut Connection) -> HandlerResult {
        let Self(tally, stay) = self;
        tally.change(|counts| {
            counts.active += 1;
            counts.most = counts.most.max(counts.active);
        });
        match stay {
            Stay::Short => yield_now(),
            Stay::UntilReleased => tally.until(|counts| counts.released),
            Stay::NextRequest => assert!(!conn.next_request()?),
        }
        tally.change(|counts| {
            counts.active -= 1;
            counts.ended += 1;
        });
        Ok(())
    }
}

/// A server, and the threads outside that know of it.
struct Scene<S> {
    server: TcpServer<Visit, S>,
    door: Door,
    tally: Arc<Tally>,
    handle: ServerHandle,
}

/// A name of the abstract namespace, which nobody has had.
fn new_name() -> (String, SocketAddr) {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let name = format!("socketserver-model-{}-{}", std::process::id(), NEXT.fetch_add(1, SeqCst));
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    (name, address)
}

/// Where clients come in.
#[derive(Debug, Clone)]
pub(crate) struct Door(SocketAddr, RawFd);

impl Door {
    /// A door, and the socket behind it.
    pub(crate) fn open() -> (Self, UnixListener) {
        let (_, address) = new_name();
        let listener = UnixListener::bind_addr(&address).unwrap();
        (Self(address, listener.as_raw_fd()), listener)
    }

    /// A door, and a server that has bound its socket itself.
    pub(crate) fn of<H, S: Engine<H>>(builder: ServerBuilder<S>, handler: H) -> (Self, TcpServer<H, S>) {
        let (name, address) = new_name();
        let server = builder.bind(format!("unix:@{name}"), handler).unwrap();
        let listener = server.listeners().next().unwrap().as_raw_fd();
        (Self(address, listener), server)
    }

    pub(crate) fn connect(&self) -> UnixStream {
        crate::sys::model::connect(&self.0, self.1)
    }
}

impl<S: Engine<Visit> + Send + 'static> Scene<S> {
    fn new(builder: ServerBuilder<S>, stay: Stay) -> Self {
        let tally = Arc::new(Tally::default());
        let theirs = tally.clone();
        let builder = builder.handle_error(move |failure| {
            if matches!(failure, Failure::Refused { .. }) {
                theirs.change(|counts| counts.refused += 1);
            }
        });
        let (door, server) = Door::of(builder, Visit(tally.clone(), stay));
        let handle = server.handle();
        Self { server, door, tally, handle }
    }

    /// Serves on a thread until the stop, and gives the server back.
    fn start(self) -> Running<S> {
        let Self { mut server, door, tally, handle } = self;
        let serving = spawn(move || {
            let report = server.serve_forever().unwrap();
            (server, report)
        });
        Running { serving, door, tally, handle }
    }
}

struct Running<S> {
    serving: JoinHandle<(TcpServer<Visit, S>, Report)>,
    door: Door,
    tally: Arc<Tally>,
    handle: ServerHandle,
}

impl<S> Running<S> {
    /// That many clients on threads of their own, in any order with everything else.
    fn clients(&self, n: usize) -> Vec<JoinHandle<UnixStream>> {
        let come = |_| {
            let door = self.door.clone();
            spawn(move || door.connect())
        };
        (0..n).map(come).collect()
    }

    /// Joins the serving thread, which must have been told to stop: nothing of the run may be left.
    fn join(self) -> (Scene<S>, Report) {
        let Self { serving, door, tally, handle } = self;
        let (server, report) = serving.join().unwrap();
        let stats = handle.stats();
        if report.abandoned == 0 {
            assert_eq!(stats.active, 0);
            assert_eq!(stats.accepted, stats.served + stats.failed + stats.disconnected + stats.refused);
        }
        if handle.core.settings.drain_timeout == FOR_EVER {
            assert_eq!((report.abandoned, handle.core.run.workers.load(SeqCst)), (0, 0), "nobody is left");
        }
        (Scene { server, door, tally, handle }, report)
    }
}

/// All of these threads.
pub(crate) fn join_all<T>(threads: Vec<JoinHandle<T>>) -> Vec<T> {
    threads.into_iter().map(|thread| thread.join().unwrap()).collect()
}
