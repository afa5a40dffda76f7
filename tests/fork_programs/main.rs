//! Programs that fork: whose server is `Forking`, and that bind and then go to the background.

mod attacks;
mod background;
mod bounds;
mod ends;
mod hooks;
#[path = "../programs/mod.rs"]
mod programs;
mod protocols;
mod signals;
mod streams;

use std::cell::Cell;
use std::env;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::{exit, Command};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use attacks::*;
use background::*;
use bounds::*;
use ends::*;
use hooks::*;
use nix::libc;
use nix::sys::resource::{setrlimit, Resource};
use nix::sys::signal::{kill, raise, SigSet, Signal};
use nix::sys::stat::{umask, Mode};
use nix::unistd::Pid;
use programs::{Case, Program};
use protocols::*;
use signals::*;
use socketserver::connection::Event;
use socketserver::event_loop::{ConnId, Factory, Peer};
use socketserver::selectors::{Events, Selector};
use socketserver::{
    factory, handler, Blocking, Connection, Context, Error, Failure, Forking, HandlerResult, Protocol, ServerBuilder,
    ServerHandle, TcpServer, Transport,
};
use streams::*;

const CASES: &[Case] = &[
    ("f2_other_threads_are_refused_at_the_start", threads_before, ends_with_the_refusal),
    ("f2_other_threads_are_refused_at_each_fork", threads_later, is_refused_later),
    ("the_opt_out_forks_beside_other_threads", opted_out, serves_and_stops),
    ("f4_unflushed_output_is_written_once", with_unflushed_output, is_written_once),
    ("f7_a_foreign_reaper_jams_nothing", reaped_by_others, serves_many_and_stops),
    ("sigchld_is_taken_in_a_run_only", without_a_use_for_ends, has_sigchld_afterwards),
    ("signals_that_others_send_tell_of_no_end", without_a_use_for_ends, survives_signals_of_others),
    ("a_traced_child_that_stops_has_not_ended", without_a_use_for_ends, counts_a_traced_child),
    ("children_drain_without_a_free_descriptor", starved_at_its_stop, drains_without_descriptors),
    (
        "children_end_at_their_limit_without_a_free_descriptor",
        starved_at_a_limit,
        ends_its_children_without_descriptors,
    ),
    ("programs_of_a_hook_have_sigchld_and_keep_their_status", with_a_hook, keeps_the_signal),
    ("a_handler_of_sigchld_that_comes_in_a_run_is_called", with_a_late_handler, has_its_handler_called),
    ("ends_that_are_ignored_later_jam_nothing", that_ignores_ends_later, goes_on_without_signals),
    ("a_rare_foreign_reaper_jams_nothing", with_a_rare_reaper, loses_no_permit),
    ("a_program_that_has_blocked_sigchld_gets_it", with_sigchld_blocked, has_its_signal),
    ("f18_the_hook_runs_in_each_child", hooked, children_differ),
    ("h10_what_a_handler_changes_ends_with_it", plain, nothing_is_left_of_a_handler),
    ("a_child_that_was_taken_over_harms_nobody", attacked, withstands_the_attack),
    ("a_process_that_a_child_left_behind_harms_no_later_child", plain, is_not_haunted),
    ("a_child_asks_its_parent_for_a_pause_and_a_limit", plain, asks_its_parent),
    ("a_stop_in_a_child_ends_its_idle_siblings", twice, stops_its_siblings),
    ("programs_of_a_handler_meet_signals_at_their_defaults", handling_signals, programs_trap_signals),
    ("signals_that_were_blocked_at_the_start_are_handled", blocked_at_start, ends_at_a_signal),
    ("h12_the_ends_of_other_children_stay_theirs", with_own_child, own_child_is_waited_for),
    ("bounds_hold_in_children_only", bounded, bounds_are_seen),
    ("bounds_that_cannot_be_set_fail_the_connection", badly_bounded, fails_for_its_bounds),
    ("a_panic_in_after_fork_fails_the_connection", badly_hooked, fails_for_its_hook),
    ("a_hang_in_after_fork_ends_at_the_request_limit", hung, ends_at_the_limit),
    ("a_child_has_nothing_of_another_server", beside_another, has_nothing_of_another),
    ("the_hook_in_the_parent_hears_of_every_end", reporting, every_end_is_reported),
    ("single_requests_leave_no_zombie", one_by_one, is_served_one_by_one),
    ("it_serves_again_after_a_stop", twice, serves_twice),
    ("a15_verify_request_is_asked_in_the_child", verifying, refuses_and_goes_on),
    ("a15_a_verification_ends_with_the_drain", verifying_at_the_stop, is_cut_with_its_child),
    ("service_actions_are_called_in_the_server", acting, has_acted),
    ("h13_a_handler_may_stop_its_server_and_drop_its_handle", with_a_last_handle, is_stopped_from_within),
    ("it_can_be_embedded_in_a_loop_of_one_s_own", embedded, is_served_by_the_loop),
    ("a_stream_of_lines_in_a_child_is_idle_between_them", with_a_sink, is_idle_between_lines),
    ("a_wait_in_a_child_ends_for_its_client_a_thread_and_the_stop", waiting_for_both, is_woken_by_both),
    ("a_handler_may_become_a_program_that_is_served_by_its_exit_code", with_programs, programs_are_counted),
    ("a_protocol_is_served_in_a_child", with_a_protocol, serves_by_a_protocol),
    ("a_protocol_in_a_child_has_clients_and_work", with_clients, answers_by_a_client),
    ("a_factory_in_a_child_may_refuse", with_a_choosy_factory, is_refused_by_the_factory),
    ("a_daemon_drains_with_threads", in_threads, answers_before_it_stops),
    ("a_daemon_drains_one_after_the_other", one_after_the_other, answers_before_it_stops),
    ("a_daemon_drains_with_children", in_children, answers_before_it_stops),
    ("a_daemon_drains_with_workers", in_workers, answers_before_it_stops),
    ("a_daemon_drains_with_a_loop", in_a_loop, answers_before_it_stops),
    ("a_daemon_drains_with_a_reactor", in_a_reactor, answers_before_it_stops),
    ("a_daemon_goes_on_with_open_connections", in_a_reactor_that_serves, goes_on_with_its_connections),
    ("a_daemon_drains_after_two_forks_and_a_reset_of_signals", by_the_book, answers_before_it_stops),
    ("a_daemon_hears_a_signal_that_came_before_it_served", signalled_early, serves_its_queue_and_stops),
    ("a_daemon_keeps_the_socket_file_at_its_parents_end", with_a_file, has_the_file_until_its_end),
    ("a_daemon_takes_the_socket_file_from_a_parent_that_stays", with_a_file_and_a_parent, takes_the_file_along),
    ("a_parent_that_stays_leaves_signals_to_its_daemon", with_a_file_and_a_parent, leaves_signals_to_its_child),
    ("two_that_serve_one_socket_stop_one_by_one", by_two, stop_one_by_one),
    ("a_child_that_does_not_serve_has_no_part_in_the_server", beside_a_child, is_the_parents_alone),
];

