//! Many descriptors, and large numbers: L20. Each case has the process to itself, since it changes its limits.

use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use nix::sys::resource::{getrlimit, setrlimit, Resource};
use socketserver::selectors::{Backend, Error, Selector};

use crate::{new, pair, told, NOW, READ, SOON, WRITE};

/// As many as Python's suite takes, where the process may have them.
const MOST: u64 = 1 << 16;

fn raise_the_limit() -> usize {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let limit = hard.min(MOST);
    setrlimit(Resource::RLIMIT_NOFILE, limit, hard).unwrap();
    limit as usize
}

/// Copies of one end, and the other end.
fn copies(many: usize) -> (Vec<OwnedFd>, UnixStream) {
    let (a, b) = pair();
    let mut copies: Vec<OwnedFd> = (1..many).map(|_| a.try_clone().unwrap().into()).collect();
    copies.insert(0, a.into()); // so that no lower number becomes free
    (copies, b)
}

pub fn l20_takes_as_many_as_the_process_may_have(backend: Backend) {
    let limit = raise_the_limit();
    assert!(limit > 2000, "raise the hard limit (ulimit -Hn)");
    let mut selector = new(backend);
    let (many, other) = copies(limit - 30);
    let fits = |fd: &OwnedFd| backend != Backend::Select || fd.as_raw_fd() < 1024;
    for fd in &many {
        match selector.register(fd, READ | WRITE, fd.as_raw_fd()) {
            Err(Error::TooLarge { fd: f }) => assert!(f == fd.as_raw_fd() && !fits(fd)),
            done => assert!(done.is_ok() && fits(fd), "{done:?}"),
        }
    }
    let taken = many.iter().filter(|fd| fits(fd)).count();
    assert_eq!(selector.len(), taken);
    tells_all(&mut selector, taken);
    for fd in many.iter().filter(|fd| fits(fd)) {
        selector.set_events(fd, READ).unwrap();
    }
    assert!(told(&mut selector, NOW).is_empty());
    (&other).write_all(b"!").unwrap();
    tells_all(&mut selector, taken);
    for fd in many.iter().filter(|fd| fits(fd)) {
        assert_eq!(selector.unregister(fd).unwrap().data, fd.as_raw_fd());
    }
    assert!(told(&mut selector, NOW).is_empty());
}

/// One wait may tell a part; nobody is passed over for long.
fn tells_all(selector: &mut Selector<i32>, many: usize) {
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..=many / 1000 {
        seen.extend(told(selector, SOON).into_iter().map(|(fd, _)| fd));
    }
    assert_eq!(seen.len(), many);
}

pub fn a16_numbers_from_1024_on(backend: Backend) {
    raise_the_limit();
    let mut selector = new(backend);
    let (copies, other) = copies(1100);
    let last = copies.last().unwrap();
    let fd = last.as_raw_fd();
    assert!(fd >= 1024);
    let registered = selector.register(last, READ, ());
    if backend == Backend::Select {
        assert!(matches!(registered, Err(Error::TooLarge { fd: f }) if f == fd), "{registered:?}");
        let text = registered.unwrap_err().to_string();
        assert!(text.contains(&format!("descriptor {fd}")) && text.contains("Backend::Epoll"), "{text}");
        assert!(selector.is_empty());
        let no_room = Selector::<()>::with_backend(backend); // its own would be too large
        assert!(matches!(no_room, Err(Error::TooLarge { .. })), "{no_room:?}");
    } else {
        registered.unwrap();
        (&other).write_all(b"!").unwrap();
        assert_eq!(told(&mut selector, SOON), [((), READ)]);
    }
}
