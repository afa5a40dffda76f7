//! Sockets that a program is started with: systemd's activation, inetd, and a number alone.

use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::{env, io};

use nix::sys::socket::{socket, AddressFamily, SockFlag, SockType};

use crate::kit::{read_all, Folder, LONG};
use crate::support::procfs::descendants;
use crate::support::{example, output, tool, uninterrupted, until, Client};
use socketserver::{handler, ServerBuilder, Threading};

/// True if a socket with this path is open, and listens if it is for connections.
fn listens(path: &Path, for_datagrams: bool) -> bool {
    let sockets = std::fs::read_to_string("/proc/net/unix").unwrap();
    let line = sockets.lines().find(|line| line.ends_with(path.to_str().unwrap()));
    // The fourth column has the flags. One of them says that it listens.
    line.is_some_and(|line| for_datagrams || line.split_whitespace().nth(3) == Some("00010000"))
}

/// A program that systemd starts at the first connection, in a process group of its own.
struct Activated {
    child: Child,
    path: PathBuf,
    _folder: Folder,
}

impl Activated {
    /// `None` if systemd-socket-activate is not installed.
    fn start(options: &[&str], program: &[&str]) -> Option<Self> {
        let mut command = tool("systemd-socket-activate")?;
        let folder = Folder::new();
        let path = folder.path("s");
        command.arg("-l").arg(&path).args(options).arg(example(program[0])).args(&program[1..]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let child = command.spawn().unwrap();
        until("systemd listens", || listens(&path, options.contains(&"-d")));
        Some(Self { child, path, _folder: folder })
    }

    fn connect(&self) -> Client {
        Client::connect(&format!("unix:{}", self.path.display()))
    }

    /// Ends it, and returns its exit code and what it has printed.
    fn term(mut self) -> (Option<i32>, String) {
        Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        let child = std::mem::replace(&mut self.child, Command::new("true").spawn().unwrap());
        let output = output(child, "the activated server");
        let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        (output.status.code(), text.concat())
    }
}

impl Drop for Activated {
    fn drop(&mut self) {
        // The group of a child that was waited for is gone, unless it has left processes behind.
        let _ =
            Command::new("kill").args(["-KILL", "--", &format!("-{}", self.child.id())]).stderr(Stdio::null()).status();
        let _ = self.child.wait();
    }
}

#[test]
fn every_strategy_serves_the_socket_that_systemd_passes() {
    let strategies = ["sequential", "threading", "thread-pool", "forking", "preforking", "event-loop", "event-loops"];
    for strategy in strategies {
        for (options, address) in [(&["--fdname=web"][..], "fd:web"), (&[], "fd:3")] {
            let program = ["torture_server", address, "--strategy", strategy, "--workers", "2"];
            let Some(server) = Activated::start(options, &program) else { return };
            let mut client = server.connect();
            assert_eq!(client.ask("ECHO hello"), "hello", "{strategy} {address}");
            client.send("CLOSE\n");
            client.until_closed();
            let (code, text) = server.term();
            assert_eq!(code, Some(0), "{strategy} {address}: {text}");
            assert!(text.contains("listening on unix:") && text.contains("served 1"), "{strategy} {address}: {text}");
        }
    }
}

#[test]
fn systemd_and_inetd_start_a_program_for_each_connection() {
    for (options, address) in [(&["-a"][..], "fd:3"), (&["-a", "--inetd"], "fd:0")] {
        for served_as in ["handler", "protocol"] {
            let program = ["torture_server", address, "--accepted", "yes", "--as", served_as];
            let Some(server) = Activated::start(options, &program) else { return };
            let pids: Vec<_> = (0..2)
                .map(|_| {
                    let mut client = server.connect();
                    let pid = client.ask("PID");
                    client.send("CLOSE\n");
                    assert_eq!(client.rest(), "", "{address} {served_as}: only answers go to the client");
                    pid
                })
                .collect();
            assert_ne!(pids[0], pids[1], "{address} {served_as}");
            until("systemd has reaped them", || descendants(server.child.id()).is_empty());
        }
    }
}

#[test]
fn a_datagram_server_takes_the_socket_that_systemd_passes() {
    let Some(server) = Activated::start(&["-d"], &["udp_server", "fd:3"]) else { return };
    let client = UnixDatagram::bind(server.path.with_file_name("client")).unwrap();
    client.set_read_timeout(Some(LONG)).unwrap();
    client.send_to(b"hello", &server.path).unwrap();
    let mut reply = [0; 16];
    let n = uninterrupted(|| client.recv(&mut reply)).unwrap();
    assert_eq!(&reply[..n], b"HELLO\n");
    assert_eq!(server.term().0, Some(0));
}

/// What an example prints that has this as its standard input, and cannot use it.
fn told(name: &str, args: &[&str], stdin: impl Into<Stdio>) -> String {
    let mut command = Command::new(example(name));
    command.args(args).stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = output(command.spawn().unwrap(), name);
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn a_descriptor_that_does_not_fit_is_told_with_what_would() {
    let listener = || OwnedFd::from(TcpListener::bind("127.0.0.1:0").unwrap());
    let datagrams = || OwnedFd::from(UdpSocket::bind("127.0.0.1:0").unwrap());
    let unconnected = || socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    let connection = || OwnedFd::from(UnixStream::pair().unwrap().0);
    let accepted = ["fd:0", "--accepted", "yes"];
    for (name, args, stdin, why) in [
        ("torture_server", &["fd:0"][..], Stdio::null(), "cannot use fd:0: Socket operation on non-socket"),
        ("torture_server", &["fd:0"], datagrams().into(), "it is for datagrams, which `bind_udp` receives"),
        ("torture_server", &["fd:0"], connection().into(), "it is a connection, which `serve_one` serves"),
        ("torture_server", &["fd:99"], Stdio::null(), "cannot use fd:99: Bad file descriptor"),
        ("torture_server", &["fd:99999999999"], Stdio::null(), "no descriptor has this number"),
        ("torture_server", &["fd:web"], Stdio::null(), "LISTEN_FDS and LISTEN_PID are not set"),
        ("torture_server", &accepted, listener().into(), "it listens, which `bind` takes"),
        ("torture_server", &accepted, Stdio::null(), "Socket operation on non-socket"),
        ("torture_server", &["fd:0"], unconnected().into(), "it does not listen"),
        ("udp_server", &["fd:0"], listener().into(), "it is for connections, which `bind` accepts"),
    ] {
        let text = told(name, args, stdin);
        assert!(text.contains(why) && text.trim().lines().count() == 1, "{name} {args:?}: {text}");
    }
}

#[test]
fn a_count_of_sockets_that_does_not_fit_is_told_at_the_bind() {
    for (settings, address, why) in [
        ("LISTEN_FDS=99999", "fd:3", "LISTEN_FDS is \"99999\", which is no count of sockets"),
        ("LISTEN_FDS=-1", "fd:3", "LISTEN_FDS is \"-1\", which is no count of sockets"),
        ("LISTEN_FDS=1 LISTEN_FDNAMES=a:b", "fd:a", "LISTEN_FDNAMES has 2 names for the 1 sockets of LISTEN_FDS"),
        ("LISTEN_FDS=20", "fd:22", "cannot use fd:22: Bad file descriptor"),
        ("LISTEN_FDS=1 LISTEN_PID=1", "fd:web", "LISTEN_FDS is for process 1"),
    ] {
        let script = format!("export LISTEN_PID=$$ {settings}; exec \"$0\" \"$@\"");
        let mut command = Command::new("sh");
        command.args(["-c", &script]).arg(example("torture_server")).arg(address);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let output = output(command.spawn().unwrap(), settings);
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && text.contains(why), "{settings}: {text}");
        assert_eq!(text.trim().lines().count(), 1, "{settings}: {text}");
    }
}

/// A process that sets `LISTEN_PID` to itself, as systemd does, and becomes this test program.
fn with_environment(settings: &str, test: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("export CASE=1 LISTEN_PID=$$ {settings}; exec \"$0\" \"$@\"")]);
    command.arg(env::current_exe().unwrap()).args(["--exact", test, "--nocapture"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[test]
fn the_environment_is_unset_for_programs_that_handlers_start() {
    if env::var_os("CASE").is_some() {
        let error = ServerBuilder::new().bind("fd:web", handler(|_| Ok(()))).unwrap_err().to_string();
        assert!(error.contains("LISTEN_FDNAMES has a"), "{error}");
        assert!(env::vars_os().all(|(name, _)| !name.to_string_lossy().starts_with("LISTEN_")));
        return;
    }
    let test = "activation::the_environment_is_unset_for_programs_that_handlers_start";
    let child = with_environment("LISTEN_FDS=1 LISTEN_FDNAMES=a", test).spawn().unwrap();
    let output = output(child, "the case");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn a_counted_descriptor_that_is_no_socket_is_left_alone() {
    if env::var_os("CASE").is_some() {
        let error = ServerBuilder::new().bind("fd:3", handler(|_| Ok(()))).unwrap_err().to_string();
        assert!(error.contains("non-socket"), "{error}");
        assert_eq!(std::fs::read_link("/proc/self/fd/3").unwrap(), Path::new("/dev/null"));
        return;
    }
    let test = "activation::a_counted_descriptor_that_is_no_socket_is_left_alone";
    let child = with_environment("LISTEN_FDS=1; exec 3</dev/null", test).spawn().unwrap();
    let output = output(child, "the case");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn a_number_is_duplicated_and_a_listener_of_the_program_stays_its_own() -> io::Result<()> {
    let own = TcpListener::bind("127.0.0.1:0")?;
    let address = own.local_addr()?;
    let number = std::os::fd::AsRawFd::as_raw_fd(&own);
    let server = || {
        ServerBuilder::new()
            .strategy(Threading::new())
            .bind(format!("fd:{number}"), handler(|conn| conn.send_line("hi")))
    };
    for _ in 0..2 {
        let mut server = server().unwrap();
        let handle = server.handle();
        std::thread::scope(|scope| {
            let serving = scope.spawn(move || server.serve_forever());
            assert_eq!(read_all(&mut TcpStream::connect(address).unwrap()), "hi\n");
            handle.shutdown();
            serving.join().unwrap().unwrap();
        });
    }
    Ok(())
}
