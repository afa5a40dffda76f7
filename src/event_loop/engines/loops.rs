//! Several loops as a server's strategy, a thread each.
//!
//! Permits and counters are atomics of the server already. A loop acts on another loop's connection by a call in that
//! loop's inbox, as any thread does. So no connection is ever touched by two threads.

use std::panic::{catch_unwind, AssertUnwindSafe};
use std::rc::Rc;
use std::sync::mpsc::{channel, Receiver, Sender};
use std::sync::Arc;
use std::thread::{self, Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use super::event_loop::OF_A_LOOP;
use crate::error::{Error, Result};
use crate::event_loop::conns::call::take_message;
use crate::event_loop::primitives::clock::Clock;
use crate::event_loop::primitives::loop_group::LoopGroup;
use crate::event_loop::reactor::Reactor;
use crate::event_loop::services::ports::queued_at_stop;
use crate::event_loop::state::factory::{Factory, SharedFactory};
use crate::event_loop::state::settings::EventLoop;
use crate::event_loop::state::{SiblingLoops, State};
use crate::listen::QueuedAtStop;
use crate::observe::InHandler;
use crate::server::{Bound, Engine, Single};

/// The most loops of one server.
const MOST: usize = 512;

/// Serves with several [`EventLoop`]s, each on a thread of its own. It is for protocols that keep more than one
/// processor busy, as Netty and memcached do it.
///
/// A connection stays in the loop that accepted it. So does its protocol, which need not be `Send`. The [`Factory`]
/// serves all loops, and must be `Send` and `Sync`. Each loop calls it on its own thread, and calls `start_factory` and
/// `stop_factory` once.
///
/// ```
/// use std::io::{Read, Write};
/// use socketserver::{factory, EventLoops, Group, HandlerResult};
/// use socketserver::{Protocol, ServerBuilder, Transport};
///
/// /// Tells all, itself included, in whichever loop they are.
/// struct Member(Group);
/// impl Protocol for Member {
///     fn connection_made(&mut self, transport: &mut Transport<'_>) -> HandlerResult {
///         transport.join(self.0);
///         transport.send_line("welcome")
///     }
///     fn data_received(
///         &mut self,
///         transport: &mut Transport<'_>,
///         data: &[u8],
///     ) -> HandlerResult {
///         transport.broadcast(self.0, data, None);
///         Ok(())
///     }
/// }
///
/// let room = Group::new();
/// let mut server = ServerBuilder::new()
///     .strategy(EventLoops::new(2))
///     .bind_tcp("127.0.0.1:0", factory(move |_peer| Member(room)))?;
/// let (addr, handle) = (server.local_addr().socket_addr().unwrap(), server.handle());
/// let serving = std::thread::spawn(move || server.serve_forever());
///
/// let mut clients = Vec::new();
/// for _ in 0..4 {
///     let mut client = std::net::TcpStream::connect(addr)?;
///     client.read_exact(&mut [0; 8])?;                   // it has joined
///     clients.push(client);
/// }
/// clients[0].write_all(b"hello\n")?;
/// for client in &mut clients {
///     let mut text = [0; 6];
///     client.read_exact(&mut text)?;
///     assert_eq!(&text, b"hello\n");
/// }
///
/// handle.shutdown();
/// drop(clients);
/// assert_eq!(serving.join().unwrap()?.served, 4);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// In one loop, connections may share an `Rc<RefCell<…>>`. Here threads would share it, and the compiler refuses:
/// ```compile_fail,E0277
/// # use std::{cell::Cell, rc::Rc};
/// # use socketserver::{factory, EventLoops, HandlerResult, Protocol, ServerBuilder, Transport};
/// # struct Counts(Rc<Cell<u32>>);
/// # impl Protocol for Counts {
/// #     fn data_received(&mut self, _: &mut Transport<'_>, _: &[u8]) -> HandlerResult { Ok(()) }
/// # }
/// let count = Rc::new(Cell::new(0));
/// let counts = factory(move |_peer| Counts(count.clone()));
/// ServerBuilder::new().strategy(EventLoops::new(2)).bind_tcp("127.0.0.1:0", counts)?;
/// # Ok::<(), socketserver::Error>(())
/// ```
///
/// # What the loops share
///
/// - **All loops share** the limit on connections, which is exact; counters, pause, stop, drain and hooks. A
///   [`Group`](crate::Group) has members in all loops. By a [`ConnId`](crate::event_loop::ConnId) every loop reaches
///   every connection ([`Context`](crate::Context) says how). [`stop`](crate::Context::stop) and
///   [`shutdown`](crate::Context::shutdown) end all loops.
/// - **Each loop has** its timers, [`call_later`](crate::Context::call_later), [`post`](crate::Context::post), the
///   [handle](crate::Context::handle) and its calls, [`connections`](crate::Context::connections). A callback that
///   takes long holds up its own loop.
///
/// `serve_forever` runs the first loop on the calling thread, which also calls
/// [`service_actions`](crate::ServerBuilder::service_actions). The other loops have threads named `loop-1` and so on,
/// which have ended when it returns. A loop that fails ends them all, in order, with its error.
/// [`handle_request`](crate::TcpServer::handle_request) takes one loop.
///
/// # Which loop accepts
///
/// All loops wait for the same sockets, and the kernel wakes one of them for a connection (`EPOLLEXCLUSIVE`). It is a
/// loop that has nothing else to do; of several, rather one with fewer connections.
#[derive(Debug, Clone, Copy)]
pub struct EventLoops {
    loops: usize,
    each: EventLoop,
}

impl Default for EventLoops {
    /// A loop for each processor that this process may use.
    fn default() -> Self {
        Self::new(thread::available_parallelism().map_or(1, usize::from))
    }
}

impl EventLoops {
    /// Makes this number of loops, with the defaults of [`EventLoop`]. 0, and more than 512, are errors when the
    /// server is bound.
    pub fn new(loops: usize) -> Self {
        Self { loops, each: EventLoop::new() }
    }

    /// Sets the settings of each loop.
    #[must_use]
    pub fn each(mut self, settings: EventLoop) -> Self {
        self.each = settings;
        self
    }

    fn check(&self) -> Result<()> {
        match self.loops {
            0 => Err(Error::setting("EventLoops::new", "zero loops serve no client; give at least 1")),
            n if n > MOST => Err(Error::setting("EventLoops::new", format!("{n} loops are more than {MOST} at most"))),
            _ => self.each.checked().map(drop),
        }
    }
}

impl<F: Factory + Send + Sync + 'static> Engine<F> for EventLoops {
    fn connection_limits(&self, _factory: &F) -> Result<(usize, usize)> {
        self.check()?;
        let taken = OF_A_LOOP * (self.loops - 1);
        Ok((EventLoop::default_limit().saturating_sub(taken).max(1), usize::MAX))
    }

    fn descriptors(&self, connections: usize) -> usize {
        OF_A_LOOP * self.loops + connections
    }

    fn run(&mut self, bound: &Bound, factory: &Arc<F>) -> Result<u64> {
        let team = LoopGroup::new(self.loops).map_err(Error::system("make the event loops"))?;
        match bound.core.worker() {
            Some(post) => {
                team.start_beating(post.millis());
                post.beat();
            }
            None => team.start_beating(bound.core.control.millis(Instant::now())),
        }
        let queued = queued_at_stop(&bound.core);
        let crew = LoopRun { settings: self.each, bound, factory, team, queued };
        thread::scope(|scope| crew.serve(scope, self.loops)).map(|()| 0)
    }

    /// Serves one connection in one loop, which watches all listeners.
    fn run_once(&mut self, bound: &Bound, factory: &Arc<F>, timeout: Option<Duration>) -> Result<Single> {
        self.each.run_once(bound, factory, timeout)
    }
}

