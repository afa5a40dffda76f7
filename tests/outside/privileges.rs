//! `run_as`: from root to another user, for good.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use crate::kit::Folder;
use crate::support::{example, output, until, Server};

pub fn is_root() -> bool {
    let is_root = fs::metadata("/proc/self").unwrap().uid() == 0;
    if !is_root {
        println!("skipped: only root can become another user");
    }
    is_root
}

/// A line of /proc/PID/status, without its name.
pub fn status(pid: &str, name: &str) -> Vec<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name}:"))).unwrap();
    line.split_whitespace().map(str::to_owned).collect()
}

pub fn number_of(flag: &str) -> String {
    let output = Command::new("id").args([flag, "nobody"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn every_process_of_a_server_is_the_other_user_without_rights() {
    if !is_root() {
        return;
    }
    let (uid, gid) = (number_of("-u"), number_of("-g"));
    for strategy in ["sequential", "threading", "thread-pool", "forking", "preforking", "event-loop", "event-loops"] {
        let folder = Folder::new();
        let address = format!("unix:{}", folder.path("s").display());
        let args = ["--strategy", strategy, "--workers", "2", "--run-as", "nobody"];
        let mut server = Server::start_at(&address, "torture_server", &args);
        let mut client = server.connect();
        let answer = client.ask("PID"); // the process and the thread
        let serving = answer.split(' ').next().unwrap().to_owned();
        for pid in [server.pid().to_string(), serving] {
            assert_eq!(status(&pid, "Uid"), [uid.as_str(); 4], "{strategy}");
            assert_eq!(status(&pid, "Gid"), [gid.as_str(); 4], "{strategy}");
            assert_eq!(status(&pid, "Groups"), [gid.as_str()], "{strategy}");
            assert_eq!(status(&pid, "NoNewPrivs"), ["1"], "{strategy}");
            for rights in ["CapPrm", "CapEff", "CapAmb"] {
                assert_eq!(status(&pid, rights), ["0000000000000000"], "{strategy} {rights}");
            }
        }
        client.send("CLOSE\n");
        client.until_closed();
        assert_eq!(server.term().code(), Some(0), "{strategy}");
        // The user may not remove files from root's folder.
        assert!(folder.path("s").exists(), "{strategy}");
    }
}

#[test]
fn a_restart_as_root_takes_the_socket_that_was_left() {
    if !is_root() {
        return;
    }
    let folder = Folder::new();
    let address = format!("unix:{}", folder.path("s").display());
    for _ in 0..2 {
        let mut server = Server::start_at(&address, "torture_server", &["--run-as", "nobody"]);
        assert_eq!(server.ask("ECHO hello"), "hello");
        until("the client is gone", || server.stats().add_up());
        assert_eq!(server.term().code(), Some(0));
    }
}

#[test]
fn what_cannot_be_is_told_before_it_listens() {
    let told = |user: &str, as_root: bool| {
        let mut command = Command::new(example("torture_server"));
        command.args(["127.0.0.1:0", "--run-as", user]);
        if !as_root {
            command.uid(65534).gid(65534);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let output = output(command.spawn().unwrap(), "torture_server");
        assert!(output.stdout.is_empty());
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).unwrap()
    };
    let unknown = told("no-such-user", true);
    assert!(unknown.contains("run_as: this machine has no user \"no-such-user\""), "{unknown}");
    if is_root() {
        let refused = told("root", false);
        assert!(refused.contains("cannot run as root: EPERM") && refused.contains("as root"), "{refused}");
    }
}
