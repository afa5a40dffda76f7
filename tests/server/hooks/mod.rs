//! The hooks of `BaseServer` on every strategy that runs in this process (`tests/fork_programs.rs` has Forking):
//! when they are called, on which thread, and that nothing they do ends or stops the server.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle, ThreadId};
use std::time::{Duration, Instant};

use crate::support::{comes_true, until, AT_ONCE, LIMIT};
use socketserver::event_loop::FramedTransport;
use socketserver::selectors::{Events, Selector};
use socketserver::server::Engine;
use socketserver::{
    factory, lines, Connection, Error, EventLoop, Failure, HandlerResult, LineReceiver, Report, Sequential,
    ServerBuilder, ServerHandle, StreamRequestHandler, TcpServer, ThreadPool, Threading,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Strategy {
    Sequential,
    Threading,
    ThreadPool,
    EventLoop,
}

use Strategy::{EventLoop as Loop, Sequential as Seq, ThreadPool as Pool, Threading as Thr};

const ALL: [Strategy; 4] = [Seq, Thr, Pool, Loop];

/// What a handler does with a line, besides answering it.
type Does = Arc<dyn Fn(&str, &ServerHandle) + Send + Sync>;

/// Answers one line.
struct Echo(Does);

impl StreamRequestHandler for Echo {
    fn handle(&self, conn: &mut Connection) -> HandlerResult {
        let Some(line) = conn.next_line()? else { return Ok(()) };
        let line = line.to_owned();
        (self.0)(&line, conn.server());
        Ok(writeln!(conn, "served {line}")?)
    }
}

struct EchoProtocol(Does);

impl LineReceiver for EchoProtocol {
    fn line_received(&mut self, transport: &mut FramedTransport<'_>, line: &[u8]) -> HandlerResult {
        let line = String::from_utf8_lossy(line).into_owned();
        (self.0)(&line, &transport.server());
        transport.send_line(format!("served {line}"))?;
        transport.close();
        Ok(())
    }
}

/// What can be done with a server whatever its strategy.
trait Any: Send {
    fn addr(&self) -> SocketAddr;
    fn handle(&self) -> ServerHandle;
    fn serve(&mut self) -> Result<Report, Error>;
    fn handle_request(&mut self, timeout: Option<Duration>) -> Result<bool, Error>;
    fn watch(&self, selector: &mut Selector<()>);
}

impl<H: Send + Sync, S: Engine<H> + Send> Any for TcpServer<H, S> {
    fn addr(&self) -> SocketAddr {
        self.local_addr().socket_addr().unwrap()
    }
    fn handle(&self) -> ServerHandle {
        TcpServer::handle(self)
    }
    fn serve(&mut self) -> Result<Report, Error> {
        self.serve_forever()
    }
    fn handle_request(&mut self, timeout: Option<Duration>) -> Result<bool, Error> {
        TcpServer::handle_request(self, timeout)
    }
    fn watch(&self, selector: &mut Selector<()>) {
        for listener in self.listeners() {
            selector.register(&listener, Events::READ, ()).unwrap();
        }
    }
}

fn bind_doing(strategy: Strategy, builder: ServerBuilder, does: Does) -> Result<Box<dyn Any>, Error> {
    let (at, echo) = ("127.0.0.1:0", Echo(does.clone()));
    Ok(match strategy {
        Seq => Box::new(builder.strategy(Sequential).bind(at, echo)?),
        Thr => Box::new(builder.strategy(Threading::new()).bind(at, echo)?),
        Pool => Box::new(builder.strategy(ThreadPool::new(8)).bind(at, echo)?),
        Loop => {
            let protocols = factory(move |_peer| lines(EchoProtocol(does.clone())));
            Box::new(builder.strategy(EventLoop::new()).bind(at, protocols)?)
        }
    })
}

fn bind(strategy: Strategy, builder: ServerBuilder) -> Box<dyn Any> {
    bind_doing(strategy, builder, Arc::new(|_, _| {})).unwrap()
}

/// A server that serves on a thread of its own.
struct Running {
    addr: SocketAddr,
    handle: ServerHandle,
    serving: JoinHandle<Result<Report, Error>>,
}

impl Running {
    fn start(mut server: Box<dyn Any>) -> Self {
        let (addr, handle) = (server.addr(), server.handle());
        Self { addr, handle, serving: thread::spawn(move || server.serve()) }
    }

    fn thread(&self) -> ThreadId {
        self.serving.thread().id()
    }

    #[track_caller]
    fn stop(self) -> Report {
        self.handle.shutdown();
        self.ended()
    }

    #[track_caller]
    fn ended(self) -> Report {
        until("the server's end", || self.serving.is_finished());
        self.serving.join().unwrap().unwrap()
    }
}

/// A client that has sent its line.
struct Client(BufReader<TcpStream>);

impl Client {
    fn send(addr: SocketAddr, line: &str) -> Self {
        let mut stream = TcpStream::connect(addr).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let _ = stream.write_all(format!("{line}\n").as_bytes()); // it may be refused already
        Self(BufReader::new(stream))
    }

    /// Nothing where it was refused: by the end of the stream or, since it has sent something, by a reset.
    fn answer(mut self) -> String {
        let mut answer = String::new();
        match self.0.read_line(&mut answer) {
            Err(e) if e.kind() != io::ErrorKind::ConnectionReset => panic!("{e}"),
            _ => answer.trim_end().to_owned(),
        }
    }
}

fn ask(addr: SocketAddr, line: &str) -> String {
    Client::send(addr, line).answer()
}

/// Where hooks hang until the test opens it.
#[derive(Default)]
struct Door {
    open: Mutex<bool>,
    opened: Condvar,
    inside: AtomicUsize,
    entered: AtomicUsize,
}

impl Door {
    fn pass(&self) {
        self.entered.fetch_add(1, SeqCst);
        self.inside.fetch_add(1, SeqCst);
        let mut open = self.open.lock().unwrap();
        while !*open {
            open = self.opened.wait(open).unwrap();
        }
        self.inside.fetch_sub(1, SeqCst);
    }

    fn open(&self) {
        *self.open.lock().unwrap() = true;
        self.opened.notify_all();
    }
}

/// A builder whose `verify_request` hangs at the door the first so many times, and says yes.
fn hanging(times: usize) -> (ServerBuilder, Arc<Door>) {
    let (door, left) = (Arc::new(Door::default()), AtomicUsize::new(times));
    let theirs = door.clone();
    let builder = ServerBuilder::new().verify_request(move |_| {
        if left.fetch_update(SeqCst, SeqCst, |n| n.checked_sub(1)).is_ok() {
            theirs.pass();
        }
        true
    });
    (builder, door)
}

/// What the error hook has been told.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<String>>>);

impl Told {
    fn hook(&self) -> impl Fn(&Failure<'_>) + Send + Sync + 'static {
        let told = self.clone();
        move |failure| told.0.lock().unwrap().push(format!("{failure:?}"))
    }

    /// How many of them contain all of this.
    fn count(&self, parts: &[&str]) -> usize {
        let told = self.0.lock().unwrap();
        told.iter().filter(|text| parts.iter().all(|part| text.contains(part))).count()
    }
}

fn count_one(counter: &AtomicUsize) {
    counter.fetch_add(1, SeqCst);
}

// ---- verify_request ----

#[test]
fn verify_request_says_who_is_served() {
    for strategy in ALL {
        let (told, seen) = (Told::default(), Arc::new(Mutex::new(Vec::new())));
        let (log, turn) = (seen.clone(), AtomicUsize::new(0));
        let builder = ServerBuilder::new().handle_error(told.hook()).verify_request(move |incoming| {
            log.lock().unwrap().push((incoming.clone(), thread::current().id()));
            turn.fetch_add(1, SeqCst) % 2 == 1
        });
        let served = Arc::new(AtomicUsize::new(0));
        let count = served.clone();
        let does: Does = Arc::new(move |_, _| count_one(&count));
        let server = Running::start(bind_doing(strategy, builder, does).unwrap());
        for round in 1..=3 {
            let client = Client::send(server.addr, "no");
            let peer = client.0.get_ref().local_addr().unwrap();
            assert_eq!(client.answer(), "", "{strategy:?}");
            let (incoming, thread) = seen.lock().unwrap().last().cloned().unwrap();
            assert_eq!(incoming.peer_addr().socket_addr(), Some(peer), "{strategy:?}");
            assert_eq!(incoming.local_addr().socket_addr(), Some(server.addr), "{strategy:?}");
            assert_ne!(thread, server.thread(), "{strategy:?}: it may be slow");
            assert_eq!(ask(server.addr, "yes"), "served yes", "{strategy:?}");
            assert_eq!(served.load(SeqCst), round, "{strategy:?}: no handler for who is refused");
        }
        let report = server.stop();
        assert_eq!((report.accepted, report.served, report.refused), (6, 3, 3), "{strategy:?}");
        assert_eq!(told.count(&["Refused", "PermissionDenied", "verify_request"]), 3, "{strategy:?}: {:?}", told.0);
    }
}

#[test]
fn a15_a_hook_that_hangs_costs_its_own_connection_only() {
    for strategy in ALL {
        let told = Told::default();
        let hung = if strategy == Seq { 1 } else { 3 };
        let (builder, door) = hanging(hung);
        let builder = builder.verify_timeout(Duration::from_millis(200)).handle_error(told.hook());
        let server = Running::start(bind(strategy, builder));
        let clients: Vec<Client> = (0..hung).map(|_| Client::send(server.addr, "hung")).collect();
        until("the hooks hang", || door.inside.load(SeqCst) == hung);
        for _ in 0..5 {
            assert_eq!(ask(server.addr, "other"), "served other", "{strategy:?}");
        }
        for client in clients {
            assert_eq!(client.answer(), "", "{strategy:?}");
        }
        until("their places are free", || server.handle.stats().active == 0);
        assert_eq!(door.inside.load(SeqCst), hung, "{strategy:?}: and the hooks hang on");
        door.open();
        until("the hooks return", || door.inside.load(SeqCst) == 0);
        assert_eq!(ask(server.addr, "later"), "served later", "{strategy:?}");
        let report = server.stop();
        assert_eq!((report.served, report.refused), (6, hung as u64), "{strategy:?}: a late yes is none");
        assert_eq!(told.count(&["Refused", "TimedOut", "200ms"]), hung, "{strategy:?}: {:?}", told.0);
    }
}

#[test]
fn a15_more_hung_hooks_than_threads_refuse_and_recover() {
    for strategy in [Thr, Loop] {
        let (builder, door) = hanging(usize::MAX);
        let server = Running::start(bind(strategy, builder.verify_timeout(Duration::from_millis(200))));
        let clients: Vec<Client> = (0..80).map(|_| Client::send(server.addr, "hung")).collect();
        for client in clients {
            assert_eq!(client.answer(), "", "{strategy:?}");
        }
        until("all are refused", || server.handle.stats().refused == 80);
        assert_eq!(door.inside.load(SeqCst), 64, "{strategy:?}: so many at once, and no more");
        assert_eq!(ask(server.addr, "nobody to ask"), "", "{strategy:?}");
        door.open();
        until("the hooks return", || door.inside.load(SeqCst) == 0);
        assert_eq!(ask(server.addr, "again"), "served again", "{strategy:?}");
        assert_eq!(door.entered.load(SeqCst), 65, "{strategy:?}: nobody is asked about who is gone");
        let report = server.stop();
        assert_eq!((report.accepted, report.served, report.refused), (82, 1, 81), "{strategy:?}");
    }
}

#[test]
fn a15_a_panic_in_verify_request_refuses_that_one() {
    for strategy in ALL {
        let (told, calls) = (Told::default(), AtomicUsize::new(0));
        let builder = ServerBuilder::new().handle_error(told.hook()).verify_request(move |_| {
            assert!(calls.fetch_add(1, SeqCst) != 1, "no such name");
            true
        });
        let server = Running::start(bind(strategy, builder));
        let answers: Vec<String> = (0..3).map(|_| ask(server.addr, "x")).collect();
        assert_eq!(answers, ["served x", "", "served x"], "{strategy:?}");
        let report = server.stop();
        assert_eq!((report.served, report.refused, report.panicked), (2, 1, 0), "{strategy:?}");
        assert_eq!(told.count(&["Hook", "\"verify_request\"", "no such name"]), 1, "{strategy:?}: {:?}", told.0);
        assert_eq!(told.count(&["Refused", "no such name"]), 1, "{strategy:?}: {:?}", told.0);
    }
}

#[test]
fn a_stop_waits_for_a_verification_within_the_drain_limit() {
    for strategy in ALL {
        let (builder, door) = hanging(1);
        let server = Running::start(bind(strategy, builder.verify_timeout(LIMIT).drain_timeout(LIMIT)));
        let client = Client::send(server.addr, "last");
        until("the hook hangs", || door.inside.load(SeqCst) == 1);
        server.handle.shutdown();
        assert!(!comes_true(Duration::from_millis(50), || server.serving.is_finished()), "{strategy:?}");
        assert_eq!(server.handle.stats().active, 1, "{strategy:?}");
        door.open();
        assert_eq!(client.answer(), "served last", "{strategy:?}");
        assert_eq!(server.ended().served, 1, "{strategy:?}");
    }
}

#[test]
fn a_drain_that_is_over_cuts_verifications() {
    for strategy in ALL {
        for now in [false, true] {
            let (builder, door) = hanging(1);
            let drain = if now { LIMIT } else { Duration::from_millis(100) };
            let server = Running::start(bind(strategy, builder.verify_timeout(LIMIT).drain_timeout(drain)));
            let client = Client::send(server.addr, "cut");
            until("the hook hangs", || door.inside.load(SeqCst) == 1);
            let started = Instant::now();
            if now {
                server.handle.shutdown_now();
            } else {
                server.handle.shutdown();
            }
            let report = server.ended();
            assert!(started.elapsed() < AT_ONCE, "{strategy:?}, now {now}: {:?}", started.elapsed());
            assert_eq!((report.refused, report.abandoned), (1, 0), "{strategy:?}, now {now}");
            assert_eq!(client.answer(), "", "{strategy:?}, now {now}");
            door.open();
        }
    }
}

#[test]
fn a_single_request_is_verified_too() {
    for strategy in ALL {
        let calls = AtomicUsize::new(0);
        let mut server = bind(strategy, ServerBuilder::new().verify_request(move |_| calls.fetch_add(1, SeqCst) == 1));
        let first = Client::send(server.addr(), "x");
        assert!(server.handle_request(None).unwrap(), "{strategy:?}");
        assert_eq!(first.answer(), "", "{strategy:?}");
        let second = Client::send(server.addr(), "x");
        assert!(server.handle_request(None).unwrap(), "{strategy:?}");
        assert_eq!(second.answer(), "served x", "{strategy:?}");
    }
}

#[test]
fn hooks_come_in_python_s_order() {
    struct Ordered(Arc<Mutex<Vec<&'static str>>>);
    impl StreamRequestHandler for Ordered {
        fn setup(&self, _conn: &mut Connection) -> HandlerResult {
            self.0.lock().unwrap().push("setup");
            Ok(())
        }
        fn handle(&self, _conn: &mut Connection) -> HandlerResult {
            self.0.lock().unwrap().push("handle");
            Err("no".into())
        }
        fn finish(&self, _conn: &mut Connection) -> HandlerResult {
            self.0.lock().unwrap().push("finish");
            Ok(())
        }
    }
    let order = Arc::new(Mutex::new(Vec::new()));
    let (verified, failed) = (order.clone(), order.clone());
    let mut server = ServerBuilder::new()
        .strategy(Sequential)
        .verify_request(move |_| {
            verified.lock().unwrap().push("verify_request");
            true
        })
        .handle_error(move |_| failed.lock().unwrap().push("handle_error"))
        .bind_tcp("127.0.0.1:0", Ordered(order.clone()))
        .unwrap();
    let mut client = TcpStream::connect(server.local_addr().socket_addr().unwrap()).unwrap();
    server.handle_request(None).unwrap();
    assert_eq!(client.read(&mut [0; 1]).unwrap(), 0);
    assert_eq!(*order.lock().unwrap(), ["verify_request", "setup", "handle", "finish", "handle_error"]);
}

// ---- service_actions, handle_timeout ----

#[test]
fn service_actions_are_called_on_the_serving_thread_at_their_pace() {
    const EVERY: Duration = Duration::from_millis(20);
    for strategy in ALL {
        let calls = Arc::new(Mutex::new(Vec::new()));
        let log = calls.clone();
        let act = move || log.lock().unwrap().push((Instant::now(), thread::current().id()));
        let server = Running::start(bind(strategy, ServerBuilder::new().service_actions(EVERY, act)));
        let serving = server.thread();
        until("calls without clients", || calls.lock().unwrap().len() >= 3);
        for _ in 0..100 {
            assert_eq!(ask(server.addr, "x"), "served x", "{strategy:?}");
        }
        let so_far = calls.lock().unwrap().len();
        until("calls after clients", || calls.lock().unwrap().len() >= so_far + 3);
        server.stop();
        let calls = calls.lock().unwrap();
        assert!(calls.iter().all(|(_, thread)| *thread == serving), "{strategy:?}");
        let pauses = calls.windows(2).map(|pair| pair[1].0 - pair[0].0);
        pauses.for_each(|pause| assert!(pause >= EVERY, "{strategy:?}: {pause:?}"));
    }
}

#[test]
fn a_panic_in_service_actions_ends_nothing() {
    for strategy in ALL {
        let (told, calls) = (Told::default(), Arc::new(AtomicUsize::new(0)));
        let count = calls.clone();
        let builder = ServerBuilder::new().handle_error(told.hook());
        let server = Running::start(bind(
            strategy,
            builder.service_actions(Duration::from_millis(5), move || {
                count.fetch_add(1, SeqCst);
                panic!("not today");
            }),
        ));
        until("calls after a panic", || calls.load(SeqCst) >= 3);
        assert_eq!(ask(server.addr, "x"), "served x", "{strategy:?}");
        assert_eq!(server.stop().served, 1, "{strategy:?}");
        assert!(told.count(&["Hook", "\"service_actions\"", "not today"]) >= 3, "{strategy:?}: {:?}", told.0);
    }
}

#[test]
fn handle_timeout_is_called_when_a_single_request_has_not_come() {
    for strategy in ALL {
        let (told, calls, acts) = (Told::default(), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (count, acted) = (calls.clone(), acts.clone());
        let builder = ServerBuilder::new().handle_error(told.hook()).handle_timeout(move || {
            assert!(count.fetch_add(1, SeqCst) != 1, "the second one");
        });
        let builder = builder.service_actions(Duration::from_nanos(1), move || count_one(&acted));
        let mut server = bind(strategy, builder);
        let some = Some(Duration::from_millis(10));
        assert!(!server.handle_request(some).unwrap() && calls.load(SeqCst) == 1, "{strategy:?}");
        assert!(!server.handle_request(some).unwrap() && calls.load(SeqCst) == 2, "{strategy:?}: it panics");
        assert_eq!(told.count(&["Hook", "\"handle_timeout\"", "the second one"]), 1, "{strategy:?}: {:?}", told.0);
        let client = Client::send(server.addr(), "x");
        assert!(server.handle_request(Some(LIMIT)).unwrap(), "{strategy:?}");
        assert_eq!((client.answer().as_str(), calls.load(SeqCst)), ("served x", 2), "{strategy:?}");
        server.handle().shutdown();
        assert!(!server.handle_request(Some(LIMIT)).unwrap(), "{strategy:?}");
        assert_eq!(calls.load(SeqCst), 2, "{strategy:?}: a stop is no timeout");
        assert_eq!(acts.load(SeqCst), 0, "{strategy:?}: service_actions are serve_forever's, as in Python");
    }
}

#[test]
fn a_panic_in_handle_error_ends_nothing() {
    for strategy in ALL {
        let builder = ServerBuilder::new().handle_error(|_| panic!("worse")).verify_request(|_| false);
        let server = Running::start(bind(strategy, builder));
        for _ in 0..3 {
            assert_eq!(ask(server.addr, "x"), "", "{strategy:?}");
        }
        assert_eq!(server.stop().refused, 3, "{strategy:?}");
    }
}

#[test]
fn times_of_zero_are_no_times() {
    let verify = ServerBuilder::new().verify_timeout(Duration::ZERO);
    let actions = ServerBuilder::new().service_actions(Duration::ZERO, || {});
    let long = ServerBuilder::new().verify_timeout(Duration::MAX);
    for (name, builder) in [("verify_timeout", verify), ("service_actions", actions), ("verify_timeout", long)] {
        let error = builder.bind_tcp("127.0.0.1:0", Echo(Arc::new(|_, _| {}))).err().unwrap();
        assert!(error.to_string().starts_with(name), "{error}");
    }
}

// ---- embedding ----

#[test]
fn a_server_can_be_embedded_in_a_loop_of_one_s_own() {
    for strategy in ALL {
        let timeouts = Arc::new(AtomicUsize::new(0));
        let count = timeouts.clone();
        let mut server = bind(strategy, ServerBuilder::new().handle_timeout(move || count_one(&count)));
        let mut selector = Selector::new().unwrap();
        server.watch(&mut selector);
        let started = Instant::now();
        assert!(!server.handle_request(Some(Duration::ZERO)).unwrap(), "{strategy:?}");
        assert!(started.elapsed() < AT_ONCE && timeouts.load(SeqCst) == 1, "{strategy:?}: without a wait");
        let clients: Vec<Client> = (0..3).map(|_| Client::send(server.addr(), "x")).collect();
        let mut taken = 0;
        while taken < clients.len() {
            assert!(!selector.select(Some(LIMIT)).unwrap().is_empty(), "{strategy:?}: {taken} taken");
            taken += usize::from(server.handle_request(Some(Duration::ZERO)).unwrap());
        }
        for client in clients {
            assert_eq!(client.answer(), "served x", "{strategy:?}");
        }
    }
}

#[test]
fn every_listener_has_its_descriptor() {
    let server = ServerBuilder::new().listen("127.0.0.1:0").bind_tcp("127.0.0.1:0", Echo(Arc::new(|_, _| {}))).unwrap();
    let ours: Vec<SocketAddr> = server.local_addrs().filter_map(|addr| addr.socket_addr()).collect();
    let theirs = server.listeners().map(|fd| std::net::TcpListener::from(fd.as_fd().try_clone_to_owned().unwrap()));
    assert_eq!(theirs.map(|l| l.local_addr().unwrap()).collect::<Vec<_>>(), ours);
}

// ---- H13: stopping the server from within ----

#[test]
fn h13_a_handler_may_stop_its_server_and_drop_its_handle() {
    for strategy in ALL {
        let (last, waited) = (Arc::new(Mutex::new(None::<ServerHandle>)), Arc::new(Mutex::new(None)));
        let (mine, note) = (last.clone(), waited.clone());
        let does: Does = Arc::new(move |_, server| {
            server.shutdown();
            *note.lock().unwrap() = Some(matches!(server.wait(None), Err(Error::WaitInHandler)));
            drop(mine.lock().unwrap().take());
        });
        let mut server = bind_doing(strategy, ServerBuilder::new(), does).unwrap();
        let addr = server.addr();
        *last.lock().unwrap() = Some(server.handle());
        let serving = thread::spawn(move || server.serve());
        assert_eq!(ask(addr, "stop"), "served stop", "{strategy:?}");
        until("the server's end", || serving.is_finished());
        assert_eq!(serving.join().unwrap().unwrap().served, 1, "{strategy:?}");
        assert_eq!(*waited.lock().unwrap(), Some(true), "{strategy:?}: it would wait for itself");
        assert!(last.lock().unwrap().is_none(), "{strategy:?}");
    }
}

#[test]
fn h13_hooks_may_stop_the_server_and_not_wait_for_it() {
    for strategy in ALL {
        for hook in ["verify_request", "service_actions", "handle_error"] {
            let waited = Arc::new(Mutex::new(None));
            let (note, handle) = (waited.clone(), Arc::new(Mutex::new(None::<ServerHandle>)));
            let to_stop = handle.clone();
            let stop = move || {
                let server = to_stop.lock().unwrap().clone().unwrap();
                server.shutdown();
                *note.lock().unwrap() = Some(matches!(server.wait(None), Err(Error::WaitInHandler)));
            };
            let builder = ServerBuilder::new();
            let builder = match hook {
                "verify_request" => builder.verify_request(move |_| {
                    stop();
                    false
                }),
                "handle_error" => builder.verify_request(|_| false).handle_error(move |_| stop()),
                _ => builder.service_actions(Duration::from_millis(5), stop),
            };
            let server = bind(strategy, builder);
            *handle.lock().unwrap() = Some(server.handle());
            let server = Running::start(server);
            if hook != "service_actions" {
                assert_eq!(ask(server.addr, "x"), "", "{strategy:?}, {hook}");
            }
            server.ended();
            assert_eq!(*waited.lock().unwrap(), Some(true), "{strategy:?}, {hook}");
        }
    }
}
