//! Programs whose server is `PreForking`.

mod programs;

use std::collections::HashSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::{exit, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use programs::{until, Case, Program};
use socketserver::{
    factory, handler, Blocking, Connection, Engine, Error, EventLoop, EventLoops, Forking, HandlerFn, HandlerResult,
    PreForking,
};
use socketserver::{
    Peer, Protocol, Sequential, ServerBuilder, ServerHandle, ThreadPool, Threading, TimerId, Transport,
};

const CASES: &[Case] = &[
    ("settings_that_make_no_sense_are_refused_before_anything_is_forked", bad_settings, says_ok),
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
    ("pools_within_pools_serve_and_add_up", nested, serves_and_adds_up),
    ("a_process_each_within_workers", forking_within, serves_and_adds_up),
    ("a_process_of_a_connection_dies_with_its_worker", forking_within, ends_with_its_worker),
    ("single_requests_are_served_by_a_worker", one_by_one, is_served_one_by_one),
    ("it_serves_again_after_a_stop", twice, serves_twice),
    ("a_pause_holds_for_all_workers", || paused(Threading::new()), waits_for_the_resume),
    ("a_pause_holds_for_pools_of_threads", || paused(ThreadPool::new(4)), waits_for_the_resume),
    ("a_lower_limit_is_given_back_by_those_who_wait", pools, serves_with_a_lower_limit),
    ("new_workers_get_places_of_those_who_wait", pools, serves_with_more_workers),
    ("a_socket_that_was_taken_over_outlives_the_master", taken_over, says_ok),
    ("the_death_of_a_master_in_the_middle_is_mended", nested, outlives_a_middle_master),
    ("a_protocol_that_hangs_in_a_worker_is_replaced", hanging_protocol, is_replaced),
    ("a_protocol_that_waits_for_its_peer_is_not_stuck", waiting_protocol, is_not_replaced),
    ("a_protocol_in_a_worker_takes_one_place", four_protocols, serves_four),
    ("who_has_no_place_at_the_stop_is_not_waited_for", || late(Threading::new()), leaves_the_queue_to_others),
    ("a_worker_s_loop_without_a_place_at_the_stop_is_not_waited_for", late_loops, leaves_the_queue_to_others),
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
            thread::sleep(Duration::from_millis(rest.parse()?));
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

/// Hangs when it is told to.
struct Hangs;

impl Protocol for Hangs {
    fn data_received(&mut self, transport: &mut Transport<'_>, data: &[u8]) -> HandlerResult {
        let said = std::str::from_utf8(data)?.trim().to_owned();
        match said.as_str() {
            "hang" => loop {
                thread::park();
            },
            "pid" => {
                writeln!(transport, "{}", std::process::id())?;
                transport.close(); // others may wait for the place
            }
            "place" => {
                transport.write(format!("{} {:?}\n", std::process::id(), thread::current().id()).as_bytes())?;
            }
            "crashed" => transport.write(format!("{}\n", transport.server().stats().crashed).as_bytes())?,
            "stop" => {
                transport.write(b"stopping\n")?;
                transport.server().shutdown();
            }
            _ => transport.write(data)?,
        }
        Ok(())
    }
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
    let pid = program.child.id();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    children.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

fn kill(signal: &str, pid: u32) {
    let script = format!("kill -s {signal} {pid}");
    assert!(Command::new("sh").args(["-c", &script]).status().unwrap().success());
}

// ---- the cases ----

fn setting<H, E: Engine<H>>(strategy: PreForking<E>, handler: H) -> &'static str {
    match ServerBuilder::new().strategy(strategy).bind("127.0.0.1:0", handler) {
        Err(Error::Setting { name, .. }) => name,
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("it was bound"),
    }
}

fn bad_settings() {
    let of = |strategy: PreForking| setting(strategy, handler(answer));
    let new = |n| PreForking::new(n, Threading::new());
    assert_eq!([of(new(0)), of(new(513)), of(new(5_000_000)), of(new(usize::MAX))], ["PreForking::new"; 4]);
    assert_eq!(of(new(1).max_requests(0)), "max_requests");
    assert_eq!(of(new(1).max_start_failures(0)), "max_start_failures");
    assert_eq!(of(new(1).heartbeat(Duration::ZERO)), "heartbeat");
    assert_eq!(of(new(1).cpu_affinity([0, 100_000])), "cpu_affinity");
    assert_eq!(of(new(1).process_name("a\0b")), "process_name");
    assert_eq!(of(new(1).nice(99)), "nice");
    assert_eq!(setting(PreForking::new(2, ThreadPool::new(0)), handler(answer)), "ThreadPool::new");
    nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, 256, 256).unwrap();
    assert_eq!(of(new(60)), "PreForking::new");
    println!("ok");
}

fn threads_before() {
    thread::spawn(|| loop {
        thread::park();
    });
    let forked = |_| panic!("something was forked");
    let strategy = PreForking::new(2, Threading::new()).before_fork(forked);
    let mut server = builder(strategy).bind("127.0.0.1:0", handler(answer)).unwrap();
    assert!(matches!(server.serve_forever(), Err(Error::Threads { others: 1 })));
    assert!(matches!(server.handle_request(None), Err(Error::Threads { others: 1 })));
    println!("ok");
}

fn without_workers() {
    let server = builder(Threading::new()).bind("127.0.0.1:0", handler(answer)).unwrap();
    let handle = server.handle();
    assert!(matches!(handle.set_workers(2), Err(Error::Setting { name: "set_workers", .. })));
    assert!(matches!(handle.reload(), Err(Error::Setting { name: "reload", .. })));
    let server = builder(PreForking::new(2, Threading::new())).bind("127.0.0.1:0", handler(answer)).unwrap();
    assert!(matches!(server.handle().set_workers(0), Err(Error::Setting { name: "set_workers", .. })));
    assert!(server.handle().set_workers(3).is_ok());
    println!("ok");
}

fn crash_loop() {
    let strategy = PreForking::new(4, Threading::new()).max_start_failures(2).after_fork(|_| exit(3));
    let mut server = builder(strategy).bind("127.0.0.1:0", handler(answer)).unwrap();
    let began = Instant::now();
    match server.serve_forever() {
        Err(e @ Error::Workers { failures: 2, .. }) => assert!(e.to_string().contains("exited with 3"), "{e}"),
        other => panic!("{other:?}"),
    }
    let took = began.elapsed();
    assert!(took >= Duration::from_secs(1) && took < Duration::from_secs(10), "{took:?} for a rest of 1 s");
    println!("ok");
}

fn panics_first() {
    let strategy = PreForking::new(1, Threading::new()).max_start_failures(1).after_fork(|_| panic!("no database"));
    let mut server = builder(strategy).bind("127.0.0.1:0", handler(answer)).unwrap();
    match server.serve_forever() {
        Err(Error::Workers { failures: 1, cause }) => assert!(cause.contains("no database"), "{cause}"),
        other => panic!("{other:?}"),
    }
    println!("ok");
}

fn bad_successors() {
    let path = std::env::temp_dir().join(format!("socketserver-bad-successors-{}", std::process::id()));
    let mark = path.clone();
    let first = move |_| match fs::write(&mark, "").and_then(|()| fs::read_dir(&mark)) {
        _ if mark.with_extension("later").exists() => exit(9),
        _ => {}
    };
    let strategy = PreForking::new(1, Threading::new()).max_start_failures(1).after_fork(first);
    let later = path.with_extension("later");
    let spoil = later.clone();
    let mut server = builder(strategy)
        .bind(
            "127.0.0.1:0",
            handler(move |conn: &mut Connection| {
                fs::write(&spoil, "")?;
                answer(conn)
            }),
        )
        .unwrap();
    println!("{}", server.local_addr());
    println!("{}", server.serve_forever().unwrap());
    let _ = (fs::remove_file(path), fs::remove_file(later));
}

fn goes_on_with_the_old_ones(program: &mut Program) {
    let pid = program.ask("pid");
    assert_eq!(program.ask("reload"), "Ok(())");
    let began = Instant::now();
    let mut seen = 0;
    while began.elapsed() < Duration::from_millis(1500) {
        seen += usize::from(workers(program).len() > 1);
        assert_eq!(program.ask("pid"), pid);
    }
    assert!(seen > 0, "no successor was tried");
    program.stop();
}

fn hooked() {
    let strategy = PreForking::new(2, Threading::new())
        .before_fork(|index| {
            CHILDREN.fetch_add(1, SeqCst);
            println!("before {index}");
        })
        .after_fork(|index| println!("after {index}"))
        .on_worker_exit(|exit| println!("exit {} {:?} {:?} {}", exit.index, exit.code, exit.signal, exit.expected));
    serve(builder(strategy));
}

fn hooks_were_called(program: &mut Program) {
    // Its first lines are the hooks'.
    let mut told = program.addr.clone();
    while !told.contains("127.0.0.1") {
        told = program.line();
    }
    program.addr = told;
    let before = program.ask("children");
    assert!(["1", "2"].contains(&before.as_str()), "a worker is a copy of the master as it was at its fork: {before}");
    let first = workers(program);
    program.ask("abort");
    let is_replaced = |now: HashSet<u32>| now.len() == 2 && now != first; // the dead one is still there for a while
    until("there are two again", || is_replaced(workers(program)) && program.ask("x") == "x");
    let told = program.stop();
    for wanted in ["before 0", "before 1", "after 0", "after 1", "None Some(\"SIGABRT\") false", "Some(0) None true"] {
        assert!(told.contains(wanted), "{wanted:?} in {told}");
    }
    assert_eq!(told.matches("exit ").count(), 3, "{told}");
}

fn bounded() {
    let cpus = fs::read_to_string("/proc/self/status").unwrap();
    let list = cpus.lines().find_map(|l| l.strip_prefix("Cpus_allowed_list:")).unwrap().trim().to_owned();
    let first: usize = list.split([',', '-']).next().unwrap().parse().unwrap();
    let strategy = PreForking::new(2, Threading::new())
        .cpu_affinity([first])
        .process_name("web")
        .limit_files(99)
        .nice(5)
        .no_new_privs();
    serve(builder(strategy));
}

fn is_bounded(program: &mut Program) {
    assert!(program.ask("proc limits").contains("Max open files 99 99"));
    let status = program.ask("proc status");
    assert!(status.contains("NoNewPrivs: 1"), "{status}");
    let allowed = status.split("Cpus_allowed_list: ").nth(1).unwrap().split(' ').next().unwrap();
    assert!(allowed.parse::<usize>().is_ok(), "one processor: {allowed}");
    let names: HashSet<String> =
        workers(program).iter().map(|pid| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap()).collect();
    assert_eq!(names, ["web-0\n".to_owned(), "web-1\n".to_owned()].into());
    program.stop();
}

fn plain() {
    serve(builder(PreForking::new(2, Threading::new())));
}

fn reloads_and_grows(program: &mut Program) {
    until("two workers", || workers(program).len() == 2);
    let before = workers(program);
    assert_eq!(program.ask("reload"), "Ok(())");
    until("two others", || {
        assert_eq!(program.ask("hello"), "hello", "nothing is lost meanwhile");
        let now = workers(program);
        now.len() == 2 && now.is_disjoint(&before)
    });
    assert_eq!(program.ask("workers 4"), "Ok(())");
    until("four workers", || workers(program).len() == 4);
    assert!(program.ask("stats").contains(" of 4096,"), "the limit follows");
    assert_eq!(program.ask("workers 1"), "Ok(())");
    until("one worker", || workers(program).len() == 1 && program.ask("hello") == "hello");
    assert!(program.stop().contains("failed 0"));
}

fn counts_on(program: &mut Program) {
    (0..10).for_each(|i| assert_eq!(program.ask(&i.to_string()), i.to_string()));
    let mut held = connect(program, "hold 20000");
    assert_eq!(line(&mut held), "held");
    until("the ten are counted", || program.ask("stats").contains("served 1"));
    for worker in workers(program) {
        kill("KILL", worker);
    }
    assert_eq!(line(&mut held), "", "its worker is gone");
    until("others serve", || program.ask("x") == "x");
    until("one was lost", || program.ask("crashed") == "1");
    let told = program.stop();
    assert!(told.contains("failed 1") && told.contains("crashed 1"), "{told}");
    let accepted: u64 = told.split("accepted ").nth(1).unwrap().split(',').next().unwrap().parse().unwrap();
    assert!(accepted > 11, "{told}");
}

fn limited() {
    serve(builder(PreForking::new(3, Threading::new()).max_requests(5).max_requests_jitter(0)).max_connections(4));
}

/// What is begun and not done, as clients see it, is less than what is being served; so this errs on no side.
fn is_never_exceeded(program: &mut Program) {
    let (active, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let began = Instant::now();
    thread::scope(|scope| {
        for _ in 0..10 {
            scope.spawn(|| {
                while began.elapsed() < Duration::from_secs(3) {
                    let mut client = connect(program, "hold 200");
                    assert_eq!(line(&mut client), "held");
                    most.fetch_max(active.fetch_add(1, SeqCst) + 1, SeqCst);
                    thread::sleep(Duration::from_millis(10));
                    active.fetch_sub(1, SeqCst); // well before it is done
                    assert_eq!(line(&mut client), "done");
                }
            });
        }
    });
    assert!(most.load(SeqCst) <= 4, "{} at once", most.load(SeqCst));
    assert!(program.stop().contains("failed 0"));
}

fn hanging() {
    serve(builder(PreForking::new(1, Sequential).heartbeat(Duration::from_millis(300))));
}

fn hanging_loop() {
    let strategy = PreForking::new(1, EventLoop::new()).heartbeat(Duration::from_millis(300));
    let mut server = builder(strategy).bind("127.0.0.1:0", factory(|_| Hangs)).unwrap();
    println!("{}", server.local_addr());
    println!("{}", server.serve_forever().unwrap());
}

fn hanging_loops() {
    let strategy = PreForking::new(1, EventLoops::new(3)).heartbeat(Duration::from_millis(300));
    let mut server = builder(strategy).bind("127.0.0.1:0", factory(|_| Hangs)).unwrap();
    println!("{}", server.local_addr());
    println!("{}", server.serve_forever().unwrap());
}

/// The other loops of the worker serve on, and must not speak for the one that hangs.
fn is_replaced_beside_others(program: &mut Program) {
    let pid = program.ask("pid");
    let mut hangs = connect(program, "hang");
    until("another worker serves", || {
        let other = program.ask("pid");
        !other.is_empty() && other != pid
    });
    assert_eq!(line(&mut hangs), "", "it goes with its worker");
    let told = program.stop();
    assert!(!told.contains("crashed 0"), "{told}");
}

fn loops_within() {
    let strategy = PreForking::new(2, EventLoops::new(2)).heartbeat(Duration::from_millis(200));
    let mut server = builder(strategy).bind("127.0.0.1:0", factory(|_| Hangs)).unwrap();
    println!("{}", server.local_addr());
    println!("{}", server.serve_forever().unwrap());
}

fn serves_in_all_loops(program: &mut Program) {
    let mut held = Vec::new();
    let mut places = HashSet::new();
    until("each loop has somebody", || {
        let mut client = connect(program, "place");
        places.insert(line(&mut client));
        held.push(client);
        places.len() == 4
    });
    let workers: HashSet<&str> = places.iter().filter_map(|place| place.split(' ').next()).collect();
    assert_eq!(workers.len(), 2, "{places:?}");
    thread::sleep(Duration::from_millis(600));
    assert_eq!(program.ask("crashed"), "0", "all hearts beat");
    let told = program.stop();
    assert!(told.contains("failed 0"), "{told}");
}

fn is_replaced(program: &mut Program) {
    let pid = program.ask("pid");
    let mut hangs = connect(program, "hang");
    thread::sleep(Duration::from_millis(20)); // either way around it must work
    let mut queued = connect(program, "pid");
    let other = line(&mut queued);
    assert!(!other.is_empty() && other != pid, "{other}");
    assert_eq!(line(&mut hangs), "", "it goes with its worker");
    let told = program.stop();
    assert!(told.contains("crashed 1"), "{told}");
}

fn waiting() {
    serve(builder(PreForking::new(1, Sequential).heartbeat(Duration::from_millis(100))));
}

fn is_not_replaced(program: &mut Program) {
    let pid = program.ask("pid");
    let mut client = TcpStream::connect(&program.addr).unwrap();
    thread::sleep(Duration::from_millis(1000));
    writeln!(client, "pid").unwrap();
    assert_eq!(line(&mut BufReader::new(client)), pid);
    program.stop();
}

/// Greeters: to be served, a connection needs one wait that ends, its worker's for the connection.
fn sixteen() {
    let strategy = PreForking::new(16, Sequential).heartbeat(None);
    let greeter = handler(|conn| Ok(conn.write_all(b"x\n")?));
    let mut server = builder(strategy).bind("127.0.0.1:0", greeter).unwrap();
    println!("{}", server.local_addr());
    server.serve_forever().unwrap();
}

/// Each time that a process waits and is woken, it switches its context voluntarily.
fn few_are_woken(program: &mut Program) {
    until("sixteen wait", || {
        let ready = |pid: &u32| {
            fs::read_to_string(format!("/proc/{pid}/wchan"))
                .is_ok_and(|at| at.contains("epoll") || at.contains("ep_poll"))
        };
        let workers = workers(program);
        workers.len() == 16 && workers.iter().all(ready)
    });
    let switches = |program: &Program| -> u64 {
        let of = |pid: u32| -> u64 {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
            status.lines().find_map(|l| l.strip_prefix("voluntary_ctxt_switches:")).unwrap().trim().parse().unwrap()
        };
        workers(program).into_iter().map(of).sum()
    };
    let (before, connections) = (switches(program), 500);
    for _ in 0..connections {
        let mut greeting = String::new();
        TcpStream::connect(&program.addr).unwrap().read_to_string(&mut greeting).unwrap();
        assert_eq!(greeting, "x\n");
    }
    let woken = switches(program) - before;
    assert!(woken * 10 <= connections * 11, "{woken} waits ended for {connections} connections");
    assert!(woken * 10 >= connections * 5, "{woken} switches: what is counted is not what should be");
}

fn nested() {
    serve(builder(PreForking::new(2, PreForking::new(2, Threading::new()).process_name("inner"))));
}

fn forking_within() {
    serve(builder(PreForking::new(2, Forking::new())));
}

fn serves_and_adds_up(program: &mut Program) {
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| (0..25).for_each(|i| assert_eq!(program.ask(&i.to_string()), i.to_string())));
        }
    });
    until("all are counted", || program.ask("stats").contains("active 1 "));
    let told = program.stop();
    let number = |name: &str| -> u64 {
        told.split(&format!("{name} ")).nth(1).unwrap().split([',', '\n']).next().unwrap().parse().unwrap()
    };
    assert!(number("accepted") > 200 && number("accepted") == number("served"), "{told}");
}

