//! What is registered: L1 to L10, L13, L14, L21, L22.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::panic::catch_unwind;

use nix::libc::{EBADF, O_PATH};
use nix::unistd::dup2;
use socketserver::selectors::{Backend, Error, Events, Selector};

use crate::kit::descriptors;
use crate::{new, pair, told, NOW, READ, SOON, WRITE};

pub fn l1_registers_once_and_for_something(backend: Backend) {
    let (a, b) = pair();
    let mut selector = new(backend);
    selector.register(&a, READ, "a").unwrap();
    let key = *selector.get_key(&a).unwrap();
    assert_eq!((key.fd, key.events, key.data), (a.as_raw_fd(), READ, "a"));

    let fd = b.as_raw_fd();
    let refused = selector.register(&b, Events::empty(), "b");
    assert!(matches!(refused, Err(Error::NoEvents { fd: f }) if f == fd), "{refused:?}");
    assert!(selector.get_key(&b).is_none());

    for again in [selector.register(&a, WRITE, "again"), selector.register(&a.as_fd(), READ, "through another")] {
        assert!(matches!(again, Err(Error::Registered { fd }) if fd == a.as_raw_fd()), "{again:?}");
    }
    assert_eq!(selector.get_key(&a), Some(&key), "as it was");
    let duplicate = a.try_clone().unwrap();
    selector.register(&duplicate, READ, "a duplicate").unwrap();
    (&b).write_all(b"!").unwrap();
    assert_eq!(told(&mut selector, SOON).len(), 2);
}

pub fn l2_unregisters_once(backend: Backend) {
    let (a, b) = pair();
    let mut selector = new(backend);
    selector.register(&a, READ, "a".to_owned()).unwrap();
    (&b).write_all(b"!").unwrap();
    let key = selector.unregister(&a).unwrap();
    assert_eq!((key.fd, key.events, key.data.as_str()), (a.as_raw_fd(), READ, "a"));
    assert!(told(&mut selector, NOW).is_empty());
    for unknown in [a.as_raw_fd(), b.as_raw_fd(), -1, 1 << 30] {
        let refused = selector.unregister(&unknown);
        assert!(matches!(refused, Err(Error::NotRegistered { fd }) if fd == unknown), "{refused:?}");
    }
}

pub fn l3_unregisters_after_a_close(backend: Backend) {
    let (a, b) = pair();
    let (fd_a, fd_b) = (a.as_raw_fd(), b.as_raw_fd());
    let mut selector = new(backend);
    selector.register(&a, READ, 1).unwrap();
    selector.register(&b, WRITE, 2).unwrap();
    drop((a, b));
    assert_eq!(selector.unregister(&fd_a).unwrap().data, 1);
    assert_eq!(selector.unregister(&fd_b).unwrap().data, 2);
    assert!(selector.is_empty());
}

pub fn l4_unregisters_after_a_close_and_another_use(backend: Backend) {
    let ((a, _b), (c, d)) = (pair(), pair());
    let mut number = OwnedFd::from(a);
    let mut selector = new(backend);
    selector.register(&number, READ, "old").unwrap();
    dup2(&c, &mut number).unwrap(); // closed, and taken by another, in one step
    assert_eq!(selector.unregister(&number).unwrap().data, "old");
    selector.register(&number, READ, "new").unwrap();
    (&d).write_all(b"!").unwrap();
    assert_eq!(told(&mut selector, SOON), [("new", READ)]);
}

pub fn l5_unregisters_by_key_after_its_owner_went(backend: Backend) {
    let (a, _b) = pair();
    let mut selector = new(backend);
    selector.register(&a, READ, ()).unwrap();
    let key = *selector.get_key(&a).unwrap();
    drop(a);
    assert_eq!(selector.unregister(&key).unwrap(), key);
    assert!(selector.unregister(&key).is_err());
}

