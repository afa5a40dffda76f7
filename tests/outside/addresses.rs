//! Addresses: read and written alike, bound as told, refused in one line (A9 to A12).

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use crate::kit::{ask, has_ipv6, ms, read_all, serve, until, LONG};
use crate::support::{example, tool, Server};
use socketserver::testing::TestServer;
use socketserver::{handler, Addr, Address, Error, ServerBuilder};

#[test]
fn a_pair_as_python_writes_it_is_bound() {
    let server = ServerBuilder::new().bind(("127.0.0.1", 0), handler(|_| Ok(()))).unwrap();
    assert_eq!(server.local_addr().ip(), Some(IpAddr::V4(Ipv4Addr::LOCALHOST)));
}

// ---- as text ----

#[test]
fn every_form_is_read_and_written_back() {
    let forms = [
        ("127.0.0.1:80", Address::Tcp("127.0.0.1:80".into())),
        ("localhost:0", Address::Tcp("localhost:0".into())),
        ("[::1]:65535", Address::Tcp("[::1]:65535".into())),
        ("unix:/run/x.sock", Address::Unix("/run/x.sock".into())),
        ("unix:x.sock", Address::Unix("x.sock".into())),
        ("unix:@name", Address::Abstract(b"name".to_vec())),
        ("unix:./@name", Address::Unix("./@name".into())),
    ];
    for (text, address) in forms {
        assert_eq!(text.parse::<Address>().unwrap(), address);
        assert_eq!(address.to_string(), text);
    }
    assert_eq!("/run/x.sock".parse::<Address>().unwrap().to_string(), "unix:/run/x.sock");
    assert_eq!(Address::Unix("@name".into()).to_string(), "unix:./@name"); // the file, not the abstract name
}

#[test]
fn what_is_none_is_told_at_once() {
    let long = format!("unix:/{}", "x".repeat(107));
    let malformed = [
        ("", "no port"),
        ("localhost", "no port"),
        ("localhost:", "no number"),
        ("localhost:65536", "no number"),
        (":80", "no host"),
        ("::1:80", "brackets"),
        ("[fe80]:80", "no IPv6 address"),
        ("unix:", "no path"),
        ("unix:@", "no name"),
        ("unix:a\0b", "NUL"),
        ("\n:1", "control characters"),
        ("a\u{1b}[2J:1", "control characters"),
        ("[::1%\n]:1", "control characters"),
        ("fd:a\nb", "control characters"),
        (long.as_str(), "107 bytes"),
    ];
    for (text, why) in malformed {
        let error = text.parse::<Address>().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{text:?}");
        assert!(error.to_string().contains(why), "{text:?}: {error}");
        let told = ServerBuilder::new().bind(text, handler(|_conn| Ok(()))).unwrap_err().to_string();
        assert!(told.starts_with("cannot listen on ") && told.contains(why), "{told}");
    }
    assert!("unix:/cafe\u{301}".parse::<Address>().is_ok(), "a letter in two characters");
    for text in ["unix:/a\nb", "unix:@a\u{1b}b", "/a\u{202e}b"] {
        let error = text.parse::<Address>().unwrap_err();
        assert!(error.to_string().contains("control characters"), "{text:?}: {error}");
    }
    assert!(format!("unix:/{}", "x".repeat(106)).parse::<Address>().is_ok());
    assert!("localhost:80".parse::<Addr>().is_err()); // an address is no name
}

#[test]
fn what_a_log_cannot_show_is_escaped() {
    use std::os::unix::ffi::OsStringExt;
    let path = |bytes: &[u8]| PathBuf::from(std::ffi::OsString::from_vec(bytes.to_vec()));
    assert_eq!(Addr::Unix(path(b"/a\nb")).to_string(), "unix:/a\\nb");
    assert_eq!(Addr::Unix(path(b"/\xff")).to_string(), "unix:/\\xff");
    assert_eq!(Address::Abstract(b"a\x1b[2J".to_vec()).to_string(), "unix:@a\\x1b[2J");
    assert_eq!(Addr::Unix("/caf\u{e9}".into()).to_string(), "unix:/caf\u{e9}");
    assert_eq!(Addr::Unix("/a\u{202e}b".into()).to_string(), "unix:/a\\xe2\\x80\\xaeb");
    // turns text round
}

// ---- errors at the start ----

/// One line on stderr, exit status 1.
fn is_refused(mut command: Command, address: &str, parts: &[&str]) {
    let ended = command.output().unwrap();
    let told = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(1), "{told}");
    assert_eq!(told.lines().count(), 1, "{told}");
    for part in parts.iter().chain(&[address]) {
        assert!(told.contains(part), "{part:?} is not in {told}");
    }
}

fn echo_server(address: &str) -> Command {
    let mut command = Command::new(example("echo_server"));
    command.arg(address);
    command
}

#[test]
fn a10_an_address_in_use_is_one_line_and_the_end() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    is_refused(echo_server(&address), &address, &["cannot bind ", "(os error 98)", "another program listens there"]);
}

