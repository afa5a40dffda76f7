//! Ten thousand connections that are silent, and what they cost those that are not. One test at a time: each takes most
//! of the descriptors.

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use nix::sys::resource::{getrlimit, Resource};
use support::{example, procfs, until, Server};

const ACTIVE: usize = 8;
const MESSAGES: usize = 4000;

fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// So many silent connections as the descriptors allow, up to ten thousand; all are accepted.
fn silent_clients(server: &Server) -> Vec<TcpStream> {
    let (descriptors, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let many = 10_000.min(descriptors as usize - 700);
    let clients: Vec<TcpStream> = (0..many).map(|_| TcpStream::connect(server.addr()).unwrap()).collect();
    until("all are accepted", || procfs::fds(server.pid()) >= many);
    clients
}

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
    let _alone = alone();
    let server = Server::start("echo_server", strategy);
    let least = |server: &Server| (0..3).map(|_| cost(server)).min().unwrap();
    let alone = least(&server);
    let clients = silent_clients(&server);
    let idle = clients.len();
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

/// In 96 MiB of data, beside the silent ones, are 500 who ask for more than they read: each is held up at its water mark,
/// no allocation fails, which would end the process, and who comes is served.
#[test]
fn r4_ten_thousand_connections_live_within_a_memory_limit() {
    let _alone = alone();
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -d 98304; exec \"$@\"", "sh"]).arg(example("echo_server"));
    let server = Server::start_command(limited, "127.0.0.1:0", &["--strategy", "event-loop"]);
    let before = procfs::rss_kib(server.pid());
    let clients = silent_clients(&server);
    let each = (procfs::rss_kib(server.pid()) - before) * 1024 / clients.len() as u64;
    assert!(each < 1500, "{each} bytes for a silent connection");
    let stalled: Vec<TcpStream> = (0..500).map(|_| floods(&server)).collect();
    for _ in 0..20 {
        let mut newcomer = TcpStream::connect(server.addr()).unwrap();
        newcomer.write_all(b"hello").unwrap();
        newcomer.read_exact(&mut [0; 5]).unwrap();
    }
    assert!(procfs::rss_kib(server.pid()) < 96 << 10);
    drop((clients, stalled));
}

/// A client who sends until nobody takes more, and never reads.
fn floods(server: &Server) -> TcpStream {
    let mut client = TcpStream::connect(server.addr()).unwrap();
    client.set_nonblocking(true).unwrap();
    let (mut sent, mut waited) = (0, 0);
    while waited < 3 {
        match client.write(&[b'x'; 64 << 10]) {
            Ok(n) => (sent, waited) = (sent + n, 0),
            Err(_) => {
                waited += 1;
                thread::sleep(Duration::from_millis(1)); // what it has not taken by then, it does not read
            }
        }
    }
    assert!(sent > 64 << 10, "it has stopped after {sent} bytes");
    client
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