fn main() {
    programs::run(CASES);
}

// ---- the program's handler ----

fn answer(conn: &mut Connection) -> HandlerResult {
    let Some(line) = conn.next_line()? else { return Ok(()) };
    let (command, rest) = line.split_once(' ').unwrap_or((&line, ""));
    match command {
        "stop" => {
            conn.server().shutdown();
            writeln!(conn, "stopping")?;
        }
        "attack" => {
            writeln!(conn, "{}", programs::attack::open_all())?;
            conn.flush()?;
            programs::attack::write_all();
            if rest == "and exit" {
                exit(0);
            }
        }
        "starve" => {
            kill(Pid::parent(), Signal::SIGUSR1)?;
            conn.server().shutdown();
            writeln!(conn, "stopping")?;
        }
        "haunt" => haunt(conn)?,
        "trace" => be_traced(conn)?,
        "wait" => {
            writeln!(conn, "waits")?;
            conn.flush()?;
            thread::sleep(Duration::from_millis(rest.parse()?));
            writeln!(conn, "done")?;
        }
        "idle" => {
            writeln!(conn, "idles")?;
            conn.next_request()?;
        }
        "stats" => writeln!(conn, "{}", conn.server().stats())?,
        "ask" => {
            let server = conn.server().clone();
            server.pause();
            let paused = server.is_paused();
            server.resume();
            server.set_max_connections(7)?;
            let (then, limit) = (server.is_paused(), server.stats().max_connections);
            writeln!(conn, "paused {paused}, then {then}; limit {limit}")?;
        }
        "status" => writeln!(conn, "{}", shell(rest)?)?,
        "proc" => {
            let file = std::fs::read_to_string(format!("/proc/self/{rest}"))?;
            writeln!(conn, "{}", file.split_whitespace().collect::<Vec<_>>().join(" "))?;
        }
        "mess" => {
            env::set_current_dir("/")?;
            env::set_var("MESS", "made");
            std::mem::forget(std::fs::File::open("/dev/null")?);
            writeln!(conn, "{}", state()?)?;
        }
        "state" => writeln!(conn, "{}", state()?)?,
        "number" => writeln!(conn, "{}", NUMBER.get())?,
        "fail" => return Err("as it was told".into()),
        "panic" => panic!("as it was told"),
        "exit" => exit(7),
        "quit" => exit(0),
        "last" => {
            drop(LAST.lock().unwrap().take());
            conn.server().shutdown();
            writeln!(conn, "waits: {}", !matches!(conn.server().wait(None), Err(Error::WaitInHandler)))?;
        }
        "say" => {
            print!("from a child, ");
            writeln!(conn, "said")?;
        }
        _ => writeln!(conn, "{line}")?,
    }
    Ok(())
}

