//! Several loops leave nothing behind, whether they served or could not even be made.

use std::thread;

use crate::kit::{connect, descriptors, expect, threads_named, until};
use nix::sys::resource::{getrlimit, setrlimit, Resource};
use socketserver::{factory, Error, EventLoops, HandlerResult, Protocol, ServerBuilder, Transport};

struct Echo;

impl Protocol for Echo {
    fn data_received(&mut self, t: &mut Transport<'_>, data: &[u8]) -> HandlerResult {
        Ok(t.write(data)?)
    }
}

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

#[test]
fn loops_leave_nothing_behind() {
    alone!();
    let mut server = ServerBuilder::new().strategy(EventLoops::new(4)).bind("127.0.0.1:0", factory(|_| Echo)).unwrap();
    let (addr, handle) = (server.local_addr().socket_addr().unwrap(), server.handle());
    let before = (descriptors(), threads());
    for _ in 0..5 {
        thread::scope(|scope| {
            let serving = scope.spawn(|| server.serve_forever().unwrap());
            let clients: Vec<_> = (0..8).map(|_| scope.spawn(move || crate::kit::ask(addr, "hello"))).collect();
            clients.into_iter().for_each(|client| assert_eq!(client.join().unwrap(), "hello"));
            let mut held = connect(addr);
            std::io::Write::write_all(&mut held, b"held").unwrap();
            expect(&mut held, "held");
            until("the last loop has a thread", || threads_named("loop-3") == 1);
            handle.shutdown();
            assert_eq!(serving.join().unwrap().served, 9);
        });
        until("all is given back", || (descriptors(), threads()) == before);
        // the kernel's tasks go last
    }
    without_descriptors();
}

/// There are enough for the first loops and not for the last one: none begins.
fn without_descriptors() {
    let mut server = ServerBuilder::new().strategy(EventLoops::new(32)).bind("127.0.0.1:0", factory(|_| Echo)).unwrap();
    let before = (descriptors(), threads());
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    for spare in [10, 40, 60] {
        setrlimit(Resource::RLIMIT_NOFILE, (before.0 + spare) as u64, hard).unwrap();
        let error = server.serve_forever().unwrap_err();
        setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
        assert!(matches!(&error, Error::System { source, .. } if source.raw_os_error() == Some(24)), "{error}");
        assert!(error.to_string().contains("event loop"), "{error}");
        until("all is given back", || (descriptors(), threads()) == before);
    }
    let (addr, handle) = (server.local_addr().socket_addr().unwrap(), server.handle());
    let serving = thread::spawn(move || server.serve_forever().unwrap());
    assert_eq!(crate::kit::ask(addr, "as if nothing had happened"), "as if nothing had happened");
    handle.shutdown();
    assert_eq!(serving.join().unwrap().served, 1);
}