/// What the threads of a run have in common.
struct LoopRun<'a, F> {
    settings: EventLoop,
    bound: &'a Bound,
    factory: &'a Arc<F>,
    team: Arc<SiblingLoops>,
    /// The connections queued at the stop. All loops share the listeners, and so the count.
    queued: Arc<QueuedAtStop>,
}

/// A thread that has made its loop, and waits for the word to run it.
struct LoopThread<'scope> {
    word: Sender<()>,
    thread: ScopedJoinHandle<'scope, Result<()>>,
}

impl<F: Factory + Send + Sync + 'static> LoopRun<'_, F> {
    /// Makes all loops, and then runs them. A lack of descriptors or threads is an error before any loop has begun.
    fn serve<'scope>(&'scope self, scope: &'scope Scope<'scope, '_>, loops: usize) -> Result<()> {
        // The first loop is this thread's, because `serve_forever` blocks here.
        let made = self.make(0);
        let (ready, told) = channel();
        let mut mates: Vec<LoopThread<'_>> = Vec::new();
        let mut all = Ok(());
        for number in 1..loops {
            match self.start(scope, number, ready.clone()) {
                Ok(mate) => mates.push(mate),
                Err(e) => {
                    all = Err(e);
                    break;
                }
            }
        }
        drop(ready);

