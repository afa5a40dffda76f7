//! The files of `examples/deploy`: judged by the programs that they are for, and run in front of real servers.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread;

use crate::kit::Folder;
use crate::support::{example, tool, until, Client, Server};

fn file(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/deploy").join(name);
    fs::read_to_string(path).unwrap()
}

/// A deployed file as a test needs it: with these texts in place of those. Each must be there.
fn adapted(name: &str, folder: &Folder, changes: &[(&str, &str)]) -> PathBuf {
    let text = changes.iter().fold(file(name), |text, (from, to)| {
        assert!(text.contains(from), "{name} has no {from:?}");
        text.replace(from, to)
    });
    let path = folder.path(name);
    fs::write(&path, text).unwrap();
    path
}

#[test]
fn the_systemd_units_are_right_and_hardened() {
    let Some(mut verify) = tool("systemd-analyze") else { return };
    let folder = Folder::new();
    let server = example("echo_server");
    let service = adapted("echo.service", &folder, &[("/usr/local/bin/echo_server", server.to_str().unwrap())]);
    let socket = adapted("echo.socket", &folder, &[]);
    let output = verify.args(["verify", "--man=no"]).args([&service, &socket]).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    // From 0 (safe) to 100: what systemd itself calls safe ends at 20.
    let mut security = Command::new("systemd-analyze");
    let output = security.args(["security", "--offline=true", "--threshold=20"]).arg(&service).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

/// A proxy in the foreground, which is ended with the test.
struct Proxy(Child);

impl Proxy {
    fn start(command: &mut Command, stdin: impl Into<Stdio>) -> Self {
        Self(command.stdin(stdin).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // SIGTERM: nginx then ends its workers.
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        let _ = self.0.wait();
    }
}

fn start_behind_a_proxy(addr: &str) -> Server {
    Server::start_at(addr, "torture_server", &["--proxy-from", "127.0.0.1/32"])
}

/// Asks HAProxy through its admin socket.
fn admin(path: &Path, command: &str) -> String {
    let Ok(mut socket) = UnixStream::connect(path) else { return String::new() };
    let mut answer = String::new();
    let _ = socket.write_all(format!("{command}\n").as_bytes());
    let _ = socket.read_to_string(&mut answer);
    answer
}

/// The state of a server in `show stat`: UP, DOWN, DRAIN, ….
fn is_in_state(path: &Path, server: &str, state: &str) -> bool {
    admin(path, "show stat").lines().any(|line| {
        let fields: Vec<_> = line.split(',').collect();
        fields.len() > 17 && fields[..2] == ["echo", server] && fields[17].starts_with(state)
    })
}

fn has_sessions(path: &Path, server: &str) -> bool {
    admin(path, "show stat").lines().any(|line| {
        let fields: Vec<_> = line.split(',').collect();
        fields.len() > 4 && fields[..2] == ["echo", server] && fields[4] != "0"
    })
}

#[test]
fn a_rolling_restart_behind_haproxy_loses_no_connection() {
    let Some(mut haproxy) = tool("haproxy") else { return };
    let folder = Folder::new();
    let mut servers = [start_behind_a_proxy("127.0.0.1:0"), start_behind_a_proxy("127.0.0.1:0")];
    let socket = folder.path("admin.sock");
    let addresses = servers.each_ref().map(|server| server.addr().to_owned());
    let config = adapted(
        "haproxy.cfg",
        &folder,
        &[
            // A socket that is passed has its port already.
            ("bind :1234", "bind fd@0"),
            ("127.0.0.1:2001", &addresses[0]),
            ("127.0.0.1:2002", &addresses[1]),
            ("/run/haproxy/admin.sock", socket.to_str().unwrap()),
            ("inter 2s", "inter 50ms"),
        ],
    );
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let front = listener.local_addr().unwrap().to_string();
    let _proxy = Proxy::start(haproxy.arg("-db").arg("-f").arg(config), OwnedFd::from(listener));
    until("both are up", || ["one", "two"].iter().all(|name| is_in_state(&socket, name, "UP")));

    let (stop, served, lost) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !stop.load(SeqCst) {
                    let mut client = Client::connect(&front);
                    let own = client.local_addr().to_string();
                    let right = matches!(client.try_ask("PEER"), Ok(answer) if answer == own);
                    if right { &served } else { &lost }.fetch_add(1, SeqCst);
                }
            });
        }
        for (at, name) in ["one", "two"].into_iter().enumerate() {
            let before = served.load(SeqCst);
            until("clients are served", || served.load(SeqCst) > before + 20);
            admin(&socket, &format!("set server echo/{name} state drain"));
            until("it has no clients", || !has_sessions(&socket, name));
            assert_eq!(servers[at].term().code(), Some(0));
            let between = served.load(SeqCst);
            until("the other one serves", || served.load(SeqCst) > between + 20);
            servers[at] = start_behind_a_proxy(&addresses[at]);
            admin(&socket, &format!("set server echo/{name} state ready"));
            until("it is up", || is_in_state(&socket, name, "UP"));
        }
        stop.store(true, SeqCst);
    });
    assert_eq!(lost.load(SeqCst), 0, "of {}", served.load(SeqCst));
    for server in &servers {
        let errors: Vec<_> = server.stderr().into_iter().filter(|line| line.contains("ERROR")).collect();
        assert!(errors.is_empty(), "checks are no failures: {errors:?}");
    }
}

#[test]
fn nginx_tells_the_servers_their_clients() {
    let Some(mut nginx) = tool("nginx") else { return };
    let folder = Folder::new();
    let servers = [start_behind_a_proxy("127.0.0.1:0"), start_behind_a_proxy("127.0.0.1:0")];
    // An address of this test's own: nobody else takes the port between this look and nginx's bind.
    let own = std::process::id().to_be_bytes();
    let front: SocketAddr = ([127, own[1] | 64, own[2], own[3]], 0).into();
    let front = TcpListener::bind(front).and_then(|listener| listener.local_addr()).unwrap().to_string();
    let config = adapted(
        "nginx.conf",
        &folder,
        &[
            ("listen 1234", &format!("listen {front}")),
            ("127.0.0.1:2001", servers[0].addr()),
            ("127.0.0.1:2002", servers[1].addr()),
            ("events {}", &format!("pid {};\nerror_log {};\nevents {{}}", "nginx.pid", "error.log")),
        ],
    );
    let prefix = folder.path("");
    let _proxy = Proxy::start(
        nginx.arg("-p").arg(&prefix).arg("-c").arg(config).args(["-g", "daemon off;", "-e", "error.log"]),
        Stdio::null(),
    );
    until("nginx listens", || std::net::TcpStream::connect(&front).is_ok());
    for _ in 0..4 {
        let mut client = Client::connect(&front);
        let own = client.local_addr().to_string();
        assert_eq!(client.ask("PEER"), own);
    }
}
