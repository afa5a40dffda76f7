//! What the in-process tests share: a server on a thread of its own, clients that never wait for ever, conditions
//! instead of sleeps.
#![allow(dead_code)] // each test file uses a part

pub mod datagrams;
pub mod frames;
pub mod loops;
#[allow(clippy::duplicate_mod)] // `support` has it too, and some programs have only one of the two
#[path = "../support/patience.rs"]
mod patience;

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

pub use patience::uninterrupted;
use socketserver::server::Engine;
use socketserver::strategy::ServingStrategy;
use socketserver::{
    Connection, Error, HandlerResult, Report, Sequential, ServerHandle, StreamRequestHandler, TcpServer, ThreadPool,
    Threading,
};

/// Longer than anything here takes on a busy machine.
pub const LONG: Duration = Duration::from_secs(30);

/// What happens at once happens within this time on a machine with ten other jobs. Every default limit of a server is
/// longer: the shortest is the drain limit, 10 s.
pub const AT_ONCE: Duration = Duration::from_secs(8);

pub const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Waits for a condition.
pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    let by = Instant::now() + LONG;
    while !done() {
        assert!(Instant::now() < by, "within {LONG:?} it never came to this: {what}");
        thread::sleep(ms(1));
    }
}

pub type AnyStrategy = Box<dyn ServingStrategy>;

/// Each strategy once, by name.
pub fn strategies() -> Vec<(&'static str, AnyStrategy)> {
    let mut all = concurrent();
    all.push(("Sequential", Box::new(Sequential)));
    all
}

/// Those that serve several connections at once.
pub fn concurrent() -> Vec<(&'static str, AnyStrategy)> {
    vec![("Threading", Box::new(Threading::new())), ("ThreadPool", Box::new(ThreadPool::new(4)))]
}

/// A server that serves on a thread of its own; dropped, it is stopped and joined.
pub struct Running {
    pub addr: Option<SocketAddr>,
    pub handle: ServerHandle,
    thread: Option<JoinHandle<Result<Report, Error>>>,
}

pub fn serve<H, S>(mut server: TcpServer<H, S>) -> Running
where
    H: Send + Sync + 'static,
    S: Engine<H> + Send + 'static,
{
    let (addr, handle) = (server.local_addr().socket_addr(), server.handle());
    Running { addr, handle, thread: Some(on_a_thread(Box::new(move || server.serve_forever()))) }
}

/// The closure is boxed: the code of a start of a thread is compiled once, and not for each server of the tests.
fn on_a_thread(run: Box<dyn FnOnce() -> Result<Report, Error> + Send>) -> JoinHandle<Result<Report, Error>> {
    thread::spawn(run)
}

impl Running {
    pub fn addr(&self) -> SocketAddr {
        self.addr.expect("a TCP server")
    }

    pub fn connect(&self) -> TcpStream {
        connect(self.addr())
    }

    /// Says this, ends the stream, and reads to the end.
    pub fn ask(&self, text: &str) -> String {
        ask(self.addr(), text)
    }

    pub fn stop(self) -> Report {
        self.handle.shutdown();
        self.join()
    }

    /// What the run returns, once it does.
    pub fn join(self) -> Report {
        self.result().expect("the server has served")
    }

    pub fn has_ended(&self) -> bool {
        self.thread.as_ref().is_some_and(JoinHandle::is_finished)
    }

    pub fn result(mut self) -> Result<Report, Error> {
        until("the server returns", || self.has_ended());
        self.thread.take().expect("joined once").join().expect("the serving thread does not panic")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.handle.shutdown_now();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

pub fn connect(addr: SocketAddr) -> TcpStream {
    let client = TcpStream::connect(addr).expect("connect");
    client.set_read_timeout(Some(LONG)).expect("set a timeout");
    client.set_write_timeout(Some(LONG)).expect("set a timeout");
    client
}

pub fn ask(addr: SocketAddr, text: &str) -> String {
    let mut client = connect(addr);
    client.write_all(text.as_bytes()).expect("send");
    client.shutdown(Shutdown::Write).expect("end the stream");
    read_all(&mut client)
}

pub fn read_all(client: &mut impl Read) -> String {
    let mut text = String::new();
    client.read_to_string(&mut text).expect("read to the end");
    text
}

/// Reads what has come, or waits for something.
pub fn read(client: &mut impl Read, buffer: &mut [u8]) -> std::io::Result<usize> {
    uninterrupted(|| client.read(buffer))
}

/// Reads exactly this text.
pub fn expect(client: &mut impl Read, text: &str) {
    let mut got = vec![0; text.len()];
    client.read_exact(&mut got).expect("read");
    assert_eq!(String::from_utf8_lossy(&got), text);
}

/// Echoes lines; `quit` ends, `fail` is an error, `panic` panics, `stop` shuts the server down.
#[derive(Debug)]
pub struct Lines;

impl StreamRequestHandler for Lines {
    fn handle(&self, conn: &mut Connection) -> HandlerResult {
        while conn.next_request()? {
            match conn.next_line()?.as_deref() {
                None | Some("quit") => break,
                Some("fail") => return Err("asked to fail".into()),
                Some("panic") => panic!("asked to panic"),
                Some("stop") => conn.server().shutdown(),
                Some(line) => writeln!(conn, "{line}")?,
            }
        }
        Ok(())
    }
}

/// A folder that goes with the test.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("socketserver-{}-{}", std::process::id(), COUNT.fetch_add(1, SeqCst));
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).expect("make a folder");
        Self(path)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub fn has_ipv6() -> bool {
    TcpListener::bind("[::1]:0").is_ok()
}

/// How many threads of this process have this name (its first 15 bytes).
pub fn threads_named(name: &str) -> usize {
    let tasks = fs::read_dir("/proc/self/task").expect("list threads");
    let named = |task: &Path| fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.trim_end() == name);
    tasks.flatten().filter(|task| named(&task.path())).count()
}

/// Descriptors that this process has open.
pub fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").expect("list descriptors").count() - 1
}

/// How often the thread of this name has gone to sleep so far.
pub fn switches(name: &str) -> Option<u64> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let text =
        |task: &std::fs::DirEntry, file: &str| std::fs::read_to_string(task.path().join(file)).unwrap_or_default();
    let task = tasks.into_iter().find(|t| text(t, "comm").trim() == name)?;
    let status = text(&task, "status");
    status.lines().find_map(|l| l.strip_prefix("voluntary_ctxt_switches:"))?.trim().parse().ok()
}
