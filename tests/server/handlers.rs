//! What a handler may do, and what happens to the others when it fails.

use std::fs;
use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{mpsc, Arc, Mutex};

use crate::kit::{concurrent, expect, ms, read_all, serve, strategies, threads_named, until, Lines, LONG};
use socketserver::{
    handler, per_connection, AtLimit, Connection, Failure, HandlerResult, ServerBuilder, StreamRequestHandler,
    StreamRequestHandlerMut, ThreadPool, Threading,
};

const ANY: &str = "127.0.0.1:0";

fn tell_kind(tell: mpsc::Sender<String>) -> impl Fn(&Failure<'_>) + Send + Sync {
    move |failure| {
        let kind = match failure {
            Failure::Error { error, .. } => format!("error: {error}"),
            Failure::Panic { message, .. } => format!("panic: {message}"),
            Failure::Disconnected { .. } => "disconnected".to_owned(),
            Failure::Refused { error, .. } => format!("refused: {error}"),
            other => format!("other: {other}"),
        };
        let _ = tell.send(kind);
    }
}

#[test]
fn the_hook_is_told_of_each_kind_of_failure() {
    for (name, strategy) in strategies() {
        let (tell, told) = mpsc::channel();
        let server = ServerBuilder::new().strategy(strategy).handle_error(tell_kind(tell)).bind(ANY, Lines).unwrap();
        let server = serve(server);
        let cases =
            [("fail\n", "error: asked to fail"), ("panic\n", "panic: asked to panic"), ("half", "disconnected")];
        for (text, kind) in cases {
            assert_eq!(server.ask(text), "", "{name}");
            assert_eq!(told.recv_timeout(LONG).unwrap(), kind, "{name}");
        }
        assert_eq!(server.ask("fine\n"), "fine\n", "{name}");
        server.stop();
        assert_eq!(told.iter().count(), 0, "{name}: nothing is told of what went well");
    }
}

#[test]
fn handle_error_hears_of_refused_connections() {
    let (tell, told) = mpsc::channel();
    let server = ServerBuilder::new().max_connections(1).at_limit(AtLimit::Refuse(Vec::new()));
    let server = serve(server.handle_error(tell_kind(tell)).bind(ANY, Lines).unwrap());
    let mut first = server.connect();
    first.write_all(b"1\n").unwrap();
    expect(&mut first, "1\n");
    assert_eq!(read_all(&mut server.connect()), "");
    assert_eq!(told.recv_timeout(LONG).unwrap(), "refused: the connection limit is reached");
}

#[test]
fn what_was_written_before_an_error_or_a_panic_is_sent() {
    for (name, strategy) in strategies() {
        let server = serve(ServerBuilder::new().strategy(strategy).bind(ANY, Lines).unwrap());
        assert_eq!(server.ask("1\n2\nfail\n"), "1\n2\n", "{name}");
        assert_eq!(server.ask("1\n2\npanic\n"), "1\n2\n", "{name}");
    }
}

/// A payload that panics again when it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("and again");
    }
}

fn bombs(conn: &mut Connection) -> HandlerResult {
    match conn.next_line()?.as_deref() {
        Some("bomb") => std::panic::panic_any(Bomb),
        _ => Ok(writeln!(conn, "fine")?),
    }
}

#[test]
fn no_panic_ends_a_thread_of_the_strategy() {
    let pools = [ThreadPool::new(1).thread_name("hardy-pool")];
    for pool in pools {
        let server = ServerBuilder::new().strategy(pool).handle_error(|_| panic!("the hook, too"));
        let server = serve(server.bind(ANY, handler(|conn| thread_and(conn, bombs))).unwrap());
        let first = server.ask("fine\n");
        for _ in 0..5 {
            let _ = server.ask("bomb\n");
        }
        assert_eq!(server.ask("fine\n"), first, "the same thread serves on");
        assert_eq!(server.stop().failed, 5);
    }
    for (name, strategy) in strategies() {
        let server = ServerBuilder::new().strategy(strategy).handle_error(|_| panic!("the hook, too"));
        let server = serve(server.bind(ANY, handler(bombs)).unwrap());
        for _ in 0..5 {
            assert_eq!(server.ask("bomb\n"), "", "{name}");
            assert_eq!(server.ask("fine\n"), "fine\n", "{name}");
        }
    }
}

/// Says first which thread serves.
fn thread_and(conn: &mut Connection, then: fn(&mut Connection) -> HandlerResult) -> HandlerResult {
    let id = std::thread::current().id();
    writeln!(conn, "{id:?}")?;
    then(conn)
}

/// Writes down what is called; its part fails as it is told.
struct Steps(Arc<Mutex<Vec<&'static str>>>, &'static str);

impl Steps {
    fn step(&self, name: &'static str) -> HandlerResult {
        self.0.lock().unwrap().push(name);
        match self.1.split_once(' ') {
            Some((step, "fails")) if step == name => Err("told to".into()),
            Some((step, "panics")) if step == name => panic!("told to"),
            _ => Ok(()),
        }
    }
}

