//! What goes over: sockets, their files and locks, the place with the service manager.

use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::process::Command;

use super::{is_gone, master, signal, successor_of, STRATEGIES};
use crate::kit::{Folder, LONG};
use crate::support::{example, procfs, uninterrupted, until, Client, Server, AT_ONCE};

#[test]
fn the_new_process_serves_the_same_address_and_the_old_one_spares_who_has_not_spoken() {
    // `Sequential` restarts between two connections: it has no thread for it beside the client.
    for strategy in STRATEGIES.into_iter().filter(|strategy| *strategy != "sequential") {
        let args = ["--strategy", strategy, "--workers", "2", "--drain", "60000"];
        let mut old = Server::start("torture_server", &args);
        let mut mute = old.connect();
        until("the server accepts", || old.queued() == 0);
        old.signal("USR2");
        let new = successor_of(old.pid(), old.addr());
        assert_eq!(mute.ask("MASTER"), old.pid().to_string(), "{strategy}");
        assert_eq!(mute.rest(), "", "{strategy}");
        old.ended().well_within(AT_ONCE);
        old.until_logged(&format!("process {new} serves now, and this one drains"));
        assert_eq!(master(old.addr()), new, "{strategy}");
        signal("TERM", new);
        until("the new process ends", || is_gone(new));
    }
}

#[test]
fn a_signal_to_the_whole_group_restarts_and_ends_no_worker() {
    for strategy in ["forking", "preforking"] {
        let mut old = Server::start("torture_server", &["--strategy", strategy, "--workers", "2"]);
        let mut busy = old.connect();
        busy.send_and_see_it_taken("SLEEP 300");
        assert!(Command::new("kill")
            .args(["-s", "USR2", "--", &format!("-{}", old.pid())])
            .status()
            .unwrap()
            .success());
        assert_eq!(busy.line(), "slept", "{strategy}");
        successor_of(old.pid(), old.addr());
        drop(busy);
        old.ended().well_within(AT_ONCE);
    }
}

#[test]
fn the_file_of_a_unix_socket_and_its_lock_go_over() {
    for strategy in ["threading", "preforking", "event-loop"] {
        let folder = Folder::new();
        let (path, lock) = (folder.path("s"), folder.path("s.lock"));
        let addr = format!("unix:{}", path.display());
        let mut old = Server::start_at(&addr, "torture_server", &["--strategy", strategy, "--workers", "2"]);
        let files = || [&path, &lock].map(|file| fs::metadata(file).map(|file| file.ino()).ok());
        let before = files();
        let mut new = old.pid();
        for generation in 0..3 {
            signal("USR2", new);
            let former = new;
            new = successor_of(former, &addr);
            until("the old process ends", || is_gone(former) || (generation == 0 && !old.is_running()));
            assert_eq!(files(), before, "{strategy}: they stay");
        }
        let second = Command::new(example("torture_server")).arg(&addr).output().unwrap();
        assert!(String::from_utf8_lossy(&second.stderr).contains("another program listens there"), "{strategy}");
        signal("TERM", new);
        until("the last process ends", || is_gone(new));
        assert_eq!(files(), [None, None], "{strategy}: they go with the last process");
    }
}

#[test]
fn a_socket_that_was_passed_goes_over_again_and_again() {
    let listener = OwnedFd::from(TcpListener::bind("127.0.0.1:0").unwrap());
    // On one thread: others have descriptors of their own, as many as were needed at once.
    let args = ["--strategy", "sequential"];
    let old = Server::start_with(listener, Command::new(example("torture_server")), "fd:0", &args);
    assert_eq!(old.ask("ECHO hello"), "hello");
    let (mut new, descriptors) = (old.pid(), procfs::fds(old.pid()));
    for _ in 0..3 {
        signal("USR2", new);
        new = successor_of(new, old.addr());
        // The former process had the standard input besides, which it was given as.
        until("it has no descriptor more", || procfs::fds(new) <= descriptors);
    }
}

