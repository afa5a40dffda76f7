//! Peers that vanish without a word (R9): in a network of the test's own, whose cable is pulled.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::MetadataExt;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::kit::{ask, ms, serve, until, Lines};
use nix::sys::socket::{getsockopt, sockopt};
use socketserver::{factory, handler, Error, EventLoop, HandlerResult, Protocol, ServerBuilder, Transport};

const TEST: &str = "SOCKETSERVER_VANISHED";

#[test]
fn r9_a_vanished_peer_is_given_up_and_the_server_goes_on() {
    if let Ok(role) = std::env::var(TEST) {
        return if role == "peer" { peer() } else { with_a_network_of_its_own() };
    }
    let as_root = fs::metadata("/proc/self").unwrap().uid() == 0;
    let works =
        |program: &str, args: &[&str]| Command::new(program).args(args).output().is_ok_and(|o| o.status.success());
    let script = "ip link add near type veth peer name far && command -v nsenter";
    if !as_root || !works("unshare", &["-n", "sh", "-c", script]) {
        assert_ne!(std::env::var("REQUIRE_TOOLS").as_deref(), Ok("1"), "no network namespace with a veth pair");
        return println!("skipped: no network namespace with a veth pair for us");
    }
    let ended = myself(&["-n"], "server").stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap();
    let told = String::from_utf8_lossy(&ended.stdout);
    assert!(ended.status.success() && told.contains("1 passed"), "{told}{}", String::from_utf8_lossy(&ended.stderr));
}

/// This test again, in a network namespace of its own.
fn myself(unshare: &[&str], role: &str) -> Command {
    let mut command = Command::new("unshare");
    command.args(unshare).arg(std::env::current_exe().unwrap());
    command
        .args(["--exact", "vanished::r9_a_vanished_peer_is_given_up_and_the_server_goes_on", "--nocapture"])
        .env(TEST, role);
    command
}

/// In the other namespace: connects, says hello, hears it, and waits until it is killed.
fn peer() {
    println!("\npeer is here");
    let mut lines = std::io::stdin().lines();
    while let Some(Ok(addr)) = lines.next() {
        let mut server = TcpStream::connect(addr).unwrap();
        server.write_all(b"hello\n").unwrap();
        server.read_exact(&mut [0; 6]).unwrap();
        println!("peer was answered");
        std::mem::forget(server);
    }
}

/// The peer's process, and the cable to it.
struct Peer {
    child: Child,
    told: BufReader<ChildStdout>,
}

impl Peer {
    fn start() -> Self {
        let mut child = myself(&["-n"], "peer").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut this = Self { told: BufReader::new(child.stdout.take().unwrap()), child };
        this.until("peer is here");
        let pid = this.child.id().to_string();
        run("ip", &["link", "set", "lo", "up"]);
        run("ip", &["link", "add", "near", "type", "veth", "peer", "name", "far", "netns", &pid]);
        run("ip", &["addr", "add", "198.18.0.1/24", "dev", "near"]);
        run("ip", &["link", "set", "near", "up"]);
        this.inside(&["ip", "addr", "add", "198.18.0.2/24", "dev", "far"]);
        this.plug(true);
        this
    }

    fn inside(&self, command: &[&str]) {
        let pid = self.child.id().to_string();
        run("nsenter", &[&["-t", &pid, "-n"], command].concat());
    }

    fn plug(&self, up: bool) {
        self.inside(&["ip", "link", "set", "far", if up { "up" } else { "down" }]);
    }

    fn connect(&mut self, port: u16) {
        writeln!(self.child.stdin.as_mut().unwrap(), "198.18.0.1:{port}").unwrap();
        self.until("peer was answered");
    }

