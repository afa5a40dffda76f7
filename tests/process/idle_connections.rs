//! Ten thousand connections that are silent, and what they cost those that are not. Each test takes
//! most of the descriptors of its process.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::thread;
use std::time::Duration;

use crate::support::{example, procfs, until, Server};
use nix::sys::resource::{getrlimit, Resource};

const ACTIVE: usize = 8;
const MESSAGES: usize = 2000;

/// As many silent connections as the descriptors allow, up to ten thousand; all are accepted.
fn silent_clients(server: &Server) -> Vec<TcpStream> {
    let (descriptors, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let many = 10_000.min(descriptors as usize - 700);
    let clients: Vec<TcpStream> = (0..many).map(|_| TcpStream::connect(server.addr()).unwrap()).collect();
    until("all are accepted", || procfs::fds(server.pid()) >= many);
    clients
}

#[test]
fn ten_thousand_idle_connections_cost_a_loop_nothing() {
    alone!();
    idle_connections_cost_nothing(&["--strategy", "event-loop"]);
}

#[test]
fn ten_thousand_idle_connections_cost_several_loops_nothing() {
    alone!();
    idle_connections_cost_nothing(&["--strategy", "event-loops", "--workers", "2"]);
}

/// Those that are active pay at most 1.1 times as much with them: ten times that excess is what fails here.
fn idle_connections_cost_nothing(strategy: &[&str]) {
    let server = Server::start("echo_server", strategy);
    let alone = (0..2).map(|_| cost(&server)).min().unwrap();
    let clients = silent_clients(&server);
    let idle = clients.len();
    // Beside other jobs the same work takes more of the processor's time, now and then.
    let mut beside = u64::MAX;
    until(&format!("{ACTIVE} times {MESSAGES} messages cost as much beside {idle} others as without"), || {
        beside = beside.min(cost(&server));
        beside <= 2 * alone + 2
    });
    until("silent connections do not keep it busy", || {
        let before = procfs::ticks(server.pid());
        thread::sleep(Duration::from_millis(500));
        procfs::ticks(server.pid()) - before < 3
    });
    assert!(procfs::rss_kib(server.pid()) < 64_000, "{} KiB", procfs::rss_kib(server.pid()));
    drop(clients);
}

/// 500 clients, beside the silent ones, ask for more than they read. Each is held up at its water mark, so 96 MiB of data
/// suffice: no allocation fails, which would end the process, and new clients are served.
#[test]
fn r4_ten_thousand_connections_live_within_a_memory_limit() {
    alone!();
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -d 98304; exec \"$@\"", "sh"]).arg(example("echo_server"));
    let server = Server::start_command(limited, "127.0.0.1:0", &["--strategy", "event-loop"]);
    let before = procfs::rss_kib(server.pid());
    let clients = silent_clients(&server);
    let each = (procfs::rss_kib(server.pid()) - before) * 1024 / clients.len() as u64;
    assert!(each < 1500, "{each} bytes for a silent connection");
    let stalled = floods(&server, 500);
    for _ in 0..20 {
        let mut newcomer = TcpStream::connect(server.addr()).unwrap();
        newcomer.write_all(b"hello").unwrap();
        newcomer.read_exact(&mut [0; 5]).unwrap();
    }
    assert!(procfs::rss_kib(server.pid()) < 96 << 10);
    drop((clients, stalled));
}

/// Clients that send until the server takes no more, and never read.
fn floods(server: &Server, many: usize) -> Vec<TcpStream> {
    let mut clients: Vec<_> = (0..many).map(|_| (TcpStream::connect(server.addr()).unwrap(), 0)).collect();
    clients.iter().for_each(|(client, _)| client.set_nonblocking(true).unwrap());
    let mut quiet = 0;
    until("all are held up, after more than a pipe's fill", || {
        let mut taken = 0;
        for (client, sent) in &mut clients {
            let n = client.write(&[b'x'; 64 << 10]).unwrap_or(0);
            (*sent, taken) = (*sent + n, taken + n);
        }
        quiet = if taken == 0 { quiet + 1 } else { 0 };
        quiet >= 10 && clients.iter().all(|(_, sent)| *sent > 64 << 10)
    });
    clients.into_iter().map(|(client, _)| client).collect()
}

/// The server's processor time for this number of messages there and back, in the kernel's ticks of 10 ms.
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
