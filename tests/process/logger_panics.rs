//! A logger that panics (`eprintln!` does, when its reader is gone) ends no thread that serves.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use socketserver::server::Engine;
use socketserver::{factory, handler, Connection, EventLoop, HandlerResult, Protocol, Report, Sequential};
use socketserver::{ServerBuilder, ThreadPool, Threading, Transport};

struct Panics;

impl log::Log for Panics {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        panic!("no reader for {}", record.args());
    }

    fn flush(&self) {}
}

/// Requests that wait for the rest of a line.
static WAITING: AtomicUsize = AtomicUsize::new(0);

/// Fails at `error`, waits after `wait` until it is cut.
fn handle(conn: &mut Connection) -> HandlerResult {
    match conn.next_line()?.as_deref() {
        Some("error") => Err("asked for".into()),
        _ => {
            WAITING.fetch_add(1, SeqCst);
            Ok(conn.next_line().map(drop)?)
        }
    }
}

struct Same;

impl Protocol for Same {
    fn data_received(&mut self, t: &mut Transport<'_>, data: &[u8]) -> HandlerResult {
        if data.starts_with(b"error") {
            t.call_later(Duration::ZERO, |_| panic!("asked for"));
            return Err("asked for".into());
        }
        t.request_begins();
        WAITING.fetch_add(1, SeqCst);
        Ok(())
    }
}

fn client(addr: SocketAddr, line: &str) -> TcpStream {
    let mut client = TcpStream::connect(addr).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    client.write_all(line.as_bytes()).unwrap();
    client
}

/// One connection fails, one is cut at the drain limit: both are logged.
fn serves_on<H: Send + Sync + 'static, S: Engine<H> + Send + 'static>(strategy: S, handler: H) -> Report {
    let builder = ServerBuilder::new().strategy(strategy).drain_timeout(Duration::from_millis(100));
    let mut server = builder.bind("127.0.0.1:0", handler).unwrap();
    let (addr, handle) = (server.local_addr().socket_addr().unwrap(), server.handle());
    let serving = thread::spawn(move || server.serve_forever());
    let _ = client(addr, "error\n").read(&mut [0]);
    let waiting = WAITING.load(SeqCst);
    let mut late = client(addr, "wait\nhalf a line");
    while WAITING.load(SeqCst) == waiting {
        thread::yield_now();
    }
    handle.shutdown();
    let _ = late.read(&mut [0]);
    serving.join().expect("the logger's panic stays with it").unwrap()
}

#[test]
fn a_logger_that_panics_ends_nothing() {
    alone!();
    log::set_logger(&Panics).unwrap();
    log::set_max_level(log::LevelFilter::Trace);
    std::panic::set_hook(Box::new(|_| {})); // there are many
    let reports = [
        serves_on(Threading::new(), handler(handle)),
        serves_on(ThreadPool::new(2), handler(handle)),
        serves_on(Sequential, handler(handle)),
        serves_on(EventLoop::new(), factory(|_| Same)),
    ];
    for report in reports {
        assert_eq!((report.accepted, report.failed), (2, 2), "{report}");
    }
}