fn ends_with_its_worker(program: &mut Program) {
    let mut held = connect(program, "hold 20000");
    assert_eq!(line(&mut held), "held");
    for worker in workers(program) {
        assert!(Command::new("kill").args(["-s", "KILL", &worker.to_string()]).status().unwrap().success());
    }
    let began = Instant::now();
    assert_eq!(line(&mut held), "", "its process goes on");
    assert!(began.elapsed() < SOON);
    program.stop();
}

fn one_by_one() {
    let mut server = builder(PreForking::new(2, Threading::new())).bind("127.0.0.1:0", handler(answer)).unwrap();
    println!("{}", server.local_addr());
    let master = std::process::id();
    assert!(server.handle_request(None).unwrap());
    assert!(server.handle_request(Some(Duration::from_secs(20))).unwrap());
    assert!(!server.handle_request(Some(Duration::ZERO)).unwrap());
    server.handle().shutdown();
    assert!(!server.handle_request(None).unwrap());
    println!("{master} {}", server.handle().stats());
}

fn is_served_one_by_one(program: &mut Program) {
    let (one, two) = (program.ask("pid"), program.ask("pid"));
    assert!(one != two && !one.is_empty(), "each by a worker of its own: {one} {two}");
    let rest = program.rest();
    assert!(!rest.starts_with(&one) && rest.contains("served 2"), "{rest}");
}

