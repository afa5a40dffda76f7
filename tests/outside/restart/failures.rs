//! A successor that fails, ends, hangs or is interrupted leaves the old process serving, and the log has the reason.

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;

use super::{is_gone, master, signal, successor_of, STRATEGIES};
use crate::kit::Folder;
use crate::support::{example, install, procfs, queues, until, Server, AT_ONCE};

/// A program in a folder of its own, which a test replaces as a deploy does.
pub(super) struct Deployed {
    pub(super) path: PathBuf,
    _folder: Folder,
}

impl Deployed {
    pub(super) fn new() -> Self {
        let folder = Folder::new();
        let this = Self { path: folder.path("server"), _folder: folder };
        this.put_back();
        this
    }

    /// Puts the real program there.
    fn put_back(&self) {
        self.install(&example("torture_server"));
    }

    /// Puts a script there.
    fn put(&self, script: &str) {
        let text = self.path.with_extension("text");
        fs::write(&text, format!("#!/bin/sh\n{script}\n")).unwrap();
        self.install(&text);
    }

    /// A rename: a program that runs cannot be written to.
    fn install(&self, from: &Path) {
        let new = self.path.with_extension("new");
        install(from, &new);
        fs::rename(new, &self.path).unwrap();
    }

    fn start(&self, args: &[&str]) -> Server {
        Server::start_command(Command::new(&self.path), "127.0.0.1:0", args)
    }
}

#[test]
fn a_successor_that_fails_leaves_the_old_one_serving_with_the_reason_in_the_log() {
    for strategy in STRATEGIES {
        let program = Deployed::new();
        let args = ["--strategy", strategy, "--workers", "2", "--restart-timeout", "60000"];
        let mut old = program.start(&args);
        fs::remove_file(&program.path).unwrap();
        old.signal("USR2");
        let path = program.path.display();
        old.until_logged(&format!("cannot restart: cannot start {path}: No such file or directory"));
        program.put("exit 7");
        old.signal("USR2");
        old.until_logged("exited with 7 before it was ready; its own output has the reason");
        program.put("kill -s SEGV $$");
        old.signal("USR2");
        old.until_logged("was killed by SIGSEGV before it was ready");
        assert_eq!(master(old.addr()), old.pid(), "{strategy}");
        until("the children of its clients are reaped", || procfs::zombies(old.pid()) == 0);
        // The path of the first program still counts.
        program.put_back();
        old.signal("USR2");
        successor_of(old.pid(), old.addr());
        old.ended().well_within(AT_ONCE);
    }
}

#[test]
fn a_successor_that_hangs_is_ended_and_only_one_restart_is_made_at_a_time() {
    for strategy in STRATEGIES {
        let program = Deployed::new();
        let old = program.start(&["--strategy", strategy, "--workers", "2", "--restart-timeout", "1000"]);
        program.put(&format!("echo $$ > {}; exec sleep 1000", program.path.with_extension("pid").display()));
        old.signal("USR2");
        let pid = started(&program);
        old.signal("USR2");
        old.until_logged("another restart is under way");
        old.until_logged("was not ready within 1s");
        until("the successor ends", || is_gone(pid));
        assert_eq!(master(old.addr()), old.pid(), "{strategy}");
        program.put_back();
        until("the next restart succeeds", || {
            old.signal("USR2");
            old.stderr().iter().any(|line| line.contains("serves now, and this one drains"))
        });
    }
}

#[test]
fn a_stop_ends_a_restart_that_is_under_way() {
    for strategy in STRATEGIES {
        let program = Deployed::new();
        let mut old = program.start(&["--strategy", strategy, "--workers", "2", "--drain", "500"]);
        // It does not end at SIGTERM.
        program.put(&format!("trap '' TERM; echo $$ > {}; sleep 2", program.path.with_extension("pid").display()));
        old.signal("USR2");
        let pid = started(&program);
        old.term().well_within(AT_ONCE);
        old.until_logged("cannot restart: this server stops");
        until("the successor ends", || is_gone(pid));
    }
}

/// Waits for the script, and returns its process number.
fn started(program: &Deployed) -> u32 {
    let mut pid = None;
    until("the successor runs", || {
        pid = fs::read_to_string(program.path.with_extension("pid")).ok().and_then(|text| text.trim().parse().ok());
        pid.is_some()
    });
    pid.unwrap()
}

/// The second generation is killed before it serves: its descriptors are the old one's too.
#[test]
fn a_successor_that_is_killed_leaves_the_socket_and_its_file() {
    let folder = Folder::new();
    let addr = format!("unix:{}", folder.path("s").display());
    let program = Deployed::new();
    let mut old = Server::start_command(Command::new(&program.path), &addr, &["--restart-timeout", "60000"]);
    program.put(&format!("echo $$ > {}; exec sleep 1000", program.path.with_extension("pid").display()));
    old.signal("USR2");
    signal("KILL", started(&program));
    old.until_logged("was killed by SIGKILL before it was ready");
    assert_eq!(master(&addr), old.pid());
    old.term().well_within(AT_ONCE);
    assert!(!folder.path("s").exists() && !folder.path("s.lock").exists());
}

/// Loops and masters look at signals in their drain, too.
#[test]
fn a_restart_that_is_asked_for_with_a_stop_or_after_it_is_refused() {
    let is_left = |server: &Server| TcpStream::connect(server.addr()).is_ok();
    for strategy in STRATEGIES {
        let args = ["--strategy", strategy, "--workers", "2", "--drain", "60000"];
        let mut server = Server::start("torture_server", &args);
        ["STOP", "USR2", "TERM", "CONT"].into_iter().for_each(|name| server.signal(name));
        server.ended().well_within(AT_ONCE);
        until(&format!("{strategy}: nobody listens"), || !is_left(&server));

        let mut server = Server::start("torture_server", &args);
        let port = server.addr().rsplit(':').next().unwrap().parse().unwrap();
        let mut client = server.connect();
        client.send("SLEEP 1000\n");
        until("the request is taken", || server.queued() == 0 && queues::unread_on(&[port]) == 0);
        server.signal_and_see_it_taken("TERM");
        let _ = Command::new("kill").args(["-s", "USR2", &server.pid().to_string()]).output(); // it may have ended
        assert_eq!(client.line(), "slept", "{strategy}");
        // After its run, the signal is the program's again, which has no handler for it.
        let ended = server.ended();
        assert!(ended.after < AT_ONCE, "{ended:?}");
        assert!(ended.code() == Some(0) || ended.signal() == Some(Signal::SIGUSR2 as i32), "{strategy}: {ended:?}");
        until(&format!("{strategy}: nobody listens after the drain"), || !is_left(&server));
    }
}
