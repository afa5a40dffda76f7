//! Signals of a server, and of the programs that its handlers start.

use super::*;

pub(crate) fn handling_signals() {
    let builder = ServerBuilder::new().strategy(Forking::new()).handle_signals();
    let mut server = builder.bind("127.0.0.1:0", handler(answer)).unwrap();
    println!("{}", server.local_addr());
    println!("{}", server.serve_forever().unwrap());
}

pub(crate) fn blocked_at_start() {
    let blocked: SigSet = [Signal::SIGINT, Signal::SIGTERM].into_iter().collect();
    blocked.thread_block().unwrap();
    handling_signals();
    println!("blocked again: {}", SigSet::thread_get_mask().unwrap().contains(Signal::SIGTERM));
}

pub(crate) fn ends_at_a_signal(program: &mut Program) {
    assert_eq!(program.ask("on"), "on");
    nix::sys::signal::kill(Pid::from_raw(program.child.id() as i32), Signal::SIGTERM).unwrap();
    let told = program.rest();
    assert!(told.contains("served 1") && told.contains("blocked again: true"), "{told}");
}

/// A shell cannot trap what was ignored when it started.
pub(crate) fn programs_trap_signals(program: &mut Program) {
    for signal in ["INT", "TERM", "HUP"] {
        assert_eq!(program.ask(&format!("status trap 'exit 42' {signal}; kill -s {signal} $$")), "42", "{signal}");
    }
    assert!(program.stop().contains("served 4"));
}