pub fn l6_modifies_events_and_data(backend: Backend) {
    let (a, b) = pair();
    let mut selector = new(backend);
    selector.register(&a, READ, "1").unwrap();
    assert!(told(&mut selector, NOW).is_empty());
    let before = selector.modify(&a, WRITE, "2").unwrap();
    assert_eq!((before.fd, before.events, before.data), (a.as_raw_fd(), READ, "1"));
    assert_eq!(told(&mut selector, SOON), [("2", WRITE)]);
    selector.set_events(&a, READ | WRITE).unwrap();
    *selector.data_mut(&a).unwrap() = "3";
    (&b).write_all(b"!").unwrap();
    assert_eq!(told(&mut selector, SOON), [("3", READ | WRITE)]);

    assert!(matches!(selector.set_events(&a, Events::empty()), Err(Error::NoEvents { .. })));
    assert_eq!(told(&mut selector, SOON), [("3", READ | WRITE)], "an empty change changes nothing");
    let unknown = b.as_raw_fd();
    assert!(matches!(selector.modify(&b, READ, ""), Err(Error::NotRegistered { fd }) if fd == unknown));
    assert!(matches!(selector.set_events(&b, READ), Err(Error::NotRegistered { fd }) if fd == unknown));
    assert!(selector.data_mut(&b).is_none());
}

pub fn l7_a_failed_change_leaves_it_unregistered(backend: Backend) {
    let (a, b) = pair();
    let duplicate = a.try_clone().unwrap(); // the kernel may keep its entry for as long
    let mut number = OwnedFd::from(a);
    let fd = number.as_raw_fd();
    let mut selector = new(backend);
    selector.register(&number, READ, "old").unwrap();
    dup2(&b, &mut number).unwrap();
    selector.modify(&fd, READ, "new data needs no system call, so it cannot fail").unwrap();
    let failed = selector.modify(&fd, WRITE, "new");
    assert!(matches!(failed, Err(Error::Closed { fd: f }) if f == fd), "{failed:?}");
    assert!(selector.get_key(&fd).is_none() && selector.is_empty());
    assert!(matches!(selector.set_events(&fd, READ), Err(Error::NotRegistered { .. })));

    selector.register(&duplicate, READ, "the same number or another").unwrap();
    drop(duplicate);
    selector.select(NOW).unwrap(); // may find out
    let left = selector.keys().next().unwrap().fd;
    assert!(matches!(selector.set_events(&left, WRITE), Err(Error::Closed { .. })));
    assert!(selector.is_empty());
}

/// Alone: it counts the descriptors of the process.
pub fn l8_a_dropped_selector_leaves_nothing_behind(backend: Backend) {
    let (a, _b) = pair();
    let before = descriptors();
    for _ in 0..100 {
        let mut selector = new(backend);
        selector.register(&a, READ, ()).unwrap();
        selector.select(NOW).unwrap();
        assert_eq!(descriptors(), before + 2, "as the documentation has it");
    }
    assert_eq!(descriptors(), before);
    a.peer_addr().unwrap(); // what was registered is still open
}

/// Alone: as L8.
pub fn l13_the_end_of_its_scope_ends_it_in_a_panic_too(backend: Backend) {
    let before = descriptors();
    let panicked = catch_unwind(|| {
        let _selector: Selector<()> = new(backend);
        panic!("on purpose");
    });
    assert!(panicked.is_err());
    assert_eq!(descriptors(), before);
}

pub fn l9_finds_keys(backend: Backend) {
    let (a, b) = pair();
    let mut selector = new(backend);
    selector.register(&a, READ | WRITE, 7).unwrap();
    let key = *selector.get_key(&a.as_raw_fd()).unwrap();
    assert_eq!((key.fd, key.events, key.data), (a.as_raw_fd(), READ | WRITE, 7));
    assert!(selector.is_current(&key));
    assert!(selector.get_key(&b).is_none() && selector.get_key(&-1).is_none());
}

pub fn l10_lists_keys_as_they_are_now(backend: Backend) {
    let mut selector = new(backend);
    assert!(selector.is_empty() && selector.keys().next().is_none());
    let (a, b) = pair();
    selector.register(&b, READ, 'b').unwrap();
    selector.register(&a, WRITE, 'a').unwrap();
    let mut listed: Vec<_> = selector.keys().map(|key| (key.fd, key.events, key.data)).collect();
    assert!(listed.windows(2).all(|two| two[0].0 < two[1].0), "in order: {listed:?}");
    listed.sort_by_key(|key| key.2);
    assert_eq!(listed, [(a.as_raw_fd(), WRITE, 'a'), (b.as_raw_fd(), READ, 'b')]);
    assert_eq!(selector.len(), 2);
    selector.unregister(&a).unwrap();
    selector.modify(&b, READ | WRITE, 'c').unwrap();
    assert_eq!(selector.keys().map(|k| (k.fd, k.data)).collect::<Vec<_>>(), [(b.as_raw_fd(), 'c')]);
}

