//! Limits, numbers of workers, pauses: which worker may serve, and which is woken.

use super::*;

pub(crate) fn plain() {
    serve(builder(PreForking::new(2, Threading::new())));
}

pub(crate) fn reloads_and_grows(program: &mut Program) {
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
    let report = program.stop();
    assert!(report.contains("accepted ") && !report.contains("failed"), "{report}");
}

pub(crate) fn counts_on(program: &mut Program) {
    (0..10).for_each(|i| assert_eq!(program.ask(&i.to_string()), i.to_string()));
    let mut held = connect(program, "hold 20000");
    assert_eq!(line(&mut held), "held");
    until("the ten are counted", || program.ask("stats").contains("served 1"));
    for worker in workers(program) {
        kill("KILL", worker);
    }
    assert_eq!(line(&mut held), "", "its worker is gone");
    until("others serve", || program.ask("x") == "x");
    until("one was lost", || program.ask("crashed") != "0");
    let told = program.stop();
    let count =
        |of: &str| -> u64 { told.split(of).nth(1).unwrap().split([',', ' ', ')']).next().unwrap().parse().unwrap() };
    // The one that was held, and perhaps the last one that asked: its worker may have been killed at its end.
    assert!((1..=2).contains(&count("crashed ")) && count("failed ") == count("crashed "), "{told}");
    assert!(count("accepted ") > 11, "{told}");
}

pub(crate) fn limited() {
    serve(builder(PreForking::new(3, Threading::new()).max_requests(5).max_requests_jitter(0)).max_connections(4));
}

/// A client counts from the answer "held" until it lets go. Its handler runs for longer, so the count is never too high.
pub(crate) fn is_never_exceeded(program: &mut Program) {
    let (active, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..10 {
            scope.spawn(|| {
                for _ in 0..10 {
                    let mut client = connect(program, "hold on");
                    assert_eq!(line(&mut client), "held");
                    most.fetch_max(active.fetch_add(1, SeqCst) + 1, SeqCst);
                    thread::sleep(Duration::from_millis(20)); // so that they overlap; a shorter time makes the test weaker
                    active.fetch_sub(1, SeqCst);
                    writeln!(client.get_mut(), "go").unwrap();
                    assert_eq!(line(&mut client), "done");
                }
            });
        }
    });
    assert!(most.load(SeqCst) <= 4, "{} at once", most.load(SeqCst));
    let report = program.stop();
    assert!(report.contains("accepted ") && !report.contains("failed"), "{report}");
}

/// Greeters: to be served, a connection needs one wait that ends, its worker's for the connection.
pub(crate) fn sixteen() {
    let strategy = PreForking::new(16, Sequential).heartbeat(None);
    let greeter = handler(|conn| Ok(conn.write_all(b"x\n")?));
    let mut server = builder(strategy).bind("127.0.0.1:0", greeter).unwrap();
    println!("{}", server.local_addr());
    server.serve_forever().unwrap();
}

/// Each time that a process waits and is woken, it switches its context voluntarily.
pub(crate) fn few_are_woken(program: &mut Program) {
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
    // If each connection woke all sixteen, it would be 16 times as many. A process also waits for locks now and then.
    assert!(woken <= connections * 2, "{woken} waits ended for {connections} connections");
    assert!(woken * 10 >= connections * 5, "{woken} switches: what is counted is not what should be");
}

/// Its master resumes when a file of its number appears.
pub(crate) fn paused<E>(engine: E)
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

pub(crate) fn resume_file(pid: u32) -> PathBuf {
    std::env::temp_dir().join(format!("socketserver-resume-{pid}"))
}

pub(crate) fn waits_for_the_resume(program: &mut Program) {
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

/// Far more than telling a worker takes, also on a machine with ten other jobs, and less than any drain limit, heartbeat
/// or retirement.
pub(crate) const SOON: Duration = Duration::from_secs(8);

/// Whose threads wait with a place each: all of the limit.
pub(crate) fn pools() {
    serve(builder(PreForking::new(2, ThreadPool::new(4))).max_connections(8));
}

pub(crate) fn serves_with_a_lower_limit(program: &mut Program) {
    assert_eq!(program.ask("limit 1"), "Ok(())");
    let began = Instant::now();
    (0..20).for_each(|i| assert_eq!(program.ask(&i.to_string()), i.to_string()));
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    program.stop();
}

pub(crate) fn serves_with_more_workers(program: &mut Program) {
    assert_eq!(program.ask("workers 4"), "Ok(())");
    until("four serve", || workers(program).len() == 4);
    let began = Instant::now();
    let mut held: Vec<_> = (0..8).map(|_| connect(program, "hold 1000")).collect();
    held.iter_mut().for_each(|client| assert_eq!(line(client), "held"));
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    held.iter_mut().for_each(|client| assert_eq!(line(client), "done"));
    program.stop();
}

/// Its workers stand still before they are ready, until somebody wakes them.
fn asleep_at_first<E>(engine: E) -> ServerBuilder<PreForking<E>> {
    let sleep = |_| nix::sys::signal::raise(nix::sys::signal::Signal::SIGSTOP).unwrap();
    builder(PreForking::new(2, engine).after_fork(sleep)).handle_signals()
}

pub(crate) fn asleep<E>(engine: E)
where
    PreForking<E>: Engine<HandlerFn<fn(&mut Connection) -> HandlerResult>>,
{
    serve(asleep_at_first(engine));
}

pub(crate) fn asleep_loops() {
    let mut server = asleep_at_first(EventLoops::new(2)).bind("127.0.0.1:0", factory(|_peer| Slow)).unwrap();
    println!("{}", server.local_addr());
    println!("{}", server.serve_forever().unwrap());
}

/// No worker had a share of the places at the stop: all clients were reset.
pub(crate) fn become_ready_after_the_stop(program: &mut Program) {
    let mut clients: Vec<_> = (0..6).map(|_| connect(program, "hello")).collect();
    let sleeps = |pid: &u32| fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") T "));
    until("both workers stand still", || workers(program).iter().filter(|pid| sleeps(pid)).count() == 2);
    kill("TERM", program.child.id());
    workers(program).into_iter().for_each(|pid| kill("CONT", pid));
    clients.iter_mut().for_each(|client| assert_eq!(line(client), "hello"));
    assert!(program.rest().contains("served 6"));
}
