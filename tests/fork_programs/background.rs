//! Programs that bind, fork, and serve in the child, as daemons do that want the errors of a bind on the terminal.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{kill, signal, SigHandler, Signal};
use nix::sys::wait::{waitpid, WaitPidFlag, WaitStatus};
use nix::unistd::{alarm, fork, getpid, getppid, ForkResult, Pid};
use socketserver::selectors::{Events, Selector};
use socketserver::server::Engine;
use socketserver::{
    factory, handler, Connection, EventLoop, Forking, HandlerResult, PreForking, Protocol, Reactor, Sequential,
    ServerBuilder, StreamRequestHandler, TcpServer, Threading, Transport,
};

use super::programs::{until, Program};

const ANY: &str = "127.0.0.1:0";

/// Forks. The child goes on, and is killed with its test at the latest. `None` in the child.
#[allow(unsafe_code)]
fn forked() -> Option<Pid> {
    // SAFETY: these programs have one thread.
    match unsafe { fork() }.unwrap() {
        ForkResult::Parent { child } => Some(child),
        ForkResult::Child => {
            alarm::set(60);
            None
        }
    }
}

/// The parent ends at once.
fn to_the_background() {
    if forked().is_some() {
        std::process::exit(0);
    }
    println!("{}", getpid());
}

/// Says "here" to each line, and answers once the server stops: so an answer shows that the stop was heard.
fn slow() -> impl StreamRequestHandler {
    handler(|conn: &mut Connection| {
        while let Some(_line) = conn.next_line()? {
            writeln!(conn, "here")?;
            conn.flush()?;
            while !conn.server().is_shutting_down() {
                std::thread::sleep(Duration::from_millis(1));
            }
            writeln!(conn, "done")?;
        }
        Ok(())
    })
}

/// The same as a protocol.
struct Slow;

impl Protocol for Slow {
    fn data_received(&mut self, transport: &mut Transport<'_>, _: &[u8]) -> HandlerResult {
        transport.request_begins();
        transport.send_line("here")
    }

    fn shutting_down(&mut self, transport: &mut Transport<'_>) -> HandlerResult {
        transport.request_ends();
        transport.send_line("done")
    }
}

fn serve<H, S: Engine<H>>(server: ServerBuilder<S>, handler: H) {
    let mut server = server.handle_signals().bind(ANY, handler).unwrap();
    println!("{}", server.local_addr());
    to_the_background();
    println!("report {}", server.serve_forever().unwrap());
}

pub fn in_threads() {
    serve(ServerBuilder::new().strategy(Threading::new()), slow());
}

pub fn one_after_the_other() {
    serve(ServerBuilder::new().strategy(Sequential), slow());
}

pub fn in_children() {
    serve(ServerBuilder::new().strategy(Forking::new()), slow());
}

pub fn in_workers() {
    serve(ServerBuilder::new().strategy(PreForking::new(2, Threading::new())), slow());
}

pub fn in_a_loop() {
    serve(ServerBuilder::new().strategy(EventLoop::new()), factory(|_| Slow));
}

/// A reactor that has run before, so that its epoll set watches the listener already.
pub fn in_a_reactor() {
    let mut reactor = Reactor::new().unwrap();
    let port = reactor.listen_tcp(ANY, factory(|_| Slow)).unwrap();
    reactor.handle_signals().unwrap();
    assert!(reactor.turn(Some(Duration::ZERO)).unwrap());
    println!("{}", port.local_addr());
    let parent = getpid();
    if forked().is_some() {
        return; // drops its copy, which must not end what the child watches
    }
    while getppid() == parent {
        std::thread::sleep(Duration::from_millis(1));
    }
    println!("{}", getpid());
    println!("report {}", reactor.run().unwrap());
}

/// With a connection that was open at the fork.
pub fn in_a_reactor_that_serves() {
    let mut reactor = Reactor::new().unwrap();
    reactor.server().set_max_connections(2).unwrap();
    let port = reactor.listen_tcp(ANY, factory(|_| Slow)).unwrap();
    reactor.handle_signals().unwrap();
    println!("{}", port.local_addr());
    while reactor.server().stats().accepted == 0 {
        reactor.turn(None).unwrap();
    }
    to_the_background();
    println!("report {}", reactor.run().unwrap());
}

