//! What is ready: L11, L12, L15 to L17, L23, and how it is told.

use std::fs::File;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::{Duration, Instant};

use nix::unistd::{dup2, pipe};
use socketserver::selectors::Backend;

use crate::kit::ms;
use crate::{new, pair, told, NOW, READ, SOON, WRITE};

pub fn l11_tells_what_is_ready_and_was_asked_for(backend: Backend) {
    let ((a, b), (c, _d)) = (pair(), pair());
    let mut selector = new(backend);
    selector.register(&a, READ, "a").unwrap();
    selector.register(&b, WRITE, "b").unwrap();
    selector.register(&c, READ, "c").unwrap();
    assert_eq!(told(&mut selector, SOON), [("b", WRITE)]);
    (&b).write_all(b"!").unwrap();
    assert_eq!(told(&mut selector, SOON), [("a", READ), ("b", WRITE)], "a could be written to, too");
    assert_eq!((&a).read(&mut [0; 9]).unwrap(), 1);
    selector.unregister(&b).unwrap();
    assert!(told(&mut selector, NOW).is_empty());
}

pub fn l12_tells_both_events_at_once(backend: Backend) {
    let (a, b) = pair();
    let mut selector = new(backend);
    selector.register(&a, READ | WRITE, ()).unwrap();
    assert_eq!(told(&mut selector, SOON), [((), WRITE)]);
    (&b).write_all(b"!").unwrap();
    assert_eq!(told(&mut selector, SOON), [((), READ | WRITE)]);
}

pub fn l15_brings_each_message_to_its_pair(backend: Backend) {
    let pairs: Vec<_> = (0..12_u8).map(|_| pair()).collect();
    let mut selector = new(backend);
    for (n, (a, b)) in pairs.iter().enumerate() {
        selector.register(a, READ, n).unwrap();
        selector.register(b, WRITE, n).unwrap();
    }
    let (mut unsent, mut seed) = ((0..pairs.len()).collect::<Vec<_>>(), 1_usize);
    while !unsent.is_empty() {
        let ready = told(&mut selector, SOON);
        let writable: Vec<_> = ready.iter().filter(|(_, events)| *events == WRITE).map(|(n, _)| *n).collect();
        assert_eq!(writable.len(), unsent.len());
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let n = unsent.swap_remove((seed >> 33) % unsent.len());
        (&pairs[n].1).write_all(&[n as u8]).unwrap();
        selector.unregister(&pairs[n].1).unwrap();
        let ready = told(&mut selector, SOON);
        let readable: Vec<_> = ready.into_iter().filter(|(_, events)| *events == READ).map(|(n, _)| n).collect();
        assert_eq!(readable, [n]);
        let mut message = [255; 2];
        assert_eq!((&pairs[n].0).read(&mut message).unwrap(), 1);
        assert_eq!(usize::from(message[0]), n);
    }
}

pub fn l16_tells_nothing_where_nothing_is_registered(backend: Backend) {
    assert!(new::<()>(backend).select(NOW).unwrap().is_empty());
}

/// How long it waits in vain.
fn waited(backend: Backend, registered: bool, timeout: Duration) -> Duration {
    let (a, _b) = pair();
    let mut selector = new(backend);
    if registered {
        selector.register(&a, READ, ()).unwrap();
    }
    let start = Instant::now();
    assert!(selector.select(Some(timeout)).unwrap().is_empty());
    start.elapsed()
}

pub fn l17_waits_as_long_as_it_is_told_to(backend: Backend) {
    assert!(waited(backend, true, Duration::ZERO) < ms(5000));
    let times = [1, 400, 999, 1000, 1001, 2500, 30_000, 100_000].map(Duration::from_micros);
    for timeout in times {
        let fastest = (0..5).map(|_| waited(backend, true, timeout)).inspect(|took| assert!(*took >= timeout)).min();
        assert!(fastest < Some((timeout + ms(1)) * 10), "{timeout:?} became {fastest:?}");
    }
}

pub fn l23_waits_although_nothing_is_registered(backend: Backend) {
    let took = waited(backend, false, ms(50));
    assert!(ms(50) <= took && took < ms(5000), "{took:?}");
}