thread_local! {
    static NUMBER: Cell<u32> = const { Cell::new(0) };
}

static LAST: Mutex<Option<ServerHandle>> = Mutex::new(None);

fn shell(script: &str) -> std::io::Result<i32> {
    Ok(Command::new("sh").args(["-c", script]).status()?.code().unwrap_or(-1))
}

/// Leaves a process behind that writes into the shared memory of this child for a second.
#[allow(unsafe_code)]
fn haunt(conn: &mut Connection) -> HandlerResult {
    // SAFETY: a child of this handler has one thread, and what it runs allocates at the worst.
    if let nix::unistd::ForkResult::Child = unsafe { nix::unistd::fork() }? {
        for _ in 0..1000 {
            programs::attack::write_all();
            thread::sleep(Duration::from_millis(1));
        }
        exit(0);
    }
    Ok(writeln!(conn, "haunts")?)
}

/// Has its parent trace this child, which then stops at a signal.
#[allow(unsafe_code)]
fn be_traced(conn: &mut Connection) -> HandlerResult {
    // SAFETY: PTRACE_TRACEME takes no other argument.
    if unsafe { libc::ptrace(libc::PTRACE_TRACEME) } != 0 {
        return Ok(writeln!(conn, "none")?);
    }
    writeln!(conn, "{}", std::process::id())?;
    conn.flush()?;
    Ok(raise(Signal::SIGUSR1)?)
}

fn state() -> std::io::Result<String> {
    let files = std::fs::read_dir("/proc/self/fd")?.count();
    let mess = env::var("MESS").unwrap_or_default();
    Ok(format!("{} {files} {mess}", env::current_dir()?.display()))
}

fn bind(strategy: Forking) -> TcpServer<impl socketserver::StreamRequestHandler, Forking> {
    let server = ServerBuilder::new().strategy(strategy).bind("127.0.0.1:0", handler(answer)).unwrap();
    println!("{}", server.local_addr());
    server
}

fn serve(strategy: Forking) {
    println!("{}", bind(strategy).serve_forever().unwrap());
}

fn idle_thread() {
    thread::spawn(|| loop {
        thread::park();
    });
}

// ---- the cases ----

fn threads_before() {
    idle_thread();
    match bind(Forking::new()).serve_forever() {
        Err(e @ Error::Threads { others: 1 }) => println!("{e}"),
        other => panic!("{other:?}"),
    }
}

fn ends_with_the_refusal(program: &mut Program) {
    let told = program.rest();
    assert!(told.contains("1 other thread") && told.contains("before starting threads"), "{told}");
}

fn threads_later() {
    let mut server = bind(Forking::new());
    assert!(server.handle_request(None).unwrap());
    idle_thread();
    assert!(server.handle_request(None).unwrap());
    println!("refused {}", server.handle().stats().refused);
}

