//! The system calls, as strace sees them, and as it makes them fail.

use std::fs;

use nix::libc::{ENOMEM, ENOSPC};
use socketserver::selectors::{Backend, Error};

use crate::kit::{ms, Folder};
use crate::support::tool;
use crate::{in_its_own_process, new, pair, told, Case, READ, SOON, WRITE};

/// What runs under strace.
pub const TRACED: &[Case] = &[
    ("waits", waits),
    ("changes_data", changes_data),
    ("registers_in_vain", registers_in_vain),
    ("waits_in_vain", waits_in_vain),
];

/// Runs the case under strace, and gives the calls of the test's thread; nothing where strace is missing.
fn trace(case: &str, backend: Backend, options: &[&str]) -> Option<Vec<String>> {
    let mut strace = tool("strace")?;
    let folder = Folder::new();
    let log = folder.path("log");
    strace.args(["-f", "-qq", "-o"]).arg(&log).args(options).arg(std::env::current_exe().unwrap());
    in_its_own_process(strace, case, backend);
    Some(fs::read_to_string(log).unwrap().lines().map(str::to_owned).collect())
}

/// As the kernel calls it: the C library has newer ones for some.
fn names(backend: Backend) -> &'static [&'static str] {
    match backend {
        Backend::Epoll => &["epoll_wait(", "epoll_pwait("],
        Backend::Poll => &["poll(", "ppoll("],
        _ => &["select(", "pselect6("],
    }
}

fn waits(backend: Backend) {
    let (a, _b) = pair();
    let mut selector = new(backend);
    selector.register(&a, READ, ()).unwrap();
    assert!(told(&mut selector, Some(ms(20))).is_empty());
}

pub fn uses_its_own_system_call(backend: Backend) {
    let Some(calls) = trace("waits", backend, &["-e", "trace=/poll|select"]) else { return };
    let since_it_was_made = || calls.iter().skip_while(|call| !call.contains("epoll_create1")); // Rust's start polls, too
    let ours = |name: &&str| since_it_was_made().any(|call| call.contains(&format!(" {name}")));
    for other in [Backend::Epoll, Backend::Poll, Backend::Select] {
        let used = names(other).iter().any(ours);
        assert_eq!(used, other == backend, "{other:?}: {calls:#?}");
    }
}

fn changes_data(backend: Backend) {
    let (a, _b) = pair();
    let mut selector = new(backend);
    selector.register(&a, READ, 0).unwrap();
    for n in 1..100 {
        assert_eq!(selector.modify(&a, READ, n).unwrap().data, n - 1);
    }
    selector.set_events(&a, READ).unwrap();
    selector.set_events(&a, WRITE).unwrap();
}

pub fn a_change_of_data_is_no_system_call(backend: Backend) {
    let Some(calls) = trace("changes_data", backend, &["-e", "trace=epoll_ctl"]) else { return };
    let acts = |act: &str| calls.iter().filter(|call| call.contains(act)).count();
    assert_eq!((acts("EPOLL_CTL_ADD"), acts("EPOLL_CTL_MOD")), (2, 1), "the waker's, ours, one change: {calls:#?}");
}

fn registers_in_vain(backend: Backend) {
    let (a, _b) = pair();
    let mut selector = new(backend);
    let refused = selector.register(&a, WRITE, ());
    let Err(Error::System { act: "register", fd: Some(_), ref source }) = refused else { panic!("{refused:?}") };
    assert_eq!(source.raw_os_error(), Some(ENOSPC));
    assert!(refused.unwrap_err().to_string().contains("fs.epoll.max_user_watches"));
    assert!(selector.is_empty());
    selector.register(&a, WRITE, ()).unwrap();
    assert_eq!(told(&mut selector, SOON).len(), 1);
}

fn waits_in_vain(backend: Backend) {
    let (a, _b) = pair();
    let mut selector = new(backend);
    selector.register(&a, WRITE, ()).unwrap();
    let failed = selector.select(SOON);
    let Err(Error::System { fd: None, ref source, .. }) = failed else { panic!("{failed:?}") };
    assert_eq!(source.raw_os_error(), Some(ENOMEM));
    assert_eq!(told(&mut selector, SOON).len(), 1, "it can be tried again");
}

/// strace counts by threads: the first `epoll_ctl` of the test's is for the waker.
pub fn what_the_system_refuses_is_an_error(backend: Backend) {
    trace("registers_in_vain", backend, &["-e", "inject=epoll_ctl:error=ENOSPC:when=2"]);
    let waits = match backend {
        Backend::Epoll => "inject=epoll_wait,epoll_pwait:error=ENOMEM:when=1",
        Backend::Poll => "inject=poll,ppoll:error=ENOMEM:when=1",
        _ => "inject=select,pselect6:error=ENOMEM:when=1",
    };
    trace("waits_in_vain", backend, &["-e", waits]);
}