fn twice() {
    let mut server = builder(PreForking::new(2, Threading::new())).bind("127.0.0.1:0", handler(answer)).unwrap();
    println!("{}", server.local_addr());
    println!("first: {}", server.serve_forever().unwrap());
    println!("second: {}", server.serve_forever().unwrap());
}

fn serves_twice(program: &mut Program) {
    assert_eq!(program.ask("one"), "one");
    assert_eq!(program.ask("stop"), "stopping");
    assert!(program.line().starts_with("first: accepted 2, served 2"));
    assert_eq!(program.ask("two"), "two");
    assert!(program.stop().contains("second: accepted 2, served 2"));
}

/// Its master resumes when a file of its number appears.
fn paused<E>(engine: E)
where
    E: Engine<HandlerFn<fn(&mut Connection) -> HandlerResult>>,
{
    let handle: Arc<OnceLock<ServerHandle>> = Arc::default();
    let later = handle.clone();
    let resume = move || {
        let asked = fs::remove_file(resume_file(std::process::id())).is_ok();
        later.get().filter(|_| asked).into_iter().for_each(ServerHandle::resume);
    };
    let builder = builder(PreForking::new(3, engine)).service_actions(Duration::from_millis(10), resume);
    let answer: fn(&mut Connection) -> HandlerResult = answer;
    let mut server = builder.bind("127.0.0.1:0", handler(answer)).unwrap();
    handle.set(server.handle()).unwrap();
    println!("{}", server.local_addr());
    println!("{}", server.serve_forever().unwrap());
}

