//! Reports to the service manager: what it is told, and when (sd_notify(3)).

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::Command;
use std::time::Duration;

use crate::kit::{Folder, LONG};
use crate::support::{example, install, uninterrupted, until, Server};

/// A service manager, as a server sees it.
struct Manager {
    socket: UnixDatagram,
    name: String,
    _folder: Folder,
}

impl Manager {
    fn at_a_path() -> Self {
        let folder = Folder::new();
        let path = folder.path("notify");
        Self::of(UnixDatagram::bind(&path).unwrap(), path.display().to_string(), folder)
    }

    fn at_an_abstract_name() -> Self {
        let folder = Folder::new();
        let name = folder.path("notify").display().to_string().replace('/', "-");
        let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        Self::of(socket, format!("@{name}"), folder)
    }

    fn of(socket: UnixDatagram, name: String, folder: Folder) -> Self {
        socket.set_read_timeout(Some(LONG)).unwrap();
        Self { socket, name, _folder: folder }
    }

    fn start(&self, strategy: &str, watchdog: Option<Duration>) -> Server {
        let mut command = match watchdog {
            None => Command::new(example("torture_server")),
            Some(time) => {
                // As systemd: the watchdog is for the process that it starts.
                let mut command = Command::new("sh");
                let set = format!("export WATCHDOG_USEC={} WATCHDOG_PID=$$; exec \"$0\" \"$@\"", time.as_micros());
                command.args(["-c", &set]).arg(example("torture_server"));
                command
            }
        };
        command.env("NOTIFY_SOCKET", &self.name);
        Server::start_command(command, "127.0.0.1:0", &["--strategy", strategy, "--workers", "2", "--notify", "yes"])
    }

    /// The messages that have come and were not heard.
    fn all_so_far(&self) -> String {
        self.socket.set_nonblocking(true).unwrap();
        let (mut buffer, mut text) = ([0; 4096], String::new());
        while let Ok(n) = self.socket.recv(&mut buffer) {
            text += &String::from_utf8_lossy(&buffer[..n]);
            text.push('\n');
        }
        self.socket.set_nonblocking(false).unwrap();
        text
    }

    /// The next message that has this line.
    fn hears(&self, line: &str) -> Vec<String> {
        let mut buffer = [0; 4096];
        loop {
            let received = uninterrupted(|| self.socket.recv(&mut buffer));
            let n = received.unwrap_or_else(|e| panic!("no message with {line}: {e}"));
            let text = String::from_utf8(buffer[..n].to_vec()).unwrap();
            let lines: Vec<_> = text.lines().map(str::to_owned).collect();
            if lines.iter().any(|l| l == line) {
                return lines;
            }
        }
    }
}

const STRATEGIES: [&str; 7] =
    ["sequential", "threading", "thread-pool", "forking", "preforking", "event-loop", "event-loops"];

#[test]
fn every_strategy_reports_that_it_is_ready_and_that_it_stops() {
    for (i, strategy) in STRATEGIES.into_iter().enumerate() {
        let manager = if i % 2 == 0 { Manager::at_a_path() } else { Manager::at_an_abstract_name() };
        let mut server = manager.start(strategy, None);
        let ready = manager.hears("READY=1");
        assert!(ready.contains(&format!("MAINPID={}", server.pid())), "{strategy}: {ready:?}");
        assert!(ready.iter().any(|line| line.starts_with("STATUS=active 0 of ")), "{strategy}: {ready:?}");
        // A client is served at once: nothing was said too early.
        assert_eq!(server.ask("ECHO hello"), "hello", "{strategy}");
        server.until_stats("the client is gone", |stats| stats.add_up());
        server.signal("TERM");
        let stopping = manager.hears("STOPPING=1");
        assert!(stopping.iter().any(|line| line.contains("accepted ")), "{strategy}: {stopping:?}");
        assert_eq!(server.ended().code(), Some(0), "{strategy}");
    }
}

#[test]
fn a_reload_is_reported_with_its_time_and_its_end() {
    let manager = Manager::at_a_path();
    let server = manager.start("preforking", None);
    manager.hears("READY=1");
    server.signal("HUP");
    let reloading = manager.hears("RELOADING=1");
    let usec = reloading.iter().find_map(|line| line.strip_prefix("MONOTONIC_USEC="));
    assert!(usec.is_some_and(|usec| usec.parse::<u64>().is_ok_and(|usec| usec > 0)), "{reloading:?}");
    manager.hears("READY=1");
}