fn is_refused_later(program: &mut Program) {
    assert_eq!(program.ask("one"), "one");
    assert_eq!(program.ask("two"), "");
    assert_eq!(program.rest().trim(), "refused 1");
}

#[allow(unsafe_code)]
fn opted_out() {
    idle_thread();
    // SAFETY: the other thread does nothing, and so holds nothing.
    serve(unsafe { Forking::new().allow_threads() });
}

fn serves_and_stops(program: &mut Program) {
    assert_eq!(program.ask("one"), "one");
    assert!(program.stop().contains("served 2"));
}

fn with_unflushed_output() {
    let mut server = bind(Forking::new());
    print!("[not flushed]");
    println!("{}", server.serve_forever().unwrap());
}

fn is_written_once(program: &mut Program) {
    for _ in 0..5 {
        assert_eq!(program.ask("say"), "said");
    }
    let told = program.stop();
    assert_eq!(told.matches("[not flushed]").count(), 1, "{told}");
    assert_eq!(told.matches("from a child").count(), 5, "{told}");
}

/// As a program with a SIGCHLD handler of its own that waits for any child.
fn reaped_by_others() {
    use nix::sys::signal::{sigaction, SaFlags, SigAction, SigHandler, SigSet, Signal};
    use nix::sys::wait::{waitpid, WaitPidFlag, WaitStatus};
    extern "C" fn reap(_: i32) {
        while let Ok(WaitStatus::Exited(..)) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {}
    }
    let action = SigAction::new(SigHandler::Handler(reap), SaFlags::SA_RESTART, SigSet::empty());
    #[allow(unsafe_code)]
    // SAFETY: waitpid is async-signal-safe.
    unsafe { sigaction(Signal::SIGCHLD, &action) }.unwrap();
    let strategy = Forking::new();
    let server = ServerBuilder::new().strategy(strategy).max_connections(2);
    let mut server = server.bind("127.0.0.1:0", handler(answer)).unwrap();
    println!("{}", server.local_addr());
    println!("{}", server.serve_forever().unwrap());
}

fn serves_many_and_stops(program: &mut Program) {
    for _ in 0..30 {
        assert_eq!(program.ask("on"), "on");
    }
    let report = program.stop();
    assert!(report.contains("accepted 31, served 31"), "{report}");
}

fn hooked() {
    serve(Forking::new().after_fork(|| NUMBER.set(std::process::id())));
}

fn children_differ(program: &mut Program) {
    let numbers = [program.ask("number"), program.ask("number"), program.ask("number")];
    assert!(numbers[0] != numbers[1] && numbers[1] != numbers[2] && numbers[0] != "0", "{numbers:?}");
    program.stop();
}

fn plain() {
    serve(Forking::new());
}

fn nothing_is_left_of_a_handler(program: &mut Program) {
    let before = program.ask("state");
    let mess = program.ask("mess");
    assert!(mess.starts_with("/ ") && mess.ends_with(" made"), "{mess}");
    assert_eq!(program.ask("state"), before);
    program.stop();
}

fn with_own_child() {
    let mut own = Command::new("sh").args(["-c", "exit 72"]).spawn().unwrap();
    serve(Forking::new());
    println!("own {}", own.wait().unwrap().code().unwrap());
}

fn own_child_is_waited_for(program: &mut Program) {
    for _ in 0..20 {
        assert_eq!(program.ask("status exit 7"), "7");
    }
    assert!(program.stop().ends_with("own 72\n"));
}

/// One connection, and what has become of it when nothing is in progress any more.
fn serve_one(strategy: Forking) {
    let mut server = bind(strategy);
    server.handle_request(None).unwrap();
    let handle = server.handle();
    while handle.stats().active > 0 {
        server.handle_request(Some(Duration::from_millis(10))).unwrap();
    }
    println!("{}", handle.stats());
}

fn badly_hooked() {
    serve_one(Forking::new().after_fork(|| panic!("in the hook")));
}

fn fails_for_its_hook(program: &mut Program) {
    fails_for_its_bounds(program);
}