fn resume_file(pid: u32) -> PathBuf {
    std::env::temp_dir().join(format!("socketserver-resume-{pid}"))
}

fn waits_for_the_resume(program: &mut Program) {
    assert_eq!(program.ask("pause"), "paused true");
    let mut waits: Vec<_> = (0..6).map(|i| connect(program, &i.to_string())).collect();
    waits[0].get_ref().set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    assert_eq!(line(&mut waits[0]), "", "nobody is served");
    waits[0].get_ref().set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let resumed = Instant::now();
    fs::write(resume_file(program.child.id()), "").unwrap();
    for (i, client) in waits.iter_mut().enumerate() {
        assert_eq!(line(client), i.to_string());
    }
    assert!(resumed.elapsed() < SOON, "{:?}", resumed.elapsed());
    program.stop();
}

/// Far more than telling a worker takes, and less than any heartbeat or retirement.
const SOON: Duration = Duration::from_secs(5);

/// Whose threads wait with a place each: all of the limit.
fn pools() {
    serve(builder(PreForking::new(2, ThreadPool::new(4))).max_connections(8));
}

fn serves_with_a_lower_limit(program: &mut Program) {
    assert_eq!(program.ask("limit 1"), "Ok(())");
    let began = Instant::now();
    (0..20).for_each(|i| assert_eq!(program.ask(&i.to_string()), i.to_string()));
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    program.stop();
}

