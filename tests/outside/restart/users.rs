//! Restarts of servers that have given root's rights up (`run_as`).

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use super::failures::Deployed;
use super::{is_gone, master, signal, successor_of, STRATEGIES};
use crate::kit::Folder;
use crate::privileges::{is_root, number_of, status};
use crate::support::{until, Server, AT_ONCE};

/// A program that every user may execute.
fn deployed() -> Deployed {
    let program = Deployed::new();
    set_mode(program.path.parent().unwrap(), 0o755);
    set_mode(&program.path, 0o755);
    program
}

fn set_mode(path: &std::path::Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// The new process is the other user from its start. It could not bind in root's folder itself.
#[test]
fn the_new_process_is_the_other_user_and_has_the_sockets() {
    if !is_root() {
        return;
    }
    let (uid, gid) = (number_of("-u"), number_of("-g"));
    for strategy in STRATEGIES {
        let (program, folder) = (deployed(), Folder::new());
        set_mode(&folder.path(""), 0o755);
        let addr = format!("unix:{}", folder.path("s").display());
        let args = ["--strategy", strategy, "--workers", "2", "--run-as", "nobody"];
        let mut old = Server::start_command(Command::new(&program.path), &addr, &args);
        let mut now = old.pid();
        for _ in 0..2 {
            signal("USR2", now);
            let former = now;
            now = successor_of(former, &addr);
            until("the former process ends", || is_gone(former) || !old.is_running() && former == old.pid());
            let pid = now.to_string();
            assert_eq!(status(&pid, "Uid"), [uid.as_str(); 4], "{strategy}");
            assert_eq!(status(&pid, "Gid"), [gid.as_str(); 4], "{strategy}");
            assert_eq!(status(&pid, "Groups"), [gid.as_str()], "{strategy}");
            assert_eq!(status(&pid, "NoNewPrivs"), ["1"], "{strategy}");
            assert_eq!(status(&pid, "CapEff"), ["0000000000000000"], "{strategy}");
        }
        signal("TERM", now);
        until("the last process ends", || is_gone(now));
    }
}

#[test]
fn a_program_that_the_user_may_not_execute_leaves_the_old_one_serving() {
    if !is_root() {
        return;
    }
    let program = deployed();
    let mut old = Server::start_command(Command::new(&program.path), "127.0.0.1:0", &["--run-as", "nobody"]);
    set_mode(&program.path, 0o700);
    signal("USR2", old.pid());
    let path = program.path.display();
    old.until_logged(&format!("cannot restart: cannot start {path}: Permission denied"));
    assert_eq!(master(old.addr()), old.pid());
    set_mode(&program.path, 0o755);
    signal("USR2", old.pid());
    successor_of(old.pid(), old.addr());
    old.ended().well_within(AT_ONCE);
}
