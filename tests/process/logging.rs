//! A program's logger may be slow or broken: no thread of a server dies of it.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use crate::kit::{serve, strategies, Lines};
use log::{LevelFilter, Log, Metadata, Record};
use socketserver::ServerBuilder;

/// Panics at whatever a handler's end has to tell.
struct Broken;

static CALLED: AtomicUsize = AtomicUsize::new(0);

impl Log for Broken {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        if record.target().starts_with("socketserver::handler") {
            CALLED.fetch_add(1, SeqCst);
            panic!("the disk is full");
        }
    }

    fn flush(&self) {}
}

#[test]
fn a_panic_of_the_logger_is_contained() {
    alone!();
    log::set_logger(&Broken).unwrap();
    log::set_max_level(LevelFilter::Trace);
    for (name, strategy) in strategies() {
        let server = serve(ServerBuilder::new().strategy(strategy).bind("127.0.0.1:0", Lines).unwrap());
        for text in ["fail\n", "panic\n", "half"] {
            assert_eq!(server.ask(text), "", "{name}");
            assert_eq!(server.ask("fine\n"), "fine\n", "{name}");
        }
        let report = server.stop();
        assert_eq!((report.served, report.failed, report.disconnected), (3, 2, 1), "{name}: {report}");
    }
    assert_eq!(CALLED.load(SeqCst), 9);
}