pub fn l14_lends_its_epoll_descriptor(backend: Backend) {
    let (a, b) = pair();
    let mut inner = new(backend);
    inner.register(&a, READ, ()).unwrap();
    let Some(epoll) = inner.epoll_fd() else { return assert_ne!(backend, Backend::Epoll) };
    assert_eq!(backend, Backend::Epoll);
    let mut outer = new(backend);
    outer.register(&epoll, READ, "inner").unwrap();
    assert!(told(&mut outer, NOW).is_empty());
    for _ in 0..2 {
        (&b).write_all(b"!").unwrap();
        assert_eq!(told(&mut outer, SOON), [("inner", READ)]);
        assert_eq!(told(&mut inner, NOW).len(), 1);
    }
    inner.unregister(&a).unwrap();
    assert!(told(&mut outer, NOW).is_empty());
}

pub fn l21_refuses_what_cannot_be_waited_for(backend: Backend) {
    let mut selector = new(backend);
    for path in [env!("CARGO_MANIFEST_DIR"), concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"), "/dev/null"] {
        let file = File::open(path).unwrap();
        for events in [READ, WRITE, READ | WRITE] {
            let refused = selector.register(&file, events, ());
            let fd = file.as_raw_fd();
            assert!(matches!(refused, Err(Error::NotPollable { fd: f }) if f == fd), "{path}: {refused:?}");
            assert!(selector.get_key(&file).is_none());
        }
    }
    assert!(selector.is_empty() && selector.select(NOW).unwrap().is_empty());
}

/// Safe code has no descriptor that is not open, but one that is good for nothing.
pub fn l22_refuses_a_bad_descriptor(backend: Backend) {
    let bad = OpenOptions::new().read(true).custom_flags(O_PATH).open("/dev/tty").unwrap();
    let mut selector = new(backend);
    let refused = selector.register(&bad, READ, ());
    let Err(Error::System { act: "register", fd: Some(fd), source }) = refused else { panic!("{refused:?}") };
    assert_eq!((fd, source.raw_os_error()), (bad.as_raw_fd(), Some(EBADF)));
    assert!(selector.get_key(&bad).is_none() && selector.is_empty());
}

pub fn errors_name_the_descriptor_and_the_way_out(backend: Backend) {
    use io::ErrorKind as Kind;
    let (a, b) = pair();
    let file = File::open("/dev/null").unwrap();
    let bad = OpenOptions::new().read(true).custom_flags(O_PATH).open("/dev/tty").unwrap();
    let mut selector = new(backend);
    selector.register(&a, READ, ()).unwrap();
    let bad_kind = io::Error::from_raw_os_error(EBADF).kind();
    let cases = [
        (selector.register(&a, READ, ()), a.as_raw_fd(), Kind::AlreadyExists, "unregister it first"),
        (selector.register(&b, Events::empty(), ()), b.as_raw_fd(), Kind::InvalidInput, "READ or WRITE"),
        (selector.set_events(&b, READ), b.as_raw_fd(), Kind::NotFound, "register it first"),
        (selector.register(&file, READ, ()), file.as_raw_fd(), Kind::Unsupported, "(os error 1)"),
        (selector.register(&bad, READ, ()), bad.as_raw_fd(), bad_kind, "(os error 9); it is not open"),
    ];
    for (refused, fd, kind, hint) in cases {
        let e = refused.unwrap_err();
        let text = e.to_string();
        assert!(text.contains(&format!("descriptor {fd}")) && text.contains(hint) && !text.contains('\n'), "{text}");
        let e = io::Error::from(e);
        assert_eq!((e.kind(), e.to_string()), (kind, text));
    }
}
