//! Programs whose server is `PreForking`.

mod hearts;
mod masters;
mod places;
#[allow(dead_code)] // this suite uses a part
#[path = "../support/procfs.rs"]
mod procfs;
#[path = "../programs/mod.rs"]
mod programs;
mod protocols;
#[allow(dead_code)]
#[path = "../support/queues.rs"]
mod queues;
mod requests;
mod starts;
mod waits;

use std::collections::HashSet;
use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::{exit, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use programs::{until, Case, Program};
use socketserver::event_loop::{Peer, TimerId};
use socketserver::handler::{HandlerFn, PerRequest, RequestFn};
use socketserver::server::Engine;
use socketserver::{
    factory, handler, per_request, Blocking, Connection, Error, EventLoop, EventLoops, Forking, HandlerResult, Next,
    PreForking,
};
use socketserver::{Protocol, Sequential, ServerBuilder, ServerHandle, ThreadPool, Threading, Transport};

use hearts::*;
use masters::*;
use places::*;
use protocols::*;
use requests::*;
use starts::*;
use waits::*;

const CASES: &[Case] = &[
    ("settings_that_make_no_sense_are_refused_before_anything_is_forked", bad_settings, says_ok),
    ("workers_of_a_worker_are_refused", nested, says_ok),
    ("other_threads_are_refused_before_anything_is_forked", threads_before, says_ok),
    ("a_server_without_workers_has_none_to_change", without_workers, says_ok),
    ("f14_workers_that_never_get_ready_end_the_server_with_the_cause", crash_loop, says_ok),
    ("f14_a_panic_before_a_worker_is_ready_is_the_cause", panics_first, says_ok),
    ("f14_a_worker_that_cannot_succeed_another_ends_nothing", bad_successors, goes_on_with_the_old_ones),
    ("hooks_are_called_where_they_belong", hooked, hooks_were_called),
    ("workers_have_bounds_a_processor_and_a_name", bounded, is_bounded),
    ("the_handle_reloads_and_changes_the_number_from_a_worker", plain, reloads_and_grows),
    ("f15_counters_outlive_the_worker_that_counted", plain, counts_on),
    ("the_limit_in_all_is_exact_while_workers_come_and_go", limited, is_never_exceeded),
    ("h7_a_worker_that_hangs_is_replaced_and_the_queue_is_served", hanging, is_replaced),
    ("a_loop_that_hangs_is_replaced", hanging_loop, is_replaced),
    ("one_of_several_loops_that_hangs_is_a_worker_that_hangs", hanging_loops, is_replaced_beside_others),
    ("several_loops_in_each_of_several_workers", loops_within, serves_in_all_loops),
    ("a_handler_that_waits_for_its_peer_is_not_stuck", waiting, is_not_replaced),
    ("f21_a_connection_wakes_one_worker", sixteen, few_are_woken),
    ("a_process_each_within_workers", forking_within, serves_and_adds_up),
    ("a_worker_that_was_taken_over_harms_nobody_else", one_of_four, withstands_the_attack),
    ("a_worker_s_child_that_was_taken_over_harms_nobody", forking_within, withstands_the_attack_of_a_child),
    ("a_worker_s_child_asks_the_master", forking_within, asks_the_master),
    ("programs_of_a_worker_meet_signals_at_their_defaults", handling_signals, programs_trap_signals),
    ("programs_of_a_worker_s_child_do_as_well", handling_signals_twice, programs_trap_signals),
    ("an_interrupt_leaves_the_child_of_a_worker_alone", handling_signals_twice, child_survives_interrupts),
    ("signals_that_were_blocked_at_the_start_are_handled", blocked_at_start, reloads_and_ends_at_signals),
    ("a_process_of_a_connection_dies_with_its_worker", forking_within, ends_with_its_worker),
    ("single_requests_are_served_by_a_worker", one_by_one, is_served_one_by_one),
    ("signals_are_heard_from_the_bind_on", told_early, has_two_workers),
    ("it_serves_again_after_a_stop", twice, serves_twice),
    ("an_error_without_a_logger_is_said_once", unheard, is_said_once),
    ("a_pause_holds_for_all_workers", || paused(Threading::new()), waits_for_the_resume),
    ("a_pause_holds_for_pools_of_threads", || paused(ThreadPool::new(4)), waits_for_the_resume),
    ("a_lower_limit_takes_places_from_waiting_threads", pools, serves_with_a_lower_limit),
    ("new_workers_get_places_from_waiting_threads", pools, serves_with_more_workers),
    ("a_socket_that_was_taken_over_outlives_the_master", taken_over, says_ok),
    ("a_protocol_that_hangs_in_a_worker_is_replaced", hanging_protocol, is_replaced),
    ("a_protocol_that_waits_for_its_peer_is_not_stuck", waiting_protocol, is_not_replaced),
    ("a_protocol_in_a_worker_takes_one_place", four_protocols, serves_four),
    ("a_worker_without_a_place_at_the_stop_is_not_waited_for", || late(Threading::new()), leaves_the_queue_to_others),
    ("a_worker_s_loop_without_a_place_at_the_stop_is_not_waited_for", late_loops, leaves_the_queue_to_others),
    (
        "workers_that_are_not_ready_at_the_stop_serve_the_queue",
        || asleep(Threading::new()),
        become_ready_after_the_stop,
    ),
    (
        "pools_that_are_not_ready_at_the_stop_serve_the_queue",
        || asleep(ThreadPool::new(2)),
        become_ready_after_the_stop,
    ),
    ("loops_that_are_not_ready_at_the_stop_serve_the_queue", asleep_loops, become_ready_after_the_stop),
    ("parked_connections_meet_a_reload_and_other_numbers_of_workers", parking_pools, parks_over_a_reload),
    (
        "a_parked_connection_of_a_worker_that_ends_alone_has_its_first_request",
        recycled_requests,
        first_requests_are_served,
    ),
    ("waits_of_threads_in_workers_end_for_all_that_comes", waiting_threads, waits_end_for_all_that_comes),
    ("waits_of_pools_in_workers_end_for_all_that_comes", waiting_pools, waits_end_for_all_that_comes),
    ("waits_of_processes_in_workers_end_for_all_that_comes", waiting_processes, waits_end_for_all_that_comes),
    ("idle_processes_within_workers_end_at_a_reload_and_at_a_stop", idle_processes, idle_processes_end_at_once),
    ("a_loop_that_ends_alone_waits_for_a_first_request", recycled_loops, first_requests_are_served),
    ("a_protocol_that_ends_alone_waits_for_a_first_request", recycled_protocols, first_requests_are_served),
];

fn main() {
    programs::run(CASES);
}

// ---- the programs' handlers ----

static CHILDREN: AtomicUsize = AtomicUsize::new(0);

fn answer(conn: &mut Connection) -> HandlerResult {
    let Some(line) = conn.next_line()? else { return Ok(()) };
    let (command, rest) = line.split_once(' ').unwrap_or((&line, ""));
    match command {
        "stop" => {
            conn.server().shutdown();
            writeln!(conn, "stopping")?;
        }
        "pid" => writeln!(conn, "{}", std::process::id())?,
        "attack" => {
            writeln!(conn, "{}", programs::attack::open_all())?;
            conn.flush()?;
            programs::attack::write_all();
            std::process::abort();
        }
        "status" => {
            let status = Command::new("sh").args(["-c", rest]).status()?;
            writeln!(conn, "{}", status.code().unwrap_or(-1))?;
        }
        "stats" => writeln!(conn, "{}", conn.server().stats())?,
        "crashed" => writeln!(conn, "{}", conn.server().stats().crashed)?,
        "reload" => writeln!(conn, "{:?}", conn.server().reload())?,
        "workers" => writeln!(conn, "{:?}", conn.server().set_workers(rest.parse()?))?,
        "limit" => writeln!(conn, "{:?}", conn.server().set_max_connections(rest.parse()?))?,
        "pause" => {
            conn.server().pause();
            writeln!(conn, "paused {}", conn.server().is_paused())?;
        }
        "proc" => {
            let file = fs::read_to_string(format!("/proc/self/{rest}"))?;
            writeln!(conn, "{}", file.split_whitespace().collect::<Vec<_>>().join(" "))?;
        }
        "children" => writeln!(conn, "{}", CHILDREN.load(SeqCst))?,
        "hold" => {
            writeln!(conn, "held")?;
            conn.flush()?;
            match rest {
                "on" => {
                    // Until the client says more. The connection's own reads would end when its worker retires.
                    let mut socket = TcpStream::from(conn.as_fd().try_clone_to_owned()?);
                    while socket.read(&mut [0; 8]).is_err_and(|e| e.kind() == ErrorKind::WouldBlock) {
                        thread::sleep(Duration::from_millis(1));
                    }
                }
                ms => thread::sleep(Duration::from_millis(ms.parse()?)),
            }
            writeln!(conn, "done")?;
        }
        "hang" => loop {
            thread::park();
        },
        "abort" => std::process::abort(),
        "exit" => exit(rest.parse()?),
        _ => writeln!(conn, "{line}")?,
    }
    Ok(())
}

fn builder<S>(strategy: S) -> ServerBuilder<S> {
    ServerBuilder::new().strategy(strategy)
}

fn serve<S>(builder: ServerBuilder<S>)
where
    S: Engine<HandlerFn<fn(&mut Connection) -> HandlerResult>>,
{
    let answer: fn(&mut Connection) -> HandlerResult = answer;
    let mut server = builder.bind("127.0.0.1:0", handler(answer)).unwrap();
    println!("{}", server.local_addr());
    println!("{}", server.serve_forever().unwrap());
}

// ---- the driving half ----

fn says_ok(program: &mut Program) {
    let rest = program.rest();
    assert_eq!(format!("{}{rest}", program.addr).trim(), "ok");
}

/// Connects, says something, and keeps the connection.
fn connect(program: &Program, line: &str) -> BufReader<TcpStream> {
    let mut client = TcpStream::connect(&program.addr).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    writeln!(client, "{line}").unwrap();
    BufReader::new(client)
}

fn line(client: &mut BufReader<TcpStream>) -> String {
    let mut line = String::new();
    let _ = client.read_line(&mut line);
    line.trim_end().to_owned()
}

fn workers(program: &Program) -> HashSet<u32> {
    children_of(program.child.id()).into_iter().collect()
}

fn children_of(pid: u32) -> Vec<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    children.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

fn kill(signal: &str, pid: u32) {
    let script = format!("kill -s {signal} {pid}");
    assert!(Command::new("sh").args(["-c", &script]).status().unwrap().success());
}