fn serves_with_more_workers(program: &mut Program) {
    assert_eq!(program.ask("workers 4"), "Ok(())");
    until("four serve", || workers(program).len() == 4);
    let began = Instant::now();
    let mut held: Vec<_> = (0..8).map(|_| connect(program, "hold 1000")).collect();
    held.iter_mut().for_each(|client| assert_eq!(line(client), "held"));
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    held.iter_mut().for_each(|client| assert_eq!(line(client), "done"));
    program.stop();
}

/// As a supervisor does it that hands its socket on: this program is both the supervisor and, with the socket as its
/// standard input, the server.
fn taken_over() {
    const SERVER: &str = "SOCKETSERVER_TAKES_OVER";
    if std::env::var_os(SERVER).is_some() {
        let socket = std::io::stdin().as_fd().try_clone_to_owned().unwrap();
        let builder = builder(PreForking::new(2, Threading::new()));
        builder.from_listener(TcpListener::from(socket), handler(answer)).unwrap().serve_forever().unwrap();
        return;
    }
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    for word in ["first", "second", "third"] {
        let theirs = OwnedFd::from(socket.try_clone().unwrap());
        let mut server = Command::new(std::env::current_exe().unwrap());
        let mut master = server.env(SERVER, "1").stdin(theirs).stdout(Stdio::null()).spawn().unwrap();
        let client = TcpStream::connect(socket.local_addr().unwrap()).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        writeln!(&client, "{word}").unwrap();
        assert_eq!(line(&mut BufReader::new(client)), word);
        master.kill().unwrap();
        master.wait().unwrap();
    }
    println!("ok");
}

