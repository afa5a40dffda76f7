//! SIGPIPE at its default action, as many command-line programs set it: a write to a peer that is gone must not end the
//! process.

use std::io::{IoSlice, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd;

use nix::sys::signal::{sigaction, SaFlags, SigAction, SigHandler, SigSet, Signal};
use nix::sys::socket::{setsockopt, sockopt};
use socketserver::strategy::ServingStrategy;
use socketserver::testing::TestServer;
use socketserver::{
    factory, handler, Connection, EventLoop, HandlerResult, Protocol, Sequential, ServerBuilder, ThreadPool, Threading,
    Transport,
};

/// Writes until the peer's end is met, in every way there is.
fn much(conn: &mut Connection) -> HandlerResult {
    let (part, _) = (vec![b'x'; 32 << 10], conn.next_request()?);
    let writer = conn.writer()?;
    for _ in 0..200 {
        let _ = writer.send(&part[..100]);
        let _ = conn.write_vectored(&[IoSlice::new(&part), IoSlice::new(&part)])?;
        conn.flush()?;
    }
    Ok(())
}

struct Much;

impl Protocol for Much {
    fn data_received(&mut self, transport: &mut Transport<'_>, _data: &[u8]) -> HandlerResult {
        let part = vec![b'x'; 32 << 10];
        for _ in 0..100 {
            transport.write(&part)?;
        }
        Ok(())
    }
}

fn ask_and_vanish(server: &TestServer) {
    for _ in 0..20 {
        let mut stream = TcpStream::connect(server.addr()).unwrap();
        stream.write_all(b"go\n").unwrap();
        // After an end a reset is EPIPE; without one it would be ECONNRESET, which raises no signal.
        stream.shutdown(Shutdown::Write).unwrap();
        let at_once = nix::libc::linger { l_onoff: 1, l_linger: 0 };
        setsockopt(&stream.as_fd(), sockopt::Linger, &at_once).unwrap();
    }
}

#[test]
#[allow(unsafe_code)]
fn p14_a_peer_that_is_gone_ends_no_process() {
    alone!();
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    // SAFETY: the default action runs no code.
    unsafe { sigaction(Signal::SIGPIPE, &default) }.unwrap();
    let strategies: [Box<dyn ServingStrategy>; 3] =
        [Box::new(Sequential), Box::new(Threading::new()), Box::new(ThreadPool::new(4))];
    for strategy in strategies {
        let server = TestServer::with(ServerBuilder::new().strategy(strategy), handler(much));
        ask_and_vanish(&server);
        assert_eq!(server.stop().accepted, 20);
    }
    let server = TestServer::with(ServerBuilder::new().strategy(EventLoop::new()), factory(|_| Much));
    ask_and_vanish(&server);
    assert_eq!(server.stop().accepted, 20);
}