impl StreamRequestHandler for Steps {
    fn setup(&self, _: &mut Connection) -> HandlerResult {
        self.step("setup")
    }

    fn handle(&self, _: &mut Connection) -> HandlerResult {
        self.step("handle")
    }

    fn finish(&self, _: &mut Connection) -> HandlerResult {
        self.step("finish")
    }
}

#[test]
fn finish_runs_whenever_setup_has_succeeded() {
    let cases: [(&str, &[&str], u64); 7] = [
        ("", &["setup", "handle", "finish"], 0),
        ("setup fails", &["setup"], 1),
        ("setup panics", &["setup"], 1),
        ("handle fails", &["setup", "handle", "finish"], 1),
        ("handle panics", &["setup", "handle", "finish"], 1),
        ("finish fails", &["setup", "handle", "finish"], 1),
        ("finish panics", &["setup", "handle", "finish"], 1),
    ];
    for (plan, expected, failed) in cases {
        let steps = Arc::new(Mutex::new(Vec::new()));
        let server = serve(ServerBuilder::new().bind(ANY, Steps(steps.clone(), plan)).unwrap());
        assert_eq!(server.ask(""), "");
        assert_eq!(server.stop().failed, failed, "{plan}");
        assert_eq!(*steps.lock().unwrap(), expected, "{plan}");
    }
}

#[test]
fn a_shared_handler_is_one_handler() {
    let count = Arc::new(AtomicUsize::new(0));
    let seen = count.clone();
    let counter = Arc::new(handler(move |conn| Ok(write!(conn, "{}", seen.fetch_add(1, SeqCst))?)));
    let (a, b) = (ServerBuilder::new().bind(ANY, counter.clone()), ServerBuilder::new().bind(ANY, counter));
    let (a, b) = (serve(a.unwrap()), serve(b.unwrap()));
    assert_eq!([a.ask(""), b.ask(""), a.ask("")], ["0", "1", "2"]);
}

#[test]
fn a_handler_behind_dyn_is_a_handler() {
    let any: Arc<dyn StreamRequestHandler> = Arc::new(Lines);
    let server = serve(ServerBuilder::new().bind(ANY, any).unwrap());
    assert_eq!(server.ask("hello\n"), "hello\n");
}

#[derive(Default)]
struct Counter {
    lines: usize,
    finished: Option<mpsc::Sender<usize>>,
}

impl StreamRequestHandlerMut for Counter {
    fn handle(&mut self, conn: &mut Connection) -> HandlerResult {
        while let Some(line) = conn.next_line()? {
            assert_ne!(line, "panic");
            self.lines += 1;
            write!(conn, "{} ", self.lines)?;
        }
        Ok(())
    }

    fn finish(&mut self, _: &mut Connection) -> HandlerResult {
        self.finished.take().map_or(Ok(()), |tell| Ok(tell.send(self.lines)?))
    }
}

#[test]
fn each_connection_gets_a_fresh_handler() {
    for (name, strategy) in strategies() {
        let (tell, told) = mpsc::channel();
        let fresh = per_connection(move || Counter { finished: Some(tell.clone()), ..Counter::default() });
        let server = serve(ServerBuilder::new().strategy(strategy).bind(ANY, fresh).unwrap());
        for _ in 0..3 {
            assert_eq!(server.ask("a\nb\n"), "1 2 ", "{name}");
            assert_eq!(told.recv_timeout(LONG), Ok(2), "{name}");
        }
        assert_eq!(server.ask("a\npanic\n"), "1 ", "{name}");
        assert_eq!(told.recv_timeout(LONG), Ok(1), "{name}: finish runs after a panic");
    }
}

#[test]
fn a_maker_that_panics_ends_one_connection() {
    let made = AtomicUsize::new(0);
    let fresh = per_connection(move || match made.fetch_add(1, SeqCst) {
        0 => panic!("no handler today"),
        _ => Counter::default(),
    });
    let server = serve(ServerBuilder::new().bind(ANY, fresh).unwrap());
    assert_eq!([server.ask(""), server.ask("a\n")], ["", "1 "]);
    assert_eq!(server.stop().failed, 1);
}

#[test]
fn a_handler_goes_with_its_server() {
    for (name, strategy) in strategies() {
        let alive = Arc::new(());
        let held = alive.clone();
        let holder = handler(move |conn| Ok(write!(conn, "{}", Arc::strong_count(&held))?));
        let server = serve(ServerBuilder::new().strategy(strategy).bind(ANY, holder).unwrap());
        assert_eq!(server.ask(""), "2", "{name}");
        server.stop();
        until("nobody holds it", || Arc::strong_count(&alive) == 1);
    }
}

