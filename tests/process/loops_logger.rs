//! A logger that panics ends no loop of several.

use std::io::Write;
use std::time::Duration;

use crate::kit::{expect, read, serve};
use socketserver::{factory, EventLoops, HandlerResult, Protocol, ServerBuilder, Transport};

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
fn a_logger_that_panics_ends_no_loop() {
    alone!();
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
    let report = server.result().unwrap();
    assert_eq!((report.accepted, report.forced), (6, 6), "{report}");
    clients.iter_mut().for_each(|client| assert_eq!(read(client, &mut [0]).unwrap_or(0), 0, "closed, or reset"));
}
