//! Servers where the system refuses: failures of system calls, injected by strace, and a system without /proc.

use std::fs;
use std::process::{Command, Output, Stdio};

use crate::support::{example, output, tool, Server, AT_ONCE};

/// An echo server in an event loop, under strace with this injection; `None` where there is no strace.
fn echo_with(injection: &str) -> Option<Server> {
    let mut strace = tool("strace")?;
    strace.args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=epoll_ctl,epoll_wait,epoll_pwait", "-e", injection]);
    strace.arg(example("echo_server"));
    Some(Server::start_command(strace, "127.0.0.1:0", &["--strategy", "event-loop"]))
}

#[test]
fn e8_an_interrupted_wait_is_waited_again() {
    let Some(server) = echo_with("inject=epoll_wait,epoll_pwait:error=EINTR:when=1+2") else { return };
    for n in 0..20 {
        assert_eq!(server.connect().ask(&n.to_string()), n.to_string());
    }
}

/// From the first connection's registration on, those before being the loop's own.
#[test]
fn e8_a_connection_that_cannot_be_watched_ends_and_no_other() {
    let Some(server) = echo_with("inject=epoll_ctl:error=ENOSPC:when=17..18") else { return };
    let (mut first, mut second) = (server.connect(), server.connect());
    assert_eq!((first.rest(), second.rest()), (String::new(), String::new()));
    server.until_logged("cannot watch the socket: No space left on device");
    assert_eq!(server.connect().ask("the next one is served"), "the next one is served");
}

/// What a server says that does not get so far as to listen.
fn refusal(mut command: Command) -> Output {
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    output(child, "a server that cannot serve")
}

/// As on Linux before 5.3, in a sandbox, and on 5.3.
#[test]
fn without_pidfds_a_strategy_that_forks_says_so_before_it_listens() {
    for injection in ["pidfd_open:error=ENOSYS", "pidfd_open:error=EPERM", "waitid:error=EINVAL"] {
        for strategy in ["forking", "preforking"] {
            let Some(mut strace) = tool("strace") else { return };
            strace.args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("inject={injection}")]);
            strace.arg(example("torture_server")).args(["127.0.0.1:0", "--strategy", strategy]);
            let refusal = refusal(strace);
            let said = String::from_utf8_lossy(&refusal.stderr);
            assert!(said.starts_with("Error: cannot watch child processes by pidfd; Linux 5.4"), "{injection}: {said}");
            assert_eq!((refusal.stdout.len(), refusal.status.code()), (0, Some(1)), "{strategy} {injection}");
        }
    }
}

/// A command for the torture server in a system whose /proc is empty. `None` if we may not mount.
fn without_proc() -> Option<Command> {
    let mut unshare = tool("unshare")?;
    let script = "mount -t tmpfs none /proc && exec \"$@\"";
    let mut in_vain = Command::new("unshare");
    let may_mount = in_vain.args(["-m", "sh", "-c", script, "sh", "true"]).stderr(Stdio::null()).status();
    if !may_mount.unwrap().success() {
        println!("skipped: only root may mount");
        return None;
    }
    unshare.args(["-m", "sh", "-c", script, "sh"]).arg(example("torture_server"));
    Some(unshare)
}

#[test]
fn without_proc_a_strategy_that_forks_says_so_and_the_others_serve() {
    for strategy in ["forking", "preforking"] {
        let Some(mut command) = without_proc() else { return };
        command.args(["127.0.0.1:0", "--strategy", strategy]);
        let refusal = refusal(command);
        let said = String::from_utf8_lossy(&refusal.stderr);
        assert!(said.contains("cannot count the threads") && said.contains("mount /proc"), "{strategy}: {said}");
        assert_eq!((refusal.stdout.len(), refusal.status.code()), (0, Some(1)), "{strategy}");
    }
    for strategy in ["sequential", "threading", "thread-pool", "event-loop", "event-loops"] {
        let Some(command) = without_proc() else { return };
        let mut server = Server::start_command(command, "127.0.0.1:0", &["--strategy", strategy]);
        assert_eq!(server.ask("ECHO served"), "served");
        server.term().well_within(AT_ONCE * 5);
    }
}

#[test]
fn without_proc_a_dead_unix_socket_is_replaced_and_a_living_one_is_not() {
    let folder = std::env::temp_dir().join(format!("socketserver-no-proc-{}", std::process::id()));
    fs::create_dir(&folder).unwrap();
    let addr = format!("unix:{}/socket", folder.display());
    let Some(command) = without_proc() else { return fs::remove_dir_all(folder).unwrap() };
    let mut first = Server::start_command(command, &addr, &[]);
    first.signal("KILL");
    first.ended();
    let next = Server::start_command(without_proc().unwrap(), &addr, &[]);
    assert_eq!(next.ask("ECHO again"), "again");
    fs::remove_file(folder.join("socket.lock")).unwrap(); // so that the socket itself is asked
    let mut third = without_proc().unwrap();
    third.arg(&addr);
    let said = refusal(third).stderr;
    assert!(String::from_utf8_lossy(&said).contains("another program listens there"), "{said:?}");
    assert_eq!(next.ask("ECHO still"), "still");
    drop(next);
    fs::remove_dir_all(folder).unwrap();
}
