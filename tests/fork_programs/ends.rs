//! The ends of children, told by SIGCHLD, beside programs that have a use for that signal.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};

use nix::sys::resource::{getrlimit, setrlimit, Resource};
use nix::sys::signal::{kill, sigaction, SaFlags, SigAction, SigHandler};
use nix::sys::wait::{waitpid, WaitPidFlag, WaitStatus};

use super::programs::until;
use super::*;

fn serve_two_at_once(builder: ServerBuilder<Forking>) -> String {
    let mut server = builder.max_connections(2).bind("127.0.0.1:0", handler(answer)).unwrap();
    println!("{}", server.local_addr());
    server.serve_forever().unwrap().to_string()
}

fn forking() -> ServerBuilder<Forking> {
    ServerBuilder::new().strategy(Forking::new())
}

fn is_blocked() -> bool {
    SigSet::thread_get_mask().unwrap().contains(Signal::SIGCHLD)
}

#[allow(unsafe_code)]
fn answer_signal(signal: Signal, by: SigHandler) {
    let action = SigAction::new(by, SaFlags::SA_RESTART, SigSet::empty());
    // SAFETY: the handlers below change atomics, wait for children and answer signals: all async-signal-safe.
    unsafe { sigaction(signal, &action) }.unwrap();
}

/// Whether SIGCHLD is in this set of signals, of a status in `/proc`.
fn has_sigchld(status: &str, set: &str) -> bool {
    let mut words = status.split_whitespace().skip_while(|word| *word != set);
    let bits = words.nth(1).map_or(0, |bits| u64::from_str_radix(bits, 16).unwrap());
    bits & 1 << (Signal::SIGCHLD as u32 - 1) != 0
}

fn server_has_sigchld(program: &Program, set: &str) -> bool {
    has_sigchld(&std::fs::read_to_string(format!("/proc/{}/status", program.child.id())).unwrap(), set)
}

fn signal(program: &Program) {
    kill(Pid::from_raw(program.child.id() as i32), Signal::SIGUSR1).unwrap();
}

fn is_asked(program: &Program, times: usize) {
    (0..times).for_each(|_| assert_eq!(program.ask("on"), "on"));
}

pub(crate) fn without_a_use_for_ends() {
    println!("{}, blocked: {}", serve_two_at_once(forking()), is_blocked());
}

pub(crate) fn has_sigchld_afterwards(program: &mut Program) {
    until("the server hears of ends", || server_has_sigchld(program, "SigBlk:"));
    is_asked(program, 30);
    assert!(!has_sigchld(&program.ask("proc status"), "SigBlk:"), "in a child");
    assert_eq!(program.ask("status (exit 3) & wait $!"), "3", "a child's own children");
    assert!(server_has_sigchld(program, "SigBlk:"), "given back without need");
    let told = program.stop();
    assert!(told.contains("accepted 33, served 33") && told.contains("blocked: false"), "{told}");
}

/// The hook starts programs in the server. They must not have the signal blocked.
pub(crate) fn with_a_hook() {
    let statuses = Arc::new(Mutex::new(Vec::new()));
    let all = statuses.clone();
    let builder = forking().service_actions(Duration::from_millis(1), move || {
        let status = Command::new("cat").arg("/proc/self/status").output().unwrap();
        let blocked = has_sigchld(&String::from_utf8_lossy(&status.stdout), "SigBlk:");
        let code = Command::new("sh").args(["-c", "exit 9"]).status().unwrap().code();
        all.lock().unwrap().push((code, blocked));
    });
    let report = serve_two_at_once(builder);
    let statuses = statuses.lock().unwrap();
    let are_right = !statuses.is_empty() && statuses.iter().all(|status| *status == (Some(9), false));
    println!("all: {are_right}, {report}");
}

pub(crate) fn keeps_the_signal(program: &mut Program) {
    is_asked(program, 20);
    let told = program.stop();
    assert!(told.contains("all: true, accepted 21, served 21"), "{told}");
}

static CALLS: AtomicU32 = AtomicU32::new(0);

extern "C" fn count(_: i32) {
    CALLS.fetch_add(1, SeqCst);
}

pub(crate) fn with_a_late_handler() {
    extern "C" fn install(_: i32) {
        answer_signal(Signal::SIGCHLD, SigHandler::Handler(count));
    }
    answer_signal(Signal::SIGUSR1, SigHandler::Handler(install));
    let report = serve_two_at_once(forking());
    println!("called: {}, blocked: {}, {report}", CALLS.load(SeqCst) > 0, is_blocked());
}

pub(crate) fn has_its_handler_called(program: &mut Program) {
    is_asked(program, 1);
    signal(program);
    until("the handler is there", || server_has_sigchld(program, "SigCgt:"));
    is_asked(program, 10);
    let told = program.stop();
    assert!(told.contains("called: true, blocked: false, accepted 12, served 12"), "{told}");
}

