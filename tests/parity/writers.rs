//! S23 to S25: what a handler writes through, and the public names.

use std::io::{BufRead, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{mpsc, Arc};
use std::thread;

use nix::sys::pthread::{pthread_kill, pthread_self};
use nix::sys::signal::{sigaction, SaFlags, SigAction, SigHandler, SigSet, Signal};
use socketserver::testing::TestServer;
use socketserver::{handler, Addr, Connection};

use crate::kit::ms;

/// `SocketWriterTest.test_basics`: here the connection is the writer itself.
#[test]
fn s23_a_connection_is_a_reader_a_writer_and_its_socket() {
    fn checks<C: BufRead + Write + AsFd>(conn: &C) -> std::io::Result<TcpStream> {
        Ok(TcpStream::from(conn.as_fd().try_clone_to_owned()?))
    }
    let server = TestServer::start(handler(|conn| {
        let same = Addr::Ip(checks(conn)?.peer_addr()?) == conn.peer_addr();
        let (_rfile, mut wfile) = conn.halves();
        Ok(writeln!(wfile, "{same}")?)
    }));
    assert_eq!(server.connect().line(), "true");
}

static SIGNALS: AtomicUsize = AtomicUsize::new(0);

extern "C" fn count(_: i32) {
    SIGNALS.fetch_add(1, SeqCst);
}

/// `SocketWriterTest.test_write`: CPython's `wfile` is unbuffered; here what is written is sent at the latest when the
/// handler waits or is done. A write takes all, and signals that interrupt it take nothing away.
#[test]
fn s24_a_huge_write_is_whole_although_signals_interrupt_it() {
    const HUGE: usize = 8 << 20;
    let action = SigAction::new(SigHandler::Handler(count), SaFlags::empty(), SigSet::empty()); // no SA_RESTART
    #[allow(unsafe_code)]
    // SAFETY: the handler touches an atomic, nothing else.
    unsafe { sigaction(Signal::SIGUSR1, &action) }.unwrap();
    let (tell, told) = mpsc::channel();
    let server = TestServer::start(handler(move |conn: &mut Connection| {
        conn.write_all(b"first\n")?;
        conn.read_line(&mut String::new())?; // waits, and so sends
        tell.send(pthread_self() as usize)?;
        let taken = conn.write(&vec![b'x'; HUGE])?;
        writeln!(conn, " {taken}")?;
        tell.send(0)?;
        Ok(conn.read_exact(&mut [0])?) // stays, so that its thread can be sent signals
    }));
    let mut client = server.connect();
    assert_eq!(client.line(), "first");
    client.send("go\n");
    let thread = told.recv().unwrap() as nix::sys::pthread::Pthread;
    let reading = Arc::new(AtomicBool::new(true));
    let interrupts = {
        let reading = reading.clone();
        thread::spawn(move || {
            while reading.load(SeqCst) {
                pthread_kill(thread, Signal::SIGUSR1).unwrap();
                thread::sleep(ms(1));
            }
        })
    };
    while SIGNALS.load(SeqCst) < 20 {
        thread::sleep(ms(1)); // it is blocked in the write, for nobody reads
    }
    assert!(told.try_recv().is_err(), "it writes still");
    assert_eq!(client.exactly(HUGE), vec![b'x'; HUGE]);
    assert_eq!(client.line(), format!(" {HUGE}"), "the full length");
    reading.store(false, SeqCst);
    interrupts.join().unwrap();
    client.send("x");
    assert_eq!(client.rest(), b"");
    assert_eq!(server.stop().served, 1);
}

/// `MiscTestCase.test_all`: what CPython exports, under the names it has here.
#[test]
fn s25_every_public_name_has_its_counterpart() {
    use socketserver::handler::PerConnection;
    use socketserver::{Forking, StreamRequestHandler, StreamRequestHandlerMut, TcpServer, Threading};
    fn exists<T: ?Sized>() {}
    exists::<socketserver::ServerHandle>(); // BaseServer, of a server that runs
    exists::<socketserver::ServerBuilder>(); // BaseServer, of one that is set up
    exists::<TcpServer<Box<dyn StreamRequestHandler>, socketserver::Sequential>>(); // TCPServer, UnixStreamServer
    exists::<TcpServer<Box<dyn StreamRequestHandler>, Threading>>(); // ThreadingTCPServer, ThreadingUnixStreamServer
    exists::<TcpServer<Box<dyn StreamRequestHandler>, Forking>>(); // ForkingTCPServer, ForkingUnixStreamServer
    exists::<(Threading, Forking)>(); // ThreadingMixIn, ForkingMixIn
    exists::<dyn StreamRequestHandler>(); // BaseRequestHandler, StreamRequestHandler
    exists::<PerConnection<(), Box<dyn StreamRequestHandlerMut>>>(); // the same, a value for each connection
                                                                     // Not yet: UDPServer, UnixDatagramServer, their Threading and Forking forms, DatagramRequestHandler.
}
