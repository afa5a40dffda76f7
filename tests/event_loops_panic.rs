//! A panic out of the machinery of one loop. The only foreign code there that nobody contains is the program's logger,
//! which is the whole process's: a test alone in its program.

mod kit;

use std::io::{Read, Write};
use std::time::Duration;

use kit::{expect, serve};
use socketserver::{factory, Error, EventLoops, HandlerResult, Protocol, ServerBuilder, Transport};

struct Echo;

impl Protocol for Echo {
    fn data_received(&mut self, t: &mut Transport<'_>, data: &[u8]) -> HandlerResult {
        t.request_begins(); // and it never ends
        Ok(t.write(data)?)
    }
}

/// Panics where a drain has cut connections.
struct Bomb;

impl log::Log for Bomb {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        assert!(record.target() != "socketserver::drain", "the logger cannot write");
    }

    fn flush(&self) {}
}

#[test]
fn a_panic_in_the_machinery_of_a_loop_ends_all_with_an_error() {
    log::set_boxed_logger(Box::new(Bomb)).unwrap();
    log::set_max_level(log::LevelFilter::Info);
    let builder = ServerBuilder::new().strategy(EventLoops::new(3)).drain_timeout(Duration::from_millis(10));
    let server = serve(builder.bind("127.0.0.1:0", factory(|_| Echo)).unwrap());
    let mut clients: Vec<_> = (0..6).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.write_all(b"x").unwrap();
        expect(client, "x");
    }
    server.handle.shutdown();
    let error = server.result().unwrap_err();
    assert!(matches!(error, Error::System { .. }), "{error}");
    assert!(error.to_string().ends_with("the logger cannot write"), "{error}");
    clients.iter_mut().for_each(|client| assert_eq!(client.read(&mut [0]).unwrap_or(0), 0, "closed, or reset"));
}