#[test]
fn a_watchdog_hears_from_a_server_that_lives() {
    for strategy in STRATEGIES {
        let manager = Manager::at_a_path();
        let _server = manager.start(strategy, Some(Duration::from_millis(200)));
        manager.hears("READY=1");
        for _ in 0..3 {
            let alive = manager.hears("WATCHDOG=1");
            assert!(alive.iter().any(|line| line.starts_with("STATUS=active ")), "{strategy}: {alive:?}");
        }
    }
}

#[test]
fn a_watchdog_hears_nothing_from_a_loop_that_hangs() {
    for strategy in ["event-loop", "event-loops", "sequential"] {
        let manager = Manager::at_a_path();
        let server = manager.start(strategy, Some(Duration::from_millis(100)));
        manager.hears("READY=1");
        let mut client = server.connect();
        client.send("SPIN\n");
        manager.socket.set_nonblocking(true).unwrap();
        let mut buffer = [0; 4096];
        // The loop may be in its last turns. Once it hangs, ten periods bring nothing.
        until("the watchdog hears nothing for ten periods", || {
            while manager.socket.recv(&mut buffer).is_ok() {}
            std::thread::sleep(Duration::from_millis(500));
            manager.socket.recv(&mut buffer).is_err()
        });
    }
}

#[test]
fn a_server_whose_manager_is_not_there_warns_and_serves() {
    for (name, why) in [
        ("/nonexistent/notify", "NOTIFY_SOCKET is /nonexistent/notify: No such file or directory"),
        ("tcp:1", "NOTIFY_SOCKET is tcp:1: it is neither a path nor @NAME"),
    ] {
        let mut command = Command::new(example("torture_server"));
        command.env("NOTIFY_SOCKET", name);
        let mut server = Server::start_command(command, "127.0.0.1:0", &["--notify", "yes"]);
        server.until_logged(why);
        assert_eq!(server.ask("ECHO hello"), "hello");
        assert_eq!(server.term().code(), Some(0));
    }
}

#[test]
fn a_restart_is_a_reload_with_a_new_main_process() {
    for strategy in ["sequential", "threading", "forking", "preforking", "event-loop"] {
        let manager = Manager::at_a_path();
        let mut server = manager.start(strategy, Some(Duration::from_secs(4)));
        manager.hears("READY=1");
        server.signal("USR2");
        let begins = manager.hears("RELOADING=1");
        assert!(begins.iter().any(|line| line.starts_with("MONOTONIC_USEC=")), "{strategy}: {begins:?}");
        // The new process reports READY too. A manager does not hear it before the old one has named it.
        let old = server.pid();
        let of_the_old = loop {
            let said = manager.hears("READY=1");
            if said.iter().any(|line| line.ends_with(" serves")) {
                break said;
            }
        };
        let new = of_the_old.iter().find_map(|line| line.strip_prefix("MAINPID=")).unwrap().to_owned();
        assert_ne!(new, old.to_string());
        assert!(of_the_old.contains(&format!("STATUS=process {new} serves")), "{strategy}: {of_the_old:?}");
        assert_eq!(server.ended().code(), Some(0));
        assert!(!manager.all_so_far().contains("STOPPING=1"), "{strategy}: the service does not stop");
        // The watchdog goes over.
        manager.hears("WATCHDOG=1");
        assert!(Command::new("kill").args(["-TERM", &new]).status().unwrap().success());
        manager.hears("STOPPING=1");
    }
}

#[test]
fn a_restart_that_fails_ends_the_reload() {
    let manager = Manager::at_a_path();
    let folder = Folder::new();
    let program = folder.path("server");
    install(&example("torture_server"), &program);
    let mut command = Command::new(&program);
    command.env("NOTIFY_SOCKET", &manager.name);
    let server = Server::start_command(command, "127.0.0.1:0", &["--notify", "yes"]);
    manager.hears("READY=1");
    std::fs::remove_file(&program).unwrap();
    server.signal("USR2");
    manager.hears("RELOADING=1");
    manager.hears("READY=1");
}