#[test]
fn a10_an_address_that_is_not_ours_is_one_line_and_the_end() {
    let parts = ["cannot bind ", "(os error 99)", "no interface of this machine has that address"];
    is_refused(echo_server("192.0.2.1:80"), "192.0.2.1:80", &parts);
}

#[test]
fn a10_a_port_for_root_is_one_line_and_the_end() {
    let Some(setpriv) = tool("setpriv") else { return };
    let lowest = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap();
    if fs::metadata("/proc/self").unwrap().uid() != 0 || lowest.trim().parse::<u16>().unwrap() <= 1 {
        return println!("skipped: not root, or no port is root's");
    }
    let mut command = setpriv;
    command.args(["--reuid", "65534", "--clear-groups"]).arg(example("echo_server")).arg("127.0.0.1:1");
    is_refused(command, "127.0.0.1:1", &["cannot bind ", "(os error 13)", "CAP_NET_BIND_SERVICE"]);
}

#[test]
fn a_name_in_use_is_one_line_and_an_example_takes_names() {
    let address = format!("unix:@socketserver-names-{}", std::process::id());
    let addr = std::os::unix::net::SocketAddr::from_abstract_name(&address[6..]).unwrap();
    for name in ["echo_server", "select_server"] {
        let first = Server::start_at(&address, name, &[]);
        assert_eq!(first.addr(), address);
        is_refused(echo_server(&address), &address, &["cannot bind ", "(os error 98)"]);
        let mut client = UnixStream::connect_addr(&addr).unwrap();
        client.set_read_timeout(Some(LONG)).unwrap();
        client.write_all(b"hello\n").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        client.read_to_string(&mut String::new()).unwrap(); // what an example answers is its own affair
    }
    assert_eq!(UnixStream::connect_addr(&addr).unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn a11_after_kill_9_with_open_connections_the_port_is_free_at_once() {
    let mut killed = Server::start("torture_server", &[]);
    let address = killed.addr().to_owned();
    let mut clients: Vec<_> = (0..10).map(|_| killed.connect()).collect();
    clients.iter_mut().for_each(|c| assert_eq!(c.ask("ECHO hello"), "hello"));
    // The server's side closes first, so that side waits in TIME_WAIT or FIN_WAIT.
    killed.signal("KILL");
    killed.ended();
    let next = Server::start_at(&address, "torture_server", &[]);
    assert_eq!(next.ask("ECHO hello"), "hello");
    drop((killed, clients));
}

// ---- two families ----

/// Says the client's address in its own form, and as the socket has it.
fn introducing() -> impl socketserver::StreamRequestHandler {
    handler(|conn| {
        let peer = conn.peer_addr();
        Ok(write!(conn, "{} {}", peer.ip().ok_or("no address")?, peer)?)
    })
}

#[test]
fn a_v4_client_of_a_dual_stack_server_has_its_own_address() {
    if !has_ipv6() {
        return println!("skipped: no IPv6 here");
    }
    let server = serve(ServerBuilder::new().only_v6(false).bind_tcp("[::]:0", introducing()).unwrap());
    let told = ask(SocketAddr::from((Ipv4Addr::LOCALHOST, server.addr().port())), "");
    assert!(told.starts_with("127.0.0.1 [::ffff:127.0.0.1]:"), "{told}");
}

#[test]
fn a12_both_families_side_by_side_whatever_the_system_s_default() {
    if !has_ipv6() {
        return println!("skipped: no IPv6 here");
    }
    if std::env::var_os("SOCKETSERVER_NETNS").is_none() {
        return in_own_network("addresses::a12_both_families_side_by_side_whatever_the_system_s_default");
    }
    for bindv6only in ["0", "1"] {
        fs::write("/proc/sys/net/ipv6/bindv6only", bindv6only).unwrap();
        apart();
        together(true);
        alone(bindv6only == "1");
    }
}

/// This test again, in a network namespace that goes with it.
pub fn in_own_network(test: &str) {
    let Some(mut unshare) = tool("unshare") else { return };
    if fs::metadata("/proc/self").unwrap().uid() != 0
        || !unshare.args(["-n", "true"]).output().unwrap().status.success()
    {
        assert_ne!(std::env::var("REQUIRE_TOOLS").as_deref(), Ok("1"), "no network namespace");
        return println!("skipped: no network namespace for us");
    }
    let script = "ip link set lo up && exec \"$0\" --exact \"$1\" --nocapture";
    let mut command = Command::new("unshare");
    command.args(["-n", "sh", "-c", script]).arg(std::env::current_exe().unwrap()).arg(test);
    let ended = command.env("SOCKETSERVER_NETNS", "1").output().unwrap();
    let told = String::from_utf8_lossy(&ended.stdout);
    assert!(ended.status.success() && told.contains("1 passed"), "{told}{}", String::from_utf8_lossy(&ended.stderr));
}

/// Clients that the kernel resets because the queue is full: they hear of it, and nobody else does. A narrow line lets
/// several ask to connect before the first of them is connected, as a crowd does, and takes the last place.
#[test]
fn a9_resets_of_those_beyond_the_queue_are_no_trouble_of_the_server_s() {
    if std::env::var_os("SOCKETSERVER_NETNS").is_none() {
        return in_own_network("addresses::a9_resets_of_those_beyond_the_queue_are_no_trouble_of_the_server_s");
    }
    fs::write("/proc/sys/net/ipv4/tcp_abort_on_overflow", "1").unwrap();
    fs::write("/proc/sys/net/ipv4/tcp_syncookies", "0").unwrap(); // a cookie's end is dropped without a reset
    let (open, resets) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let door = open.clone();
    let wait = handler(move |conn| {
        until("the door is open", || door.load(SeqCst));
        Ok(conn.write_all(b"welcome")?)
    });
    let server = TestServer::with(ServerBuilder::new().backlog(4).max_connections(3), wait);
    narrow_the_line();
    for _ in 0..10 {
        open.store(false, SeqCst);
        let crowd: Vec<_> = (0..12).map(|_| come(server.addr(), resets.clone())).collect();
        let patience = Instant::now() + ms(2000); // where each comes when a place is free, none is reset
        until("some are reset", || resets.load(SeqCst) > 0 || Instant::now() > patience);
        open.store(true, SeqCst);
        assert!(crowd.into_iter().all(|client| client.join().unwrap()), "each has its answer or a reset");
        if resets.load(SeqCst) > 0 {
            break;
        }
    }
    assert!(resets.load(SeqCst) > 0, "the test has not come to its point");
    assert_eq!(server.connect().rest(), b"welcome");
    let s = server.stop();
    assert_eq!((s.accepted, s.failed, s.accept_errors), (s.served + s.disconnected, 0, 0), "{s:?}");
}

/// A client: whether it had its answer, or a reset, which is counted.
fn come(addr: SocketAddr, resets: Arc<AtomicUsize>) -> thread::JoinHandle<bool> {
    thread::spawn(move || {
        let answer = TcpStream::connect(addr).and_then(std::io::read_to_string);
        let reset = answer.as_ref().is_err_and(|e| e.kind() == ErrorKind::ConnectionReset);
        resets.fetch_add(usize::from(reset), SeqCst);
        reset || answer.is_ok_and(|text| text == "welcome")
    })
}

/// From here on a packet takes a while, and others wait behind it.
fn narrow_the_line() {
    let narrow = ["qdisc", "add", "dev", "lo", "root", "tbf", "rate", "100kbit", "burst", "2kb", "latency", "60s"];
    assert!(Command::new("tc").args(narrow).status().unwrap().success());
    let (from, to) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
    for _ in 0..4 {
        from.send_to(&[0; 1000], to.local_addr().unwrap()).unwrap(); // what it lets through at once is used up
    }
}

/// Two servers, one for each family, on one port.
fn apart() {
    let v6 = ServerBuilder::new().only_v6(true).bind_tcp("[::]:0", introducing()).unwrap();
    let port = v6.local_addr().port().unwrap();
    let v4 = ServerBuilder::new().bind_tcp(("0.0.0.0", port), introducing()).unwrap();
    let (_v6, _v4) = (serve(v6), serve(v4));
    assert!(ask(SocketAddr::from((Ipv4Addr::LOCALHOST, port)), "").starts_with("127.0.0.1 127.0.0.1:"));
    assert!(ask(format!("[::1]:{port}").parse().unwrap(), "").starts_with("::1 [::1]:"));
}

/// One server with a listener for each.
fn together(only_v6: bool) {
    let server = ServerBuilder::new().only_v6(only_v6).listen("0.0.0.0:4711").bind_tcp("[::]:4711", introducing());
    let _server = serve(server.unwrap());
    assert!(ask("127.0.0.1:4711".parse().unwrap(), "").starts_with("127.0.0.1 127.0.0.1:"));
    assert!(ask("[::1]:4711".parse().unwrap(), "").starts_with("::1 [::1]:"));
}

/// A listener on `[::]` alone: told to take both families, told to take one, and told nothing.
fn alone(default: bool) {
    for (told, only) in [(Some(false), false), (Some(true), true), (None, default)] {
        let builder = ServerBuilder::new();
        let builder = told.into_iter().fold(builder, |b, only| b.only_v6(only));
        let server = serve(builder.bind_tcp("[::]:0", introducing()).unwrap());
        let v4 = SocketAddr::from((Ipv4Addr::LOCALHOST, server.addr().port()));
        match TcpStream::connect(v4) {
            Ok(mut client) => {
                assert!(!only, "{told:?}");
                assert!(read_all(&mut client).starts_with("127.0.0.1 [::ffff:127.0.0.1]:"));
            }
            Err(e) => assert!(only && e.kind() == ErrorKind::ConnectionRefused, "{told:?}: {e}"),
        }
        if !only {
            let taken = ServerBuilder::new().bind_tcp(v4, introducing()).map(drop).unwrap_err();
            assert!(matches!(&taken, Error::Listen { source, .. } if source.kind() == ErrorKind::AddrInUse), "{taken}");
        }
    }
}