/// The name and the stack of the thread that serves, as the system has them.
fn thread_facts(conn: &mut Connection) -> HandlerResult {
    let name = fs::read_to_string("/proc/thread-self/comm")?;
    Ok(write!(conn, "{name}")?)
}

#[test]
fn threads_have_the_name_they_were_given() {
    let a = ServerBuilder::new().strategy(Threading::new().thread_name("quite-a-long-name"));
    let a = serve(a.bind(ANY, handler(thread_facts)).unwrap());
    assert_eq!(a.ask(""), "quite-a-long-na\n");
    let b = ServerBuilder::new().strategy(ThreadPool::new(1).thread_name("short"));
    assert_eq!(serve(b.bind(ANY, handler(thread_facts)).unwrap()).ask(""), "short\n");
}

/// Uses at least so much stack.
#[inline(never)]
fn deep(kib: usize) -> usize {
    let frame = std::hint::black_box([1_u8; 1024]);
    if kib == 0 {
        0
    } else {
        deep(kib - 1) + usize::from(frame[kib % 1024])
    }
}

#[test]
fn threads_have_the_stack_they_were_given() {
    let six_mib = handler(|conn| Ok(write!(conn, "{}", deep(6 << 10))?)); // Rust's default is two
    let server = ServerBuilder::new().strategy(Threading::new().stack_size(64 << 20));
    assert_eq!(serve(server.bind(ANY, six_mib).unwrap()).ask(""), "6144");
    let server = ServerBuilder::new().strategy(ThreadPool::new(1).stack_size(64 << 20));
    assert_eq!(serve(server.bind(ANY, six_mib_again()).unwrap()).ask(""), "6144");
}

fn six_mib_again() -> impl StreamRequestHandler {
    handler(|conn| Ok(write!(conn, "{}", deep(6 << 10))?))
}

#[test]
fn idle_threads_retire_down_to_one() {
    let strategy = Threading::new().keep_alive(ms(20)).thread_name("retiring");
    let server = serve(ServerBuilder::new().strategy(strategy).bind(ANY, Lines).unwrap());
    let mut clients: Vec<_> = (0..10).map(|_| server.connect()).collect();
    clients.iter_mut().for_each(|client| client.write_all(b"hello\n").unwrap());
    clients.iter_mut().for_each(|client| expect(client, "hello\n"));
    until("each has a thread", || threads_named("retiring") >= 10);
    drop(clients);
    until("all but one have retired", || threads_named("retiring") == 1);
    assert_eq!(server.ask("hello\n"), "hello\n", "and the new thread serves");
}

#[test]
fn no_more_threads_wait_than_may() {
    let strategy = Threading::new().spare_threads(2).thread_name("sparing");
    let server = serve(ServerBuilder::new().strategy(strategy).bind(ANY, Lines).unwrap());
    let mut clients: Vec<_> = (0..10).map(|_| server.connect()).collect();
    clients.iter_mut().for_each(|client| client.write_all(b"hello\n").unwrap());
    clients.iter_mut().for_each(|client| expect(client, "hello\n"));
    drop(clients);
    until("the spare ones are left", || threads_named("sparing") <= 2);
    assert_eq!(server.ask("hello\n"), "hello\n");
}

#[test]
fn a_pool_has_as_many_threads_as_it_was_given() {
    let strategy = ThreadPool::new(3).thread_name("pool-of-three");
    let server = serve(ServerBuilder::new().strategy(strategy).bind(ANY, Lines).unwrap());
    until("all are there", || threads_named("pool-of-three") == 3);
    for _ in 0..30 {
        assert_eq!(server.ask("panic\n"), "");
        assert_eq!(threads_named("pool-of-three"), 3);
    }
    server.stop();
    until("all are gone", || threads_named("pool-of-three") == 0);
}

#[test]
fn threads_are_gone_when_the_run_is_over() {
    for (name, strategy) in concurrent() {
        let comm = if name == "Threading" { "threading" } else { "thread-pool" };
        let server = serve(ServerBuilder::new().strategy(strategy).bind(ANY, Lines).unwrap());
        assert_eq!(server.ask("hello\n"), "hello\n");
        assert!(threads_named(comm) > 0);
        server.stop();
    }
}

#[test]
fn x12_a_program_of_a_handler_has_no_descriptor_of_the_server() {
    let lists = handler(|conn| {
        let mut ls = std::process::Command::new("ls");
        let listed = ls.args(["-l", "/proc/self/fd"]).stdin(std::process::Stdio::null()).output()?;
        conn.send_line(String::from_utf8_lossy(&listed.stdout).into_owned())
    });
    let server = serve(ServerBuilder::new().handle_signals().bind("127.0.0.1:0", lists).unwrap());
    let _idle = server.connect();
    let listed = server.ask("");
    assert!(listed.contains("/dev/null"), "{listed}");
    assert!(!listed.contains("socket:") && !listed.contains("anon_inode:"), "{listed}");
}