#[test]
fn a_server_of_datagrams_keeps_its_file() {
    let folder = Folder::new();
    let path = folder.path("s");
    let mut old = Server::start_at(&format!("unix:{}", path.display()), "udp_server", &[]);
    let client = UnixDatagram::bind(folder.path("client")).unwrap();
    client.set_read_timeout(Some(LONG)).unwrap();
    old.signal("USR2");
    old.ended().well_within(AT_ONCE);
    client.send_to(b"new", &path).unwrap();
    let mut reply = [0; 16];
    let n = uninterrupted(|| client.recv(&mut reply)).unwrap();
    assert_eq!(&reply[..n], b"NEW\n");
}

#[test]
fn a_server_of_datagrams_keeps_its_port() {
    for strategy in ["sequential", "threading", "forking"] {
        let mut old = Server::start("udp_server", &["--strategy", strategy]);
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.connect(old.addr()).unwrap();
        client.set_read_timeout(Some(LONG)).unwrap();
        for generation in ["old", "new"] {
            client.send(generation.as_bytes()).unwrap();
            let mut reply = [0; 16];
            let n = uninterrupted(|| client.recv(&mut reply)).unwrap();
            assert_eq!(&reply[..n], format!("{}\n", generation.to_uppercase()).as_bytes(), "{strategy}");
            if generation == "old" {
                old.signal("USR2");
                old.ended().well_within(AT_ONCE);
                old.until_logged("serves now, and this one drains");
            }
        }
    }
}

/// A worker of the old process outlives its master. From then on it must leave the socket alone.
#[test]
fn an_old_master_that_is_killed_harms_no_successor() {
    let mut old = Server::start("torture_server", &["--strategy", "preforking", "--workers", "2", "--drain", "60000"]);
    let mut mute = old.connect();
    until("a worker accepts", || old.queued() == 0);
    old.signal("USR2");
    let new = successor_of(old.pid(), old.addr());
    let workers = procfs::descendants(old.pid()).into_iter().filter(|pid| *pid != new).collect::<Vec<_>>();
    old.signal("KILL");
    assert_eq!(old.ended().signal(), Some(9));
    assert_eq!(mute.ask("ECHO hello"), "hello", "its worker lives");
    drop(mute);
    until("the workers of the old process end", || {
        workers.iter().all(|pid| is_gone(*pid) || is_a_worker_of(*pid, new))
    });
    assert_eq!(master(old.addr()), new);
}

fn is_a_worker_of(pid: u32, master: u32) -> bool {
    procfs::descendants(master).contains(&pid)
}

#[test]
fn a_new_master_that_is_killed_later_lets_go_of_the_address() {
    let mut old = Server::start("torture_server", &["--strategy", "preforking", "--workers", "2"]);
    let mut busy = old.connect();
    old.signal("USR2");
    let new = successor_of(old.pid(), old.addr());
    assert_eq!(busy.ask("ECHO hello"), "hello");
    drop(busy);
    old.ended().well_within(AT_ONCE);
    let mut held = Client::connect(old.addr());
    held.send_and_see_it_taken("SLEEP 500");
    signal("KILL", new);
    until("nobody listens", || std::net::TcpStream::connect(old.addr()).is_err());
    assert_eq!(held.line(), "slept", "a worker finishes what it has");
}

/// The old process may hear of its children by SIGCHLD, which it blocks meanwhile. A mask outlives execve.
#[test]
fn a_new_process_hears_of_its_children_as_the_old_one_did() {
    let mut old = Server::start("torture_server", &["--strategy", "forking"]);
    let hears = |pid| procfs::fd_kinds(pid).iter().any(|(_, kind)| kind.contains("signalfd"));
    until("the old process hears", || hears(old.pid()));
    old.signal("USR2");
    let new = successor_of(old.pid(), old.addr());
    until("the new process hears", || hears(new));
    old.ended().well_within(AT_ONCE);
    signal("TERM", new);
    until("the new process ends", || is_gone(new));
}