fn outlives_a_middle_master(program: &mut Program) {
    program.ask("x");
    let before = workers(program);
    let victim = before.iter().next().unwrap().to_string();
    assert!(Command::new("kill").args(["-s", "KILL", &victim]).status().unwrap().success());
    until("there is another", || workers(program).len() == 2 && workers(program) != before);
    (0..50).for_each(|i| assert_eq!(program.ask(&i.to_string()), i.to_string()));
    program.stop();
}

/// Protocols in workers.
fn serve_protocols<E>(strategy: PreForking<E>)
where
    E: Engine<Blocking<fn(&Peer) -> Hangs>>,
{
    serve_protocols_of(builder(strategy));
}

fn serve_protocols_of<E>(builder: ServerBuilder<PreForking<E>>)
where
    E: Engine<Blocking<fn(&Peer) -> Hangs>>,
{
    let build: fn(&Peer) -> Hangs = |_peer| Hangs;
    let mut server = builder.bind("127.0.0.1:0", Blocking(build)).unwrap();
    println!("{}", server.local_addr());
    println!("{}", server.serve_forever().unwrap());
}

fn four_protocols() {
    serve_protocols_of(builder(PreForking::new(1, Threading::new())).max_connections(4));
}

fn serves_four(program: &mut Program) {
    let words = ["first", "second", "third", "fourth"];
    let mut clients = words.map(|word| connect(program, word));
    assert_eq!(clients.each_mut().map(line), words, "all are there");
    drop(clients);
    program.stop();
}

