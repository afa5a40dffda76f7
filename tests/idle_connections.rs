//! Ten thousand connections that are silent, and what they cost those that are not.

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use nix::sys::resource::{getrlimit, Resource};
use support::{procfs, until, Server};

const ACTIVE: usize = 8;
const MESSAGES: usize = 4000;

#[test]
fn ten_thousand_idle_connections_cost_a_loop_nothing() {
    idle_connections_cost_nothing(&["--strategy", "event-loop"]);
}

#[test]
fn ten_thousand_idle_connections_cost_several_loops_nothing() {
    idle_connections_cost_nothing(&["--strategy", "event-loops", "--workers", "2"]);
}

/// Those that are active pay at most 1.1 times as much with them: ten times that excess is what fails here.
fn idle_connections_cost_nothing(strategy: &[&str]) {
    let (descriptors, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let idle = 10_000.min(descriptors as usize / 2 - 200); // the other test's have to be had as well
    let server = Server::start("echo_server", strategy);
    let least = |server: &Server| (0..3).map(|_| cost(server)).min().unwrap();
    let alone = least(&server);
    let clients: Vec<TcpStream> = (0..idle).map(|_| TcpStream::connect(server.addr()).unwrap()).collect();
    until("all are accepted", || procfs::fds(server.pid()) >= idle);
    let beside = least(&server);
    assert!(
        beside <= 2 * alone + 2,
        "{beside} ticks for {ACTIVE} times {MESSAGES} messages, {alone} without {idle} others"
    );
    let before = procfs::ticks(server.pid());
    thread::sleep(Duration::from_secs(1));
    assert!(procfs::ticks(server.pid()) - before < 5, "{idle} silent connections keep it busy");
    assert!(procfs::rss_kib(server.pid()) < 64_000, "{} KiB", procfs::rss_kib(server.pid()));
    drop(clients);
}

/// The server's processor time for so many messages there and back, in the kernel's ticks of 10 ms.
fn cost(server: &Server) -> u64 {
    let before = procfs::ticks(server.pid());
    thread::scope(|scope| {
        for _ in 0..ACTIVE {
            scope.spawn(|| {
                let mut client = TcpStream::connect(server.addr()).unwrap();
                client.set_nodelay(true).unwrap();
                for _ in 0..MESSAGES {
                    client.write_all(&[b'x'; 64]).unwrap();
                    client.read_exact(&mut [0; 64]).unwrap();
                }
            });
        }
    });
    procfs::ticks(server.pid()) - before
}
