//! How often a connection and a message allocate memory, in numbers that no clock and no other job changes.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::{BufRead, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use crate::kit::{serve, until};
use socketserver::server::Engine;
use socketserver::{factory, handler, per_request, Connection, EventLoop, EventLoops, HandlerResult, Next, Protocol};
use socketserver::{Sequential, ServerBuilder, ThreadPool, Threading, Transport};

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// The client's, in the thread of the test, do not count.
    static IS_SERVER: Cell<bool> = const { Cell::new(true) };
}

fn count() {
    if IS_SERVER.get() {
        ALLOCATIONS.fetch_add(1, SeqCst);
    }
}

/// The system's allocator, which counts. All tests of this program have it.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[allow(unsafe_code)]
// SAFETY: each call is passed on as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as the caller has promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as the caller has promised.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as the caller has promised.
        unsafe { System.realloc(memory, layout, size) }
    }
}

/// Sends back what has come.
fn echo(conn: &mut Connection) -> HandlerResult {
    let (mut input, mut output) = conn.halves();
    let data = input.fill_buf()?;
    output.write_all(data)?;
    let n = data.len();
    input.consume(n);
    Ok(())
}

fn echo_all(conn: &mut Connection) -> HandlerResult {
    while conn.next_request()? {
        echo(conn)?;
    }
    Ok(())
}

struct Echo;

impl Protocol for Echo {
    fn data_received(&mut self, transport: &mut Transport<'_>, data: &[u8]) -> HandlerResult {
        Ok(transport.write(data)?)
    }
}

fn message(stream: &mut TcpStream) {
    stream.write_all(b"message").unwrap();
    stream.read_exact(&mut [0; 7]).unwrap();
}

const MANY: usize = 200;

/// For each connection with one message, and for each further message.
fn allocations<H, S>(strategy: S, handler: H) -> (f64, f64)
where
    H: Send + Sync + 'static,
    S: Engine<H> + Send + 'static,
{
    let server = serve(ServerBuilder::new().strategy(strategy).bind("127.0.0.1:0", handler).unwrap());
    let addr: SocketAddr = server.addr();
    let connections = |count: usize| {
        let (before, served) = (ALLOCATIONS.load(SeqCst), server.handle.stats().served);
        (0..count).for_each(|_| message(&mut TcpStream::connect(addr).unwrap()));
        until("all are served", || server.handle.stats().served == served + count as u64);
        ALLOCATIONS.load(SeqCst) - before
    };
    connections(MANY); // threads start, and lists grow
    let each_connection = connections(MANY) as f64 / MANY as f64;
    let mut stream = TcpStream::connect(addr).unwrap();
    message(&mut stream);
    let before = ALLOCATIONS.load(SeqCst);
    (0..MANY).for_each(|_| message(&mut stream));
    (each_connection, (ALLOCATIONS.load(SeqCst) - before) as f64 / MANY as f64)
}

#[test]
fn a_message_allocates_nothing_and_a_connection_little() {
    alone!();
    IS_SERVER.set(false);
    let request = || per_request(|conn: &mut Connection| echo(conn).map(|()| Next::Request));
    // A thread that starts on a busy machine allocates too.
    let counts = [
        ("Sequential", 1.5, allocations(Sequential, handler(echo_all))),
        ("Threading", 1.5, allocations(Threading::new(), handler(echo_all))),
        ("ThreadPool", 1.5, allocations(ThreadPool::new(4), handler(echo_all))),
        ("ThreadPool by requests", 3.5, allocations(ThreadPool::new(4), request())),
        ("EventLoop", 0.5, allocations(EventLoop::new(), factory(|_| Echo))),
        ("EventLoops", 0.5, allocations(EventLoops::new(2), factory(|_| Echo))),
    ];
    println!("{counts:?}");
    for (name, most, (connection, message)) in counts {
        assert!(connection < most, "{name}: a connection allocates {connection} times");
        assert!(message < 0.3, "{name}: a message allocates {message} times");
    }
}