fn hanging_protocol() {
    serve_protocols(PreForking::new(1, Sequential).heartbeat(Duration::from_millis(300)));
}

fn waiting_protocol() {
    serve_protocols(PreForking::new(1, Sequential).heartbeat(Duration::from_millis(100)));
}

fn recycled_loops() {
    let strategy = PreForking::new(1, EventLoop::new()).max_requests(1).max_requests_jitter(0);
    let mut server = builder(strategy).bind("127.0.0.1:0", factory(|_peer| Hangs)).unwrap();
    println!("{}", server.local_addr());
    println!("{}", server.serve_forever().unwrap());
}

fn recycled_protocols() {
    serve_protocols(PreForking::new(1, Threading::new()).max_requests(1).max_requests_jitter(0));
}

/// Each connection is the last of its worker, and comes before its first request.
fn first_requests_are_served(program: &mut Program) {
    let silent = |program: &Program| {
        let client = TcpStream::connect(&program.addr).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        until("its worker has a successor", || workers(program).len() > 1);
        thread::sleep(Duration::from_millis(100)); // and is told to end
        BufReader::new(client)
    };
    let mut client = silent(program);
    writeln!(client.get_mut(), "hello").unwrap();
    assert_eq!(line(&mut client), "hello");
    assert_eq!(line(&mut client), "", "it was the only one");
    until("its worker has ended", || workers(program).len() == 1);

    let mut client = silent(program);
    let began = Instant::now();
    assert!(program.stop().contains("failed 0"));
    assert_eq!(line(&mut client), "", "nobody is spared when the server follows");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

/// The second worker is not ready for a while, and has no share of the places until then.
fn late_to_settle_in<E>(engine: E) -> ServerBuilder<PreForking<E>> {
    let slow = |index| thread::sleep(Duration::from_millis(700 * index as u64));
    builder(PreForking::new(2, engine).after_fork(slow)).max_connections(2).handle_signals()
}

fn late<E>(engine: E)
where
    PreForking<E>: Engine<HandlerFn<fn(&mut Connection) -> HandlerResult>>,
{
    serve(late_to_settle_in(engine));
}

/// Answers after a while, and then closes.
struct Slow;

impl Protocol for Slow {
    fn data_received(&mut self, transport: &mut Transport<'_>, data: &[u8]) -> HandlerResult {
        let hold = data.starts_with(b"hold");
        transport.write(if hold { b"held\n" } else { data })?;
        if hold {
            transport.request_begins();
            transport.set_timer(Duration::from_millis(1200));
        } else {
            transport.close();
        }
        Ok(())
    }

    fn timer(&mut self, transport: &mut Transport<'_>, _timer: TimerId) -> HandlerResult {
        transport.write(b"done\n")?;
        transport.close();
        Ok(())
    }
}

fn late_loops() {
    let builder = late_to_settle_in(EventLoops::new(2));
    let mut server = builder.bind("127.0.0.1:0", factory(|_peer| Slow)).unwrap();
    println!("{}", server.local_addr());
    println!("{}", server.serve_forever().unwrap());
}

/// It waited for a place until its next heart beat, though there was nobody left to serve.
fn leaves_the_queue_to_others(program: &mut Program) {
    let mut busy = connect(program, "hold 1200");
    assert_eq!(line(&mut busy), "held");
    let mut queued = connect(program, "hello");
    let began = Instant::now();
    kill("TERM", program.child.id());
    assert_eq!((line(&mut busy).as_str(), line(&mut queued).as_str()), ("done", "hello"));
    assert!(program.rest().contains("served 2"));
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}
