//! Ending a wait from elsewhere.

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use socketserver::selectors::{Backend, Selector, Waker};

use crate::kit::{ms, switches, until};
use crate::{new, pair, told, NOW, READ, SOON};

/// Runs the act on a thread of its own, and goes on once that thread waits.
fn waiting<R: Send>(act: impl FnOnce() -> R + Send, then: impl FnOnce()) -> R {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let name = format!("waits-{}", COUNT.fetch_add(1, SeqCst));
    thread::scope(|scope| {
        let thread = thread::Builder::new().name(name.clone()).spawn_scoped(scope, act).unwrap();
        until("it waits", || switches(&name).is_some_and(|n| n > 0));
        thread::sleep(ms(20)); // most likely in the system call by now; if not, the outcome is the same
        then();
        thread.join().unwrap()
    })
}

/// A wake that is lost fails, instead of a wait for ever.
#[track_caller]
pub fn is_woken<T: Clone + std::fmt::Debug>(selector: &mut Selector<T>) {
    let start = Instant::now();
    let ready = selector.select(SOON).unwrap();
    assert!(ready.is_empty() && start.elapsed() < SOON.unwrap(), "{ready:?} after {:?}", start.elapsed());
}

pub fn wakes_from_another_thread(backend: Backend) {
    let (a, _b) = pair();
    let mut selector = new(backend);
    selector.register(&a, READ, ()).unwrap();
    let waker = selector.waker();
    waiting(|| is_woken(&mut selector), || waker.wake());
    assert!(told(&mut selector, NOW).is_empty());
}

pub fn wakes_the_next_select(backend: Backend) {
    let mut selector = new::<()>(backend);
    selector.waker().wake();
    is_woken(&mut selector);
    let start = Instant::now();
    selector.select(Some(ms(30))).unwrap();
    assert!(start.elapsed() >= ms(30), "one wake is one wake");
}

pub fn counts_as_one(backend: Backend) {
    let mut selector = new::<()>(backend);
    let waker = selector.waker();
    (0..1000).for_each(|_| waker.clone().wake());
    is_woken(&mut selector);
    let start = Instant::now();
    selector.select(Some(ms(30))).unwrap();
    assert!(start.elapsed() >= ms(30));
}

pub fn tells_what_is_ready_besides(backend: Backend) {
    let (a, b) = pair();
    let mut selector = new(backend);
    selector.register(&a, READ, "a").unwrap();
    (&b).write_all(b"!").unwrap();
    selector.waker().wake();
    let mut ready = told(&mut selector, SOON);
    if ready.is_empty() {
        ready = told(&mut selector, SOON); // the two came apart
    }
    assert_eq!(ready, [("a", READ)]);
}

pub fn waits_for_ever_and_wakes(backend: Backend) {
    for long in [None, Some(Duration::MAX), Some(Duration::from_secs(u64::from(u32::MAX)))] {
        let mut selector = new::<()>(backend);
        let waker = selector.waker();
        assert!(waiting(|| selector.select(long).unwrap(), || waker.wake()).is_empty());
    }
}

pub fn outlives_its_selector(backend: Backend) {
    let waker: Waker = new::<()>(backend).waker();
    let mut other = new::<()>(backend);
    waker.wake();
    let start = Instant::now();
    other.select(Some(ms(20))).unwrap();
    assert!(start.elapsed() >= ms(20));
}

pub fn no_wake_is_lost(backend: Backend) {
    let mut selector = new::<()>(backend);
    let (waker, sent) = (selector.waker(), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..5000 {
                    sent.fetch_add(1, SeqCst);
                    waker.wake();
                }
            });
        }
        while sent.load(SeqCst) < 10_000 {
            is_woken(&mut selector);
        }
    });
}

pub fn moves_to_another_thread(backend: Backend) {
    fn is_send<T: Send>(_: &T) {}
    fn is_shared<T: Clone + Send + Sync>(_: &T) {}
    let (a, b) = pair();
    let mut selector: Selector<usize> = new(backend);
    is_send(&selector);
    is_shared(&selector.waker());
    selector.register(&a, READ, 3).unwrap();
    let other = thread::spawn(move || told(&mut selector, SOON));
    (&b).write_all(b"!").unwrap();
    assert_eq!(other.join().unwrap(), [(3, READ)]);
}
