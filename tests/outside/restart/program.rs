//! `ServerHandle::restart` and `request_restart`: what they return, and a program with several servers.

use std::env;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use socketserver::{handler, Connection, Error, HandlerResult, Sequential, ServerBuilder, Threading};

use super::{is_gone, signal};
use crate::kit::Folder;
use crate::support::{example, until, Client, Server};

const LIMIT: Duration = Duration::from_secs(60);

/// Answers with the process, or restarts.
fn answer(conn: &mut Connection) -> HandlerResult {
    while let Some(line) = conn.next_line()? {
        match line.as_str() {
            "restart" => match conn.server().restart() {
                Ok(pid) => conn.send_line(pid.to_string())?,
                Err(e) => conn.send_line(e.to_string())?,
            },
            "request" => conn.send_line(format!("{:?}", conn.server().request_restart()))?,
            _ => conn.send_line(std::process::id().to_string())?,
        }
    }
    Ok(())
}

/// The program: two servers on addresses that are written alike, one of them on a Unix socket too. A file `alone`
/// keeps the second from coming back.
fn serve(folder: &Path) {
    let limit = if folder.join("short").exists() { Duration::from_secs(2) } else { LIMIT };
    let builder = || ServerBuilder::new().handle_signals().restartable(limit).listen(folder.join("s"));
    let first = builder().bind("127.0.0.1:0", handler(answer)).unwrap();
    let mut servers = vec![first];
    if !folder.join("alone").exists() {
        let second = ServerBuilder::new().handle_signals().restartable(limit).bind("127.0.0.1:0", handler(answer));
        servers.push(second.unwrap());
    }
    let addresses: Vec<_> = servers.iter().map(|server| server.local_addr().to_string()).collect();
    fs::write(folder.join("new"), addresses.join("\n")).unwrap();
    fs::rename(folder.join("new"), folder.join("addresses")).unwrap();
    thread::scope(|scope| {
        for mut server in servers {
            scope.spawn(move || server.serve_forever().unwrap());
        }
    });
}

/// A running program, and its folder.
struct Program {
    child: Child,
    folder: PathBuf,
    _goes_with_it: Folder,
}

