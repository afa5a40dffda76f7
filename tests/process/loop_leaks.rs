//! Nothing is left behind.

use std::cell::Cell;
use std::rc::Rc;
use std::thread;

use crate::kit::{connect, descriptors, ms, read, until};
use crate::script::{Echo, Journal, Script};
use socketserver::{factory, Reactor};

const ANY: &str = "127.0.0.1:0";

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

#[test]
fn a_reactor_leaves_nothing_behind() {
    alone!();
    let before = (descriptors(), threads());
    for run in 0..20 {
        let looped = crate::script::run(|reactor| reactor.listen_tcp(ANY, factory(|_| Echo)).unwrap());
        let addr = looped.addr;
        let clients: Vec<_> = (0..4).map(|_| thread::spawn(move || crate::kit::ask(addr, "hello"))).collect();
        clients.into_iter().for_each(|client| assert_eq!(client.join().unwrap(), "hello"));
        let _held = connect(addr);
        assert_eq!(looped.shutdown(ms(run)).failed, 0);
    }
    // The kernel's table may name a thread for a moment after its end.
    until("all is given back", || (descriptors(), threads()) == before);
    // Dropped without a shutdown, with a connection.
    let (mut reactor, lost) = (Reactor::new().unwrap(), Rc::new(Cell::new(0)));
    let ended = lost.clone();
    let build = factory(move |_| {
        let ended = ended.clone();
        Script::new(&Journal::default()).at_loss(move |_, _| ended.set(ended.get() + 1))
    });
    let port = reactor.listen_tcp(ANY, build).unwrap();
    let mut client = connect(port.local_addr().socket_addr().unwrap());
    until("it is served", || {
        reactor.turn(Some(ms(10))).unwrap();
        reactor.server().stats().active == 1
    });
    let server = reactor.server();
    drop(reactor);
    assert_eq!((lost.get(), server.stats().active, read(&mut client, &mut [0]).unwrap()), (1, 0, 0));
    drop((client, server, port));
    until("all of it is given back", || (descriptors(), threads()) == before);
}