pub fn goes_on_with_its_connections(program: &mut Program) {
    let mut first = Client::over(TcpStream::connect(&program.addr).unwrap());
    let daemon = pid(&program.line());
    assert_eq!(first.ask("one"), "here\n", "in the child");
    drop(first);
    // Its end gives one place back, and no more.
    for _ in 0..2 {
        let mut next = Client::over(TcpStream::connect(&program.addr).unwrap());
        assert_eq!(next.ask("one"), "here\n");
    }
    let mut last = Client::over(TcpStream::connect(&program.addr).unwrap());
    assert_eq!(last.ask("one"), "here\n");
    kill(daemon, Signal::SIGTERM).unwrap();
    assert_eq!(last.line(), "done\n");
    program.rest();
}

/// As daemon(7) has it: fork twice, and all signals at their defaults.
pub fn by_the_book() {
    let mut server = ServerBuilder::new().handle_signals().bind(ANY, slow()).unwrap();
    println!("{}", server.local_addr());
    if forked().is_some() || forked().is_some() {
        std::process::exit(0);
    }
    for number in [Signal::SIGINT, Signal::SIGTERM] {
        #[allow(unsafe_code)]
        // SAFETY: the default runs no code.
        unsafe { signal(number, SigHandler::SigDfl) }.unwrap();
    }
    println!("{}", getpid());
    println!("report {}", server.serve_forever().unwrap());
}

/// The signal comes between the fork and the serving. A client is queued already.
pub fn signalled_early() {
    let mut server = ServerBuilder::new().handle_signals().bind(ANY, slow()).unwrap();
    println!("{}", server.local_addr());
    to_the_background();
    let mut selector = Selector::new().unwrap();
    for listener in server.listeners() {
        selector.register(&listener, Events::READ, ()).unwrap();
    }
    selector.select(None).unwrap();
    kill(getpid(), Signal::SIGTERM).unwrap();
    println!("report {}", server.serve_forever().unwrap());
}

pub fn serves_its_queue_and_stops(program: &mut Program) {
    program.line();
    let mut client = Client::over(TcpStream::connect(&program.addr).unwrap());
    assert_eq!((client.ask("one"), client.line()), ("here\n".to_owned(), "done\n".to_owned()));
    let report = program.rest();
    assert!(report.contains("report accepted 1, served 1"), "{report}");
}

pub fn answers_before_it_stops(program: &mut Program) {
    let daemon = pid(&program.line());
    let mut client = Client::over(TcpStream::connect(&program.addr).unwrap());
    assert_eq!(client.ask("one"), "here\n");
    kill(daemon, Signal::SIGTERM).unwrap();
    assert_eq!(client.line(), "done\n");
    let report = program.rest();
    assert!(report.contains("report accepted 1, served 1") && report.contains("drained 1"), "{report}");
}

// ---- a Unix socket ----

fn bind_unix(folder: &str, builder: ServerBuilder) -> (TcpServer<impl StreamRequestHandler, Threading>, PathBuf) {
    let folder = std::env::temp_dir().join(format!("socketserver-{folder}-{}", getpid()));
    fs::create_dir(&folder).unwrap();
    let path = folder.join("s");
    let server = builder.handle_signals().bind_unix(&path, slow()).unwrap();
    println!("{}", path.display());
    (server, path)
}

/// The parent drops its server: at once, or when it hears the child's end.
fn serve_unix(stays: bool) {
    let (mut server, path) = bind_unix("daemon", ServerBuilder::new());
    if let Some(child) = forked() {
        if stays {
            waitpid(child, None).unwrap();
            println!("file: {}", path.exists());
        }
        drop(server);
        return;
    }
    println!("{}", getpid());
    println!("{}", server.serve_forever().unwrap());
    drop(server);
    std::process::exit(0);
}

pub fn with_a_file() {
    serve_unix(false);
}

pub fn with_a_file_and_a_parent() {
    serve_unix(true);
}

pub fn has_the_file_until_its_end(program: &mut Program) {
    let daemon = pid(&program.line());
    // The parent, where it does not stay, has dropped its server by then.
    program.child.wait().unwrap();
    let mut client = Client::over(UnixStream::connect(&program.addr).unwrap());
    assert_eq!(client.ask("one"), "here\n");
    kill(daemon, Signal::SIGTERM).unwrap();
    assert_eq!(client.line(), "done\n");
    program.rest();
    remove_empty(Path::new(&program.addr));
}

pub fn takes_the_file_along(program: &mut Program) {
    let daemon = pid(&program.line());
    let mut client = Client::over(UnixStream::connect(&program.addr).unwrap());
    assert_eq!(client.ask("one"), "here\n");
    kill(daemon, Signal::SIGTERM).unwrap();
    assert_eq!(client.line(), "done\n");
    let told = program.rest();
    assert!(told.ends_with("file: false\n"), "{told}");
    remove_empty(Path::new(&program.addr));
}