impl Program {
    /// Starts this test as a program. `None` in that program, once it has served.
    fn of(test: &str, files: &[&str]) -> Option<Self> {
        if let Some(folder) = env::var_os("CASE") {
            serve(Path::new(&folder));
            return None;
        }
        let goes_with_it = Folder::new();
        let folder = goes_with_it.path("");
        files.iter().for_each(|file| fs::write(folder.join(file), "").unwrap());
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["--exact", test, "--nocapture"]).env("CASE", &folder).stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.stderr(Stdio::piped()).spawn().unwrap();
        let program = Self { child, folder, _goes_with_it: goes_with_it };
        until("it listens", || program.folder.join("addresses").exists());
        Some(program)
    }

    fn addresses(&self) -> Vec<String> {
        fs::read_to_string(self.folder.join("addresses")).unwrap().lines().map(str::to_owned).collect()
    }

    fn unix(&self) -> String {
        format!("unix:{}", self.folder.join("s").display())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_handler_restarts_a_program_with_two_servers() {
    let test = "restart::program::a_handler_restarts_a_program_with_two_servers";
    let Some(program) = Program::of(test, &[]) else { return };
    let addresses = program.addresses();
    assert_eq!(addresses.len(), 2);
    let mut now = program.child.id();
    for _ in 0..3 {
        let told = Client::connect(&addresses[0]).ask("restart");
        let new: u32 = told.parse().unwrap_or_else(|_| panic!("{told}"));
        assert_ne!(new, now);
        until("the former process ends", || is_gone(now));
        now = new;
        for address in [&addresses[0], &addresses[1], &program.unix()] {
            assert_eq!(Client::connect(address).ask("pid"), now.to_string(), "{address}");
        }
        assert_eq!(program.addresses(), addresses, "free ports stay the same");
    }
    signal("TERM", now);
    until("it ends", || is_gone(now));
}

#[test]
fn a_successor_that_leaves_a_server_out_does_not_take_over() {
    let test = "restart::program::a_successor_that_leaves_a_server_out_does_not_take_over";
    let Some(program) = Program::of(test, &["short"]) else { return };
    let (addresses, old) = (program.addresses(), program.child.id().to_string());
    fs::write(program.folder.join("alone"), "").unwrap();
    let told = Client::connect(&addresses[0]).ask("restart");
    let new = told.strip_prefix("cannot restart: process ").and_then(|it| it.strip_suffix(" was not ready within 2s"));
    let new: u32 = new.and_then(|pid| pid.parse().ok()).unwrap_or_else(|| panic!("{told}"));
    until("the old one serves alone again", || is_gone(new));
    assert_eq!(Client::connect(&addresses[0]).ask("pid"), old);
    assert_eq!(Client::connect(&addresses[1]).ask("pid"), old);
    assert_eq!(Client::connect(&program.unix()).ask("pid"), old, "its file is still there");
}

#[test]
fn a_restart_that_cannot_be_is_an_error_with_the_reason() {
    // Not asked for.
    let plain = ServerBuilder::new().bind("127.0.0.1:0", handler(answer)).unwrap();
    for told in [plain.handle().restart().map(drop), plain.handle().request_restart()] {
        let Err(Error::Setting { why, .. }) = told else { panic!("{told:?}") };
        assert_eq!(why, "this server was not made with ServerBuilder::restartable");
    }
    // A socket that the successor would bind by itself.
    let own = TcpListener::bind("127.0.0.1:0").unwrap();
    let told = ServerBuilder::new().restartable(LIMIT).from_listener(own, handler(answer)).unwrap_err();
    assert!(told.to_string().starts_with("restartable: "), "{told}");
    let told = ServerBuilder::new().restartable(Duration::ZERO).bind("127.0.0.1:0", handler(answer)).unwrap_err();
    assert!(told.to_string().starts_with("restartable: "), "{told}");
    // Nobody serves, so nobody would do it.
    let server = ServerBuilder::new().restartable(LIMIT).bind("127.0.0.1:0", handler(answer)).unwrap();
    let told = server.handle().restart().unwrap_err().to_string();
    assert_eq!(told, "cannot restart: no server that is restartable is in serve_forever");
}

#[test]
fn a_serving_thread_does_not_wait_for_itself() {
    let (tell, told) = channel();
    let (give, given) = channel::<socketserver::ServerHandle>();
    let given = std::sync::Mutex::new(given);
    let ask = move || {
        if let Ok(handle) = given.lock().unwrap().try_recv() {
            tell.send(handle.restart().unwrap_err().to_string()).unwrap();
        }
    };
    let builder = ServerBuilder::new().restartable(LIMIT).service_actions(Duration::from_millis(1), ask);
    let mut server = builder.strategy(Threading::new()).bind("127.0.0.1:0", handler(answer)).unwrap();
    let handle = server.handle();
    let serving = thread::spawn(move || server.serve_forever());
    give.send(handle.clone()).unwrap();
    assert!(told.recv().unwrap().starts_with("cannot restart: this thread serves, and cannot wait for it"));
    handle.shutdown();
    serving.join().unwrap().unwrap();
    // With `Sequential` it is the thread of the handler.
    let builder = ServerBuilder::new().restartable(LIMIT).strategy(Sequential);
    let mut server = builder.bind("127.0.0.1:0", handler(answer)).unwrap();
    let (addr, handle) = (server.local_addr().to_string(), server.handle());
    let serving = thread::spawn(move || server.serve_forever());
    let mut client = Client::connect(&addr);
    assert!(client.ask("restart").starts_with("cannot restart: this thread serves, and cannot wait for it"));
    handle.shutdown();
    drop(client);
    serving.join().unwrap().unwrap();
}

#[test]
fn a_variable_that_makes_no_sense_is_an_error_at_the_bind() {
    for (value, why) in [
        ("nonsense", "SOCKETSERVER_RESTART is malformed"),
        ("$$ 99 s127.0.0.1:0=98", "Bad file descriptor"),
        ("$$ x s127.0.0.1:0=98", "SOCKETSERVER_RESTART is malformed"),
        ("$$ 0 s127.0.0.1:0=", "a socket is described as"),
    ] {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("SOCKETSERVER_RESTART=\"{value}\" exec \"$0\" 127.0.0.1:0")]);
        let output = command.arg(example("torture_server")).stdin(Stdio::null()).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(
            text.contains(why) && text.contains("cannot take over 127.0.0.1:0") && !output.status.success(),
            "{text}"
        );
    }
}

#[test]
fn the_sockets_of_another_process_are_left_alone() {
    let mut command = Command::new(example("torture_server"));
    command.env("SOCKETSERVER_RESTART", "0000000001 3 s127.0.0.1:0=4");
    let server = Server::start_command(command, "127.0.0.1:0", &[]);
    assert_eq!(server.ask("ECHO hello"), "hello");
}