fn beside_another() {
    let other = ServerBuilder::new().strategy(Forking::new()).bind("127.0.0.1:0", handler(answer)).unwrap();
    serve(Forking::new());
    drop(other);
}

fn has_nothing_of_another(program: &mut Program) {
    let mut alone = Program::start("h10_what_a_handler_changes_ends_with_it");
    assert_eq!(program.ask("state"), alone.ask("state"), "the same number of descriptors");
    program.stop();
    alone.stop();
}

fn reporting() {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hears = heard.clone();
    let builder = ServerBuilder::new().strategy(Forking::new()).handle_error(move |failure: &Failure<'_>| {
        let text = failure.to_string();
        hears.lock().unwrap().push(text.split_once(' ').map_or(text.clone(), |(_, rest)| rest.to_owned()));
    });
    let mut server = builder.bind("127.0.0.1:0", handler(answer)).unwrap();
    println!("{}", server.local_addr());
    let report = server.serve_forever().unwrap();
    println!("failed {}, panicked {}, crashed {}", report.failed, report.panicked, report.crashed);
    heard.lock().unwrap().iter().for_each(|text| println!("{text}"));
}

fn every_end_is_reported(program: &mut Program) {
    for line in ["fail", "panic", "exit", "quit"] {
        assert_eq!(program.ask(line), "");
    }
    let told = program.stop();
    assert!(told.starts_with("failed 4, panicked 1, crashed 2\n"), "{told}");
    for part in ["failed: as it was told", "panicked: as it was told", "exited with 7", "exited with 0"] {
        assert!(told.contains(part), "{part:?} is not in {told}");
    }
}

fn one_by_one() {
    let mut server = bind(Forking::new());
    for _ in 0..5 {
        assert!(server.handle_request(None).unwrap());
    }
    let handle = server.handle();
    while handle.stats().active > 0 {
        assert!(!server.handle_request(Some(Duration::from_millis(10))).unwrap());
    }
    let task = format!("/proc/self/task/{}/children", std::process::id());
    println!("served {}, children {:?}", handle.stats().served, std::fs::read_to_string(task).unwrap());
}

fn is_served_one_by_one(program: &mut Program) {
    for _ in 0..5 {
        assert_eq!(program.ask("on"), "on");
    }
    assert_eq!(program.rest().trim(), "served 5, children \"\"");
}

fn twice() {
    let mut server = bind(Forking::new());
    let first = server.serve_forever().unwrap();
    let second = server.serve_forever().unwrap();
    println!("{}", first.served + second.served); // the queue of the first stop may hold the next client already
}

fn serves_twice(program: &mut Program) {
    for _ in 0..2 {
        assert_eq!(program.ask("on"), "on");
        assert_eq!(program.ask("stop"), "stopping");
    }
    assert_eq!(program.rest().trim(), "4");
}

fn with_a_last_handle() {
    let mut server = bind(Forking::new());
    *LAST.lock().unwrap() = Some(server.handle());
    println!("served {}", server.serve_forever().unwrap().served);
}

fn is_stopped_from_within(program: &mut Program) {
    assert_eq!(program.ask("last"), "waits: false");
    assert_eq!(program.rest().trim(), "served 1");
}

fn embedded() {
    let server = ServerBuilder::new().strategy(Forking::new()).bind("127.0.0.1:0", handler(answer));
    let mut server = server.unwrap();
    let mut selector = Selector::new().unwrap();
    server.listeners().for_each(|listener| selector.register(&listener, Events::READ, ()).unwrap());
    assert!(!server.handle_request(Some(Duration::ZERO)).unwrap(), "nobody knows the address yet");
    println!("{}", server.local_addr());
    let mut taken = 0;
    while taken < 3 {
        selector.select(None).unwrap();
        taken += u64::from(server.handle_request(Some(Duration::ZERO)).unwrap());
    }
    let handle = server.handle();
    while handle.stats().active > 0 {
        server.handle_request(Some(Duration::from_millis(10))).unwrap();
    }
    println!("served {}", handle.stats().served);
}

fn is_served_by_the_loop(program: &mut Program) {
    for _ in 0..3 {
        assert_eq!(program.ask("on"), "on");
    }
    assert_eq!(program.rest().trim(), "served 3");
}
