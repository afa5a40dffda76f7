//! Descriptors that were closed without being unregistered: never told, on any back end, and no harm to the others.

use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Instant;

use nix::unistd::dup2;
use socketserver::selectors::{Backend, Error, Selector};

use crate::kit::ms;
use crate::{new, pair, processor_time, told, NOW, READ, SOON, WRITE};

/// Nothing is told, and the wait is one: neither cut short nor spun through.
#[track_caller]
fn is_silent<T: Clone + std::fmt::Debug>(selector: &mut Selector<T>) {
    let start = Instant::now();
    let busy = processor_time(|| {
        let ready = selector.select(Some(ms(200))).unwrap();
        assert!(ready.is_empty(), "{ready:?}");
    });
    assert!(start.elapsed() >= ms(200));
    assert!(busy < ms(50), "{busy:?} of 200 ms");
}

pub fn a_closed_descriptor_is_never_told(backend: Backend) {
    let ((a, b), (c, d)) = (pair(), pair());
    let fd = a.as_raw_fd();
    let mut selector = new(backend);
    selector.register(&a, READ | WRITE, "closed").unwrap();
    selector.register(&c, READ, "open").unwrap();
    drop((a, b));
    is_silent(&mut selector);
    (&d).write_all(b"!").unwrap();
    assert_eq!(told(&mut selector, SOON), [("open", READ)], "the others go on");
    assert_eq!((&c).read(&mut [0; 9]).unwrap(), 1);
    is_silent(&mut selector);
    assert_eq!(selector.get_key(&fd).unwrap().data, "closed", "the key stays");
    assert_eq!(selector.unregister(&fd).unwrap().data, "closed");
}

pub fn a_duplicate_does_not_keep_a_closed_descriptor(backend: Backend) {
    let ((a, b), (c, d)) = (pair(), pair());
    let duplicate = a.try_clone().unwrap();
    let mut selector = new(backend);
    selector.register(&a, READ, "closed").unwrap();
    selector.register(&c, READ, "open").unwrap();
    drop(a);
    (&b).write_all(b"!").unwrap();
    is_silent(&mut selector);
    (&d).write_all(b"!").unwrap();
    assert_eq!(told(&mut selector, SOON), [("open", READ)]);
    assert_eq!((&duplicate).read(&mut [0; 9]).unwrap(), 1);
}

pub fn a_duplicate_is_silent_after_unregistering(backend: Backend) {
    let (a, b) = pair();
    let _duplicate = a.try_clone().unwrap();
    let fd = a.as_raw_fd();
    let mut selector = new(backend);
    selector.register(&a, READ, ()).unwrap();
    drop(a);
    selector.unregister(&fd).unwrap(); // too late for the kernel to find its entry
    (&b).write_all(b"!").unwrap();
    is_silent(&mut selector);
}

pub fn a_number_used_again_is_another_descriptor_s(backend: Backend) {
    let ((a, b), (c, d)) = (pair(), pair());
    let _duplicate = a.try_clone().unwrap();
    let mut number = OwnedFd::from(a);
    let fd = number.as_raw_fd();
    let mut selector = new(backend);
    selector.register(&number, READ, "old").unwrap();
    dup2(&c, &mut number).unwrap();
    (&b).write_all(b"to the old").unwrap();
    (&d).write_all(b"to the new").unwrap();
    is_silent(&mut selector);
    let refused = selector.register(&number, READ, "new");
    assert!(matches!(refused, Err(Error::Registered { fd: f }) if f == fd), "{refused:?}");
    assert_eq!(selector.unregister(&number).unwrap().data, "old");
    selector.register(&number, READ, "new").unwrap();
    for _ in 0..3 {
        assert_eq!(told(&mut selector, SOON), [("new", READ)]);
    }
    assert_eq!((&c).read(&mut [0; 99]).unwrap(), 10);
    is_silent(&mut selector);
}

/// The entry of the file that the number had first is still in the kernel when it is registered again.
pub fn a_number_that_comes_back_is_registered_anew(backend: Backend) {
    let ((a, b), (c, _d)) = (pair(), pair());
    let duplicate = a.try_clone().unwrap();
    let mut number = OwnedFd::from(a);
    let mut selector = new(backend);
    selector.register(&number, READ, "first").unwrap();
    dup2(&c, &mut number).unwrap();
    selector.unregister(&number).unwrap();
    dup2(&duplicate, &mut number).unwrap();
    selector.register(&number, READ, "again").unwrap();
    assert!(told(&mut selector, NOW).is_empty());
    (&b).write_all(b"!").unwrap();
    assert_eq!(told(&mut selector, SOON), [("again", READ)]);
}

/// The entry of the old one is in the kernel still, and armed.
pub fn a_late_event_of_the_old_one_is_not_told_for_the_new(backend: Backend) {
    let ((a, b), (c, d)) = (pair(), pair());
    let _duplicate = a.try_clone().unwrap();
    let mut number = OwnedFd::from(a);
    let mut selector = new(backend);
    selector.register(&number, READ, "old").unwrap();
    dup2(&c, &mut number).unwrap();
    selector.unregister(&number).unwrap();
    selector.register(&number, READ, "new").unwrap();
    (&b).write_all(b"!").unwrap();
    is_silent(&mut selector);
    (&d).write_all(b"!").unwrap();
    assert_eq!(told(&mut selector, SOON), [("new", READ)]);
}
