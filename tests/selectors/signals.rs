//! Signals: L18 and L19. Each is sent to the thread that waits, so it disturbs no other test.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use nix::sys::pthread::{pthread_kill, pthread_self};
use nix::sys::signal::Signal;
use signal_hook::low_level;
use socketserver::selectors::Backend;

use crate::kit::ms;
use crate::wakers::is_woken;
use crate::{new, pair, READ};

/// Runs the act while its thread is hit by a signal every few milliseconds, each handled by `handler`.
#[allow(unsafe_code)]
fn under_fire(handler: impl Fn() + Send + Sync + 'static, act: impl FnOnce()) {
    // SAFETY: the handlers given here only count, or wake, which is async-signal-safe.
    let id = unsafe { low_level::register(Signal::SIGUSR1 as i32, handler) }.unwrap();
    let (target, over) = (pthread_self(), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(SeqCst) {
                thread::sleep(ms(5));
                pthread_kill(target, Signal::SIGUSR1).unwrap();
            }
        });
        let _cease_fire = OnDrop(&over); // in a failing test as well
        act();
    });
    low_level::unregister(id);
}

struct OnDrop<'a>(&'a AtomicBool);

impl Drop for OnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

/// Python's handler raises; one that cannot wakes.
pub fn l18_a_handler_that_wakes_ends_the_wait(backend: Backend) {
    let (a, _b) = pair();
    let mut selector = new(backend);
    selector.register(&a, READ, ()).unwrap();
    let waker = selector.waker();
    under_fire(move || waker.wake(), || is_woken(&mut selector));
}

pub fn l19_a_handler_that_does_not_leaves_the_time_as_it_was(backend: Backend) {
    let (a, _b) = pair();
    let mut selector = new(backend);
    selector.register(&a, READ, ()).unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    let counter = count.clone();
    let handler = move || {
        counter.fetch_add(1, SeqCst);
    };
    under_fire(handler, || {
        let start = Instant::now();
        assert!(selector.select(Some(ms(300))).unwrap().is_empty());
        let took = start.elapsed();
        assert!(ms(300) <= took && took < ms(3000), "{took:?}");
        assert!(count.load(SeqCst) > 0, "no signal came in between");
    });
}
