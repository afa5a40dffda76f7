//! Attempts over real sockets, by the manual clock.

use std::cell::RefCell;
use std::net::{TcpListener, TcpStream};
use std::time::Instant;

use super::*;
use crate::event_loop::state::context::Context;
use crate::event_loop::state::protocol::Protocol;
use crate::event_loop::test_loop::TestLoop;
use crate::event_loop::Peer;

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);

/// Notes what has failed, and when.
struct Failing(Rc<RefCell<Vec<String>>>);

impl Factory for Failing {
    fn build_protocol(&self, _: &mut Context<'_>, _: &Peer) -> Option<Box<dyn Protocol>> {
        None
    }

    fn connection_failed(&self, _: &mut Context<'_>, error: &ConnectError) {
        self.0.borrow_mut().push(error.to_string());
    }
}

/// A server that answers no call: its queue is full, and it does not accept.
fn black_hole() -> (TcpListener, TcpStream, Addr) {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    nix::sys::socket::listen(&server, nix::sys::socket::Backlog::new(0).unwrap()).unwrap();
    let addr = server.local_addr().unwrap();
    (server, TcpStream::connect(addr).unwrap(), Addr::Ip(addr))
}

fn current(test: &mut TestLoop, connector: Connector) -> Option<Addr> {
    test.act(|cx| cx.state.clients.attempt(connector).and_then(|attempt| attempt.current.clone()))
}

/// Turns until another address is tried, without time passing.
fn next_of(test: &mut TestLoop, connector: Connector, last: &Addr) -> Option<Addr> {
    let since = Instant::now();
    while current(test, connector).as_ref() == Some(last) {
        assert!(since.elapsed() < 30 * SECOND, "{last} is still being tried");
    }
    current(test, connector)
}

#[test]
fn several_addresses_of_one_name_share_one_timeout() {
    let (mut test, told) = (TestLoop::new().unwrap(), Rc::new(RefCell::new(Vec::new())));
    test.reactor().state.clients.script = None; // real sockets
    let holes = [(); 3].map(|()| black_hole());
    let [(.., first), (.., second), (.., third)] = &holes;
    let refusing = Addr::Ip(TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap());
    let factory = Failing(told.clone());
    let connector = test.act(|cx| cx.connect(Connect::to(first.socket_addr().unwrap()), factory));
    // As if the name had been resolved now: to four addresses, each with 7.5 s of 30.
    let found = [first, &refusing, second, third].map(Addr::clone);
    test.act(|cx| cx.state.try_addresses(connector, found.into()));
    test.advance(7500 * MS - MS);
    assert_eq!(current(&mut test, connector).as_ref(), Some(first));
    test.advance(MS);
    // The one that refuses at once leaves its share to the others: each has half of 22.5 s.
    assert_eq!(next_of(&mut test, connector, &refusing).as_ref(), Some(second));
    test.advance(11_250 * MS - MS);
    assert_eq!(current(&mut test, connector).as_ref(), Some(second));
    test.advance(MS);
    assert_eq!(current(&mut test, connector).as_ref(), Some(third));
    test.advance(11_250 * MS - MS);
    assert!(told.borrow().is_empty());
    test.advance(MS);
    let told = told.take().join("\n");
    assert!(told.starts_with(&format!("cannot connect to {first}: no answer within 30s; ")), "{told}");
    let before = [(first, "timed out"), (&refusing, "Connection refused (os error 111)"), (second, "timed out")];
    let before = before.map(|(addr, why)| format!("; before that {addr}: {why}")).concat();
    assert!(told.ends_with(&before), "{told}");
    assert_eq!(test.timers(), 0);
}
