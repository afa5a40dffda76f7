//! The loop where the system refuses: failures of epoll, injected by strace.

use crate::support::{example, tool, Server};

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
    let Some(server) = echo_with("inject=epoll_ctl:error=ENOSPC:when=12..13") else { return };
    let (mut first, mut second) = (server.connect(), server.connect());
    assert_eq!((first.rest(), second.rest()), (String::new(), String::new()));
    server.until_logged("cannot watch the socket: No space left on device");
    assert_eq!(server.connect().ask("the next one is served"), "the next one is served");
}