/// The parent that stays is a program without a server: the first signal ends it.
pub fn leaves_signals_to_its_child(program: &mut Program) {
    let daemon = pid(&program.line());
    let mut client = Client::over(UnixStream::connect(&program.addr).unwrap());
    assert_eq!(client.ask("one"), "here\n");
    kill(Pid::from_raw(program.child.id() as i32), Signal::SIGTERM).unwrap();
    use std::os::unix::process::ExitStatusExt;
    assert_eq!(program.child.wait().unwrap().signal(), Some(Signal::SIGTERM as i32));
    let mut other = Client::over(UnixStream::connect(&program.addr).unwrap());
    assert_eq!(other.ask("two"), "here\n", "the child serves on");
    kill(daemon, Signal::SIGTERM).unwrap();
    assert_eq!((client.line(), other.line()), ("done\n".to_owned(), "done\n".to_owned()));
    until("the child ends", || !Path::new(&program.addr).exists());
    until("the lock goes with it", || fs::remove_dir(Path::new(&program.addr).parent().unwrap()).is_ok());
}

/// Two children serve the same socket, each with a stop of its own, and the parent is asked for neither.
pub fn by_two() {
    // Said once it serves: before that, a signal would end it, as the other one serves.
    let begins = std::sync::Once::new();
    let builder = ServerBuilder::new().service_actions(Duration::from_millis(1), move || {
        begins.call_once(|| println!("{}", getpid()));
    });
    let (server, path) = bind_unix("two", builder);
    let mut server = Some(server);
    let mut children = Vec::new();
    while children.len() < 2 {
        children.push(forked().unwrap_or_else(|| {
            println!("{} file: {}", server.as_mut().unwrap().serve_forever().unwrap(), path.exists());
            drop(server.take());
            std::process::exit(0)
        }));
    }
    for child in children {
        assert_eq!(waitpid(child, None).unwrap(), WaitStatus::Exited(child, 0));
    }
    println!("file: {}", path.exists());
}

pub fn stop_one_by_one(program: &mut Program) {
    let daemons = [pid(&program.line()), pid(&program.line())];
    kill(daemons[0], Signal::SIGTERM).unwrap();
    let report = program.line();
    assert!(report.contains("accepted 0") && report.ends_with("file: true"), "{report}");
    until("it ends", || matches!(state(daemons[0]), None | Some('Z')));
    until("the other one waits", || state(daemons[1]) == Some('S'));
    let mut client = Client::over(UnixStream::connect(&program.addr).unwrap());
    assert_eq!(client.ask("one"), "here\n", "the other one has the file");
    kill(daemons[1], Signal::SIGTERM).unwrap();
    assert_eq!(client.line(), "done\n");
    let told = program.rest();
    assert!(told.contains("accepted 1, served 1") && told.ends_with("file: false\n"), "{told}");
    remove_empty(Path::new(&program.addr));
}

/// The parent serves. A process that it has forked, and that does not serve, has no part in the server.
pub fn beside_a_child() {
    let (mut server, _) = bind_unix("beside", ServerBuilder::new());
    let Some(child) = forked() else {
        println!("{}", getpid());
        loop {
            std::thread::park();
        }
    };
    println!("{}", server.serve_forever().unwrap());
    drop(server);
    assert_eq!(waitpid(child, Some(WaitPidFlag::WNOHANG)).unwrap(), WaitStatus::StillAlive);
    kill(child, Signal::SIGTERM).unwrap();
    assert_eq!(waitpid(child, None).unwrap(), WaitStatus::Signaled(child, Signal::SIGTERM, false));
}

pub fn is_the_parents_alone(program: &mut Program) {
    program.line();
    let mut client = Client::over(UnixStream::connect(&program.addr).unwrap());
    assert_eq!(client.ask("one"), "here\n");
    kill(Pid::from_raw(program.child.id() as i32), Signal::SIGTERM).unwrap();
    assert_eq!(client.line(), "done\n");
    program.rest();
    remove_empty(Path::new(&program.addr));
}

// ---- the clients' part ----

fn pid(line: &str) -> Pid {
    Pid::from_raw(line.parse().unwrap())
}

/// What a process does: sleeps (S), runs (R), or has ended (Z).
fn state(pid: Pid) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

/// Neither the socket nor its lock is left.
fn remove_empty(path: &Path) {
    fs::remove_dir(path.parent().unwrap()).unwrap();
}

struct Client<S>(BufReader<S>);

impl<S: std::io::Read + Write> Client<S> {
    fn over(stream: S) -> Self {
        Self(BufReader::new(stream))
    }

    fn ask(&mut self, text: &str) -> String {
        writeln!(self.0.get_mut(), "{text}").unwrap();
        self.line()
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line
    }
}
