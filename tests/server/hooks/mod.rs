//! The hooks of `BaseServer` on every strategy that runs in this process; `tests/fork_programs` has Forking. Shown
//! are when they are called, on which thread, and that nothing they do ends or stops the server.

mod others;
mod stops;
mod verify;

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

/// A builder whose `verify_request` hangs at the door the first few times, and says yes.
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