pub fn is_level_triggered(backend: Backend) {
    let (a, b) = pair();
    let mut selector = new(backend);
    selector.register(&a, READ, ()).unwrap();
    (&b).write_all(b"two").unwrap();
    for _ in 0..3 {
        assert_eq!(told(&mut selector, SOON), [((), READ)]);
    }
    assert_eq!((&a).read(&mut [0; 2]).unwrap(), 2);
    assert_eq!(told(&mut selector, SOON), [((), READ)], "there is a byte left");
    assert_eq!((&a).read(&mut [0; 2]).unwrap(), 1);
    assert!(told(&mut selector, NOW).is_empty());
    (&b).write_all(b"!").unwrap();
    assert_eq!(told(&mut selector, SOON), [((), READ)]);
}

pub fn shows_a_hang_up_as_what_was_asked_for(backend: Backend) {
    for asked in [READ, WRITE, READ | WRITE] {
        let (a, b) = pair();
        a.shutdown(Shutdown::Both).unwrap();
        let mut selector = new(backend);
        selector.register(&a, asked, ()).unwrap();
        assert_eq!(told(&mut selector, SOON), [((), asked)], "a connection without an end");
        drop(b);
        assert_eq!(told(&mut selector, SOON), [((), asked)], "nor a peer");
    }
    let ((end, into), (from, full)) = (pipe().unwrap(), pipe().unwrap());
    let mut full = File::from(full);
    full.write_all(&vec![0; 65536]).unwrap();
    let mut selector = new(backend);
    selector.register(&end, READ, "no writer").unwrap();
    selector.register(&full, WRITE, "no reader").unwrap();
    assert!(told(&mut selector, NOW).is_empty());
    drop((into, from));
    let mut ready = told(&mut selector, SOON);
    ready.sort_by_key(|(data, _)| *data);
    assert_eq!(ready, [("no reader", WRITE), ("no writer", READ)]);
}

pub fn fills_a_list_of_the_caller_s(backend: Backend) {
    struct Unclonable(&'static str);
    let ((a, b), (c, d)) = (pair(), pair());
    let (mut selector, mut ready) = (new(backend), Vec::new());
    selector.register(&a, READ, Unclonable("a")).unwrap();
    selector.register(&c, READ, Unclonable("c")).unwrap();
    (&b).write_all(b"!").unwrap();
    selector.select_into(&mut ready, SOON).unwrap();
    let names: Vec<_> = ready.iter().map(|r| (selector.key(r).unwrap().data.0, r.events)).collect();
    assert_eq!(names, [("a", READ)]);
    (&d).write_all(b"!").unwrap();
    selector.select_into(&mut ready, SOON).unwrap();
    let size = ready.capacity();
    assert_eq!(ready.len(), 2);
    for one in &ready {
        selector.unregister(one).unwrap();
    }
    selector.select_into(&mut ready, NOW).unwrap();
    assert!(ready.is_empty() && ready.capacity() == size, "what was in it goes, its memory stays");
}

/// The first that is served closes the second, and another descriptor gets its number.
pub fn knows_a_key_of_before_in_the_same_pass(backend: Backend) {
    let ((a, b), (c, _d)) = (pair(), pair());
    let mut number = std::os::fd::OwnedFd::from(a);
    let (mut selector, mut ready) = (new(backend), Vec::new());
    selector.register(&number, READ, "old").unwrap();
    (&b).write_all(b"!").unwrap();
    selector.select_into(&mut ready, SOON).unwrap();
    let (stale, copies) = (ready[0], selector.select(SOON).unwrap());
    let old = &copies[0].0;
    assert!(selector.is_current(old) && selector.key(&stale) == Some(old));
    selector.unregister(&number).unwrap();
    assert!(!selector.is_current(old) && selector.key(&stale).is_none());
    dup2(&c, &mut number).unwrap();
    selector.register(&number, READ, "new").unwrap();
    assert!(!selector.is_current(old) && selector.key(&stale).is_none());
    assert!(told(&mut selector, NOW).is_empty(), "the new one has nothing to read");
}
