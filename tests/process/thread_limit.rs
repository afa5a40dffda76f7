//! No thread can be had for blocking work, nor to resolve a name. Memory for stacks is what
//! the whole process lacks.

use std::cell::RefCell;
use std::rc::Rc;

use crate::script::clients::Client;
use crate::script::Journal;
use nix::sys::resource::{getrlimit, setrlimit, Resource};
use socketserver::event_loop::BlockingError;
use socketserver::Reactor;

/// A quarter of what a stack takes is left of the address space.
fn without_room_for_a_stack<R>(act: impl FnOnce() -> R) -> R {
    let (soft, hard) = getrlimit(Resource::RLIMIT_AS).unwrap();
    let sizes = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = sizes.split_whitespace().next().unwrap().parse().unwrap();
    setrlimit(Resource::RLIMIT_AS, pages * 4096 + (512 << 10), hard).unwrap();
    let done = act();
    setrlimit(Resource::RLIMIT_AS, soft, hard).unwrap();
    done
}

#[test]
fn work_that_gets_no_thread_is_told_so_and_later_work_is_done() {
    alone!();
    let (mut reactor, journal, texts) =
        (Reactor::new().unwrap(), Journal::default(), Rc::new(RefCell::new(Vec::new())));
    let (told, failed) = (texts.clone(), texts.clone());
    without_room_for_a_stack(|| {
        reactor.context().blocking(
            || panic!("nobody does it"),
            move |_, done: Result<(), _>| {
                let error = done.unwrap_err();
                assert!(matches!(error, BlockingError::NoThread(_)), "{error:?}");
                assert!(std::error::Error::source(&error).is_some());
                told.borrow_mut().push(error.to_string());
            },
        );
        let client = Client::new(&journal).on_failure(move |cx, error| {
            failed.borrow_mut().push(error.to_string());
            cx.stop();
        });
        reactor.context().connect_tcp("localhost:80", client);
        assert!(texts.borrow().is_empty(), "never within the call");
        reactor.run().unwrap();
    });
    assert_eq!(journal.take(), "start failed:resolve stop");
    let texts = texts.take();
    let no_thread = "cannot start a thread: Resource temporarily unavailable (os error 11); the limit on threads";
    assert!(texts[0].starts_with(no_thread), "{texts:?}");
    assert!(texts[1].starts_with(&format!("cannot resolve localhost:80: {no_thread}")), "{texts:?}");
    reactor.context().blocking(
        || 7,
        |cx, seven| {
            assert_eq!(seven.unwrap(), 7);
            cx.stop();
        },
    );
    reactor.run().unwrap();
}