    fn until(&mut self, text: &str) {
        let mut line = String::new();
        while self.told.read_line(&mut line).unwrap() > 0 {
            if std::mem::take(&mut line).contains(text) {
                return;
            }
        }
        panic!("the peer has ended, {text:?} never came");
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn run(program: &str, args: &[&str]) {
    let ended = Command::new(program).args(args).output().unwrap();
    assert!(ended.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&ended.stderr));
}

fn with_a_network_of_its_own() {
    let mut peer = Peer::start();
    let idle = ServerBuilder::new().idle_timeout(ms(500));
    is_freed(&mut peer, idle, false, Duration::from_secs(5), "idle limit");
    let request = ServerBuilder::new().request_timeout(ms(500));
    is_freed(&mut peer, request, true, Duration::from_secs(5), "limit");
    // The time that was given, 6 s, and a generous rest for timers of the kernel.
    let probes = ServerBuilder::new().keep_alive_time(Duration::from_secs(6));
    is_freed(&mut peer, probes, false, Duration::from_secs(60), "");
    is_freed_by_a_loop(&mut peer);
}

/// A server with this setting frees the connection of a peer that vanishes, says why, and serves others.
/// `in_request`: the handler waits for the rest of a request, and not for the next line.
fn is_freed(peer: &mut Peer, builder: ServerBuilder, in_request: bool, within: Duration, why: &str) {
    let failure = Arc::new(Mutex::new(String::new()));
    let told = failure.clone();
    let builder = builder.handle_error(move |f| *told.lock().unwrap() = f.to_string());
    let waits = handler(move |conn| {
        let mut line = String::new();
        while conn.read_line(&mut line)? > 0 {
            conn.write_all(std::mem::take(&mut line).as_bytes())?;
            if in_request {
                conn.read_exact(&mut [0; 100])?;
            }
        }
        Ok(())
    });
    let server = serve(builder.bind_tcp("0.0.0.0:0", waits).unwrap());
    peer.connect(server.addr().port());
    assert_eq!(server.handle.stats().active, 1);
    peer.plug(false);
    let since = Instant::now();
    until("the connection is freed", || server.handle.stats().active == 0);
    let took = since.elapsed();
    peer.plug(true);
    assert!(took < within, "{took:?}");
    until("the failure is told", || !failure.lock().unwrap().is_empty());
    assert!(failure.lock().unwrap().contains(why), "{failure:?}");
    let addr = format!("127.0.0.1:{}", server.addr().port()).parse().unwrap();
    assert_eq!(ask(addr, "hello\n"), "hello\n");
}

struct Echo;

impl Protocol for Echo {
    fn data_received(&mut self, transport: &mut Transport<'_>, data: &[u8]) -> HandlerResult {
        Ok(transport.write(data)?)
    }
}

fn is_freed_by_a_loop(peer: &mut Peer) {
    let builder = ServerBuilder::new().strategy(EventLoop::new()).idle_timeout(ms(500));
    let server = serve(builder.bind_tcp("0.0.0.0:0", factory(|_peer| Echo)).unwrap());
    peer.connect(server.addr().port());
    peer.plug(false);
    until("the connection is freed", || server.handle.stats().active == 0);
    peer.plug(true);
}

#[test]
fn accepted_sockets_have_the_listener_s_keep_alive_times() {
    let shown = handler(|conn| {
        let idle = getsockopt(&*conn, sockopt::TcpKeepIdle)?;
        let between = getsockopt(&*conn, sockopt::TcpKeepInterval)?;
        let count = getsockopt(&*conn, sockopt::TcpKeepCount)?;
        let unacknowledged = getsockopt(&*conn, sockopt::TcpUserTimeout)?;
        let on = getsockopt(&*conn, sockopt::KeepAlive)?;
        Ok(write!(conn, "{on} {idle} + {count} * {between}, {unacknowledged}")?)
    });
    let shown = Arc::new(shown);
    for (time, told) in [(6, "true 1 + 5 * 1, 6000"), (60, "true 30 + 5 * 6, 60000"), (65, "true 35 + 5 * 6, 65000")] {
        let builder = ServerBuilder::new().keep_alive_time(Duration::from_secs(time));
        let server = serve(builder.bind_tcp("127.0.0.1:0", shown.clone()).unwrap());
        assert_eq!(server.ask(""), told);
    }
    let server = serve(ServerBuilder::new().keep_alive(false).bind_tcp("127.0.0.1:0", shown.clone()).unwrap());
    assert!(server.ask("").starts_with("false "));
}

#[test]
fn a_keep_alive_time_that_cannot_be_is_an_error() {
    for time in [Duration::ZERO, Duration::from_millis(5999), Duration::from_secs(32_768), Duration::MAX] {
        let error = ServerBuilder::new().keep_alive_time(time).bind_tcp("127.0.0.1:0", Lines).unwrap_err();
        assert!(matches!(error, Error::Setting { name: "keep_alive_time", .. }), "{error}");
    }
}