pub(crate) fn that_ignores_ends_later() {
    extern "C" fn ignore(_: i32) {
        answer_signal(Signal::SIGCHLD, SigHandler::SigIgn);
    }
    answer_signal(Signal::SIGUSR1, SigHandler::Handler(ignore));
    println!("{}", serve_two_at_once(forking()));
}

/// No signal tells of these ends. Both permits would be lost without the look at all children.
pub(crate) fn goes_on_without_signals(program: &mut Program) {
    is_asked(program, 1);
    signal(program);
    until("the signal is ignored", || server_has_sigchld(program, "SigIgn:"));
    is_asked(program, 10);
    let told = program.stop();
    assert!(told.contains("accepted 12, served 12"), "{told}");
}

pub(crate) fn with_a_rare_reaper() {
    extern "C" fn reap(_: i32) {
        while let Ok(WaitStatus::Exited(..)) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {}
    }
    answer_signal(Signal::SIGUSR1, SigHandler::Handler(reap));
    println!("{}", serve_two_at_once(forking()));
}

pub(crate) fn loses_no_permit(program: &mut Program) {
    for _ in 0..30 {
        is_asked(program, 1);
        signal(program);
    }
    let told = program.stop();
    assert!(told.contains("accepted 31, served 31"), "{told}");
}

pub(crate) fn with_sigchld_blocked() {
    SigSet::from(Signal::SIGCHLD).thread_block().unwrap();
    let report = serve_two_at_once(forking());
    println!("blocked: {}, {report}", is_blocked());
    println!("waiting: {:?}", SigSet::from(Signal::SIGCHLD).wait());
}

pub(crate) fn has_its_signal(program: &mut Program) {
    is_asked(program, 10);
    let told = program.stop();
    assert!(told.contains("blocked: true, accepted 11, served 11"), "{told}");
    assert!(told.contains("waiting: Ok(SIGCHLD)"), "{told}");
}

/// A signal of a process, even one of the server's own children, tells of no end.
pub(crate) fn survives_signals_of_others(program: &mut Program) {
    for _ in 0..10 {
        let server = program.child.id();
        assert_eq!(program.ask(&format!("status kill -CHLD $PPID; kill -CHLD {server}")), "0");
        is_asked(program, 1);
    }
    let told = program.stop();
    assert!(told.contains("accepted 21, served 21") && told.contains("blocked: false"), "{told}");
}

/// A process that its parent traces stops at each signal, which tells its parent of no end.
pub(crate) fn counts_a_traced_child(program: &mut Program) {
    let mut client = BufReader::new(TcpStream::connect(&program.addr).unwrap());
    writeln!(client.get_ref(), "trace").unwrap();
    let mut number = String::new();
    client.read_line(&mut number).unwrap();
    let status = format!("/proc/{}/status", number.trim());
    if number.trim() == "none" {
        return eprintln!("skipped: the sandbox forbids ptrace");
    }
    until("the child is stopped", || std::fs::read_to_string(&status).unwrap().contains("State:\tt"));
    is_asked(program, 10);
    let told = program.ask("stats");
    assert!(told.contains("active 2"), "{told}");
}

/// SIGUSR1 takes the right to open descriptors away, and the next one gives it back.
fn serve_with_few_descriptors(builder: ServerBuilder<Forking>) {
    static LIMIT: AtomicU64 = AtomicU64::new(3);
    extern "C" fn exchange(_: i32) {
        let (now, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, LIMIT.swap(now, SeqCst), hard).unwrap();
    }
    answer_signal(Signal::SIGUSR1, SigHandler::Handler(exchange));
    println!("{}", serve_two_at_once(builder));
}

pub(crate) fn starved_at_its_stop() {
    serve_with_few_descriptors(forking());
}

pub(crate) fn drains_without_descriptors(program: &mut Program) {
    let mut client = BufReader::new(TcpStream::connect(&program.addr).unwrap());
    writeln!(client.get_ref(), "wait 100").unwrap();
    let mut told = String::new();
    client.read_line(&mut told).unwrap();
    assert_eq!(program.ask("starve"), "stopping");
    client.read_line(&mut told).unwrap();
    assert_eq!(told, "waits\ndone\n");
    let report = program.rest();
    assert!(report.contains("accepted 2, served 2"), "{report}");
}

pub(crate) fn starved_at_a_limit() {
    serve_with_few_descriptors(forking().request_timeout(Duration::from_secs(2)));
}

pub(crate) fn ends_its_children_without_descriptors(program: &mut Program) {
    let mut client = BufReader::new(TcpStream::connect(&program.addr).unwrap());
    writeln!(client.get_ref(), "wait 60000").unwrap();
    client.read_line(&mut String::new()).unwrap();
    signal(program);
    let children = format!("/proc/{0}/task/{0}/children", program.child.id());
    until("the child has been ended", || std::fs::read_to_string(&children).unwrap().is_empty());
    signal(program);
    let report = program.stop();
    assert!(report.contains("accepted 2, served 1, failed 1"), "{report}");
}