        // Ends when each thread has answered.
        let all = told.iter().fold(all, Result::and);
        let (words, threads): (Vec<_>, Vec<_>) = mates.into_iter().map(|mate| (mate.word, mate.thread)).unzip();

        // The word to run; or the words are dropped, and the threads end.
        let result = match made.and_then(|reactor| all.map(|()| reactor)) {
            Ok(reactor) => {
                for word in &words {
                    let _ = word.send(()); // the thread waits for it
                }
                self.run(reactor)
            }
            Err(e) => {
                drop(words);
                Err(e)
            }
        };
        threads.into_iter().map(join).fold(result, Result::and)
    }

    /// Starts the thread of a loop.
    fn start<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        number: usize,
        ready: Sender<Result<()>>,
    ) -> Result<LoopThread<'scope>> {
        let (word, words) = channel();
        let body = move || self.work(number, ready, words);
        let spawned = thread::Builder::new().name(format!("loop-{number}")).spawn_scoped(scope, body);
        let thread = spawned.map_err(Error::system("start the thread of an event loop"))?;
        Ok(LoopThread { word, thread })
    }

    /// Makes a loop on its thread, answers, and waits for the word to run it.
    fn work(&self, number: usize, ready: Sender<Result<()>>, words: Receiver<()>) -> Result<()> {
        let (made, answer) = match self.make(number) {
            Ok(reactor) => (Some(reactor), Ok(())),
            Err(e) => (None, Err(e)),
        };
        let _ = ready.send(answer);
        drop(ready);
        match (made, words.recv()) {
            (Some(reactor), Ok(())) => self.run(reactor),
            _ => Ok(()),
        }
    }

    fn make(&self, number: usize) -> Result<Reactor> {
        let (core, settings) = (self.bound.core.clone(), self.settings.checked()?);
        let state = State::in_team(core, settings, Clock::System, (self.team.clone(), number))
            .map_err(Error::system("make an event loop"))?;
        Reactor::of(state)
    }

    /// Runs a loop. If it fails or panics, the server stops, and so all loops end.
    fn run(&self, reactor: Reactor) -> Result<()> {
        let _inside = InHandler::of(self.bound.core.monitor.server);
        let ended = catch_unwind(AssertUnwindSafe(|| self.run_to_the_end(reactor)));
        let result = ended.unwrap_or_else(|payload| {
            let source = std::io::Error::other(take_message(payload));
            Err(Error::System { act: "go on with an event loop, which panicked".into(), source })
        });
        if result.is_err() {
            self.bound.core.control.request_stop();
        }
        result
    }

    fn run_to_the_end(&self, mut reactor: Reactor) -> Result<()> {
        let (listeners, factory) = (self.bound.listeners.clone(), Rc::new(SharedFactory(self.factory.clone())));
        reactor.state.refresh_clock();
        reactor.state.listen_with(listeners, factory, self.queued.clone())?;
        reactor.state.schedule_duties();
        reactor.run_to_the_end()
    }
}

fn join(thread: ScopedJoinHandle<'_, Result<()>>) -> Result<()> {
    thread.join().unwrap_or_else(|payload| {
        let source = std::io::Error::other(take_message(payload));
        Err(Error::System { act: "end the thread of an event loop".into(), source })
    })
}
