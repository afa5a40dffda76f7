//! Starts: bad settings, workers that never get ready, hooks and bounds.

use super::*;
use nix::sched::{sched_setaffinity, CpuSet};
use nix::unistd::Pid;

pub(crate) fn setting<H, E: Engine<H>>(strategy: PreForking<E>, handler: H) -> &'static str {
    match ServerBuilder::new().strategy(strategy).bind("127.0.0.1:0", handler) {
        Err(Error::Setting { name, .. }) => name,
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("it was bound"),
    }
}

pub(crate) fn bad_settings() {
    let of = |strategy: PreForking| setting(strategy, handler(answer));
    let new = |n| PreForking::new(n, Threading::new());
    assert_eq!([of(new(0)), of(new(513)), of(new(5_000_000)), of(new(usize::MAX))], ["PreForking::new"; 4]);
    assert_eq!(of(new(1).max_requests(0)), "max_requests");
    assert_eq!(of(new(1).max_start_failures(0)), "max_start_failures");
    assert_eq!(of(new(1).heartbeat(Duration::ZERO)), "heartbeat");
    assert_eq!(of(new(1).process_name("a\0b")), "process_name");
    assert_eq!(of(new(1).limit_cpu(0)), "limit_cpu");
    assert_eq!(setting(PreForking::new(2, ThreadPool::new(0)), handler(answer)), "ThreadPool::new");
    nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, 256, 256).unwrap();
    assert_eq!(of(new(60)), "PreForking::new");
    println!("ok");
}

pub(crate) fn nested() {
    let strategy = PreForking::new(2, PreForking::new(2, Threading::new())).before_fork(|_| panic!("it was forked"));
    let why = builder(strategy).bind("127.0.0.1:0", handler(answer)).unwrap_err();
    assert!(matches!(why, Error::Setting { name: "PreForking::new", .. }), "{why}");
    assert!(why.to_string().contains("no workers of its own"), "{why}");
    println!("ok");
}

pub(crate) fn threads_before() {
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

pub(crate) fn without_workers() {
    let server = builder(Threading::new()).bind("127.0.0.1:0", handler(answer)).unwrap();
    let handle = server.handle();
    assert!(matches!(handle.set_workers(2), Err(Error::Setting { name: "set_workers", .. })));
    assert!(matches!(handle.reload(), Err(Error::Setting { name: "reload", .. })));
    let server = builder(PreForking::new(2, Threading::new())).bind("127.0.0.1:0", handler(answer)).unwrap();
    assert!(matches!(server.handle().set_workers(0), Err(Error::Setting { name: "set_workers", .. })));
    assert!(server.handle().set_workers(3).is_ok());
    println!("ok");
}

pub(crate) fn crash_loop() {
    let strategy = PreForking::new(4, Threading::new()).max_start_failures(2).after_fork(|_| exit(3));
    let mut server = builder(strategy).bind("127.0.0.1:0", handler(answer)).unwrap();
    let began = Instant::now();
    match server.serve_forever() {
        Err(e @ Error::Workers { failures: 2, .. }) => assert!(e.to_string().contains("exited with 3"), "{e}"),
        other => panic!("{other:?}"),
    }
    let took = began.elapsed();
    assert!(took >= Duration::from_secs(1), "{took:?} for a rest of 1 s");
    println!("ok");
}

pub(crate) fn panics_first() {
    let strategy = PreForking::new(1, Threading::new()).max_start_failures(1).after_fork(|_| panic!("no database"));
    let mut server = builder(strategy).bind("127.0.0.1:0", handler(answer)).unwrap();
    match server.serve_forever() {
        Err(Error::Workers { failures: 1, cause }) => assert!(cause.contains("no database"), "{cause}"),
        other => panic!("{other:?}"),
    }
    println!("ok");
}

/// A file of this program's, that tells its other half something.
fn mark(what: &str, program: u32) -> PathBuf {
    std::env::temp_dir().join(format!("socketserver-{what}-{program}"))
}

/// Workers die as soon as one has served.
pub(crate) fn bad_successors() {
    let (served, tried) = (mark("served", std::process::id()), mark("tried", std::process::id()));
    let (has_served, is_tried) = (served.clone(), tried.clone());
    let strategy = PreForking::new(1, Threading::new()).max_start_failures(1).after_fork(move |_| {
        if has_served.exists() {
            let _ = fs::write(&is_tried, "");
            exit(9);
        }
    });
    let marked = served.clone();
    let mut server = builder(strategy)
        .bind(
            "127.0.0.1:0",
            handler(move |conn: &mut Connection| {
                fs::write(&marked, "")?;
                answer(conn)
            }),
        )
        .unwrap();
    println!("{}", server.local_addr());
    println!("{}", server.serve_forever().unwrap());
    let _ = (fs::remove_file(served), fs::remove_file(tried));
}

pub(crate) fn goes_on_with_the_old_ones(program: &mut Program) {
    let (pid, tried) = (program.ask("pid"), mark("tried", program.child.id()));
    assert_eq!(program.ask("reload"), "Ok(())");
    for _ in 0..2 {
        until("a successor is tried", || tried.exists());
        assert_eq!(program.ask("pid"), pid);
        fs::remove_file(&tried).unwrap(); // and again in a second
    }
    program.stop();
}

pub(crate) fn hooked() {
    let strategy = PreForking::new(2, Threading::new())
        .before_fork(|index| {
            CHILDREN.fetch_add(1, SeqCst);
            println!("before {index}");
        })
        .after_fork(|index| println!("after {index}"))
        .on_worker_exit(|exit| println!("exit {} {:?} {:?} {}", exit.index, exit.code, exit.signal, exit.expected));
    serve(builder(strategy));
}

pub(crate) fn hooks_were_called(program: &mut Program) {
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

pub(crate) fn bounded() {
    let cpus = fs::read_to_string("/proc/self/status").unwrap();
    let list = cpus.lines().find_map(|l| l.strip_prefix("Cpus_allowed_list:")).unwrap().trim().to_owned();
    let first: usize = list.split([',', '-']).next().unwrap().parse().unwrap();
    let strategy = PreForking::new(2, Threading::new())
        .after_fork(move |_| {
            let mut cpu = CpuSet::new();
            cpu.set(first).and_then(|()| sched_setaffinity(Pid::from_raw(0), &cpu)).unwrap();
        })
        .process_name("web")
        .limit_files(99)
        .no_new_privs();
    serve(builder(strategy));
}

pub(crate) fn is_bounded(program: &mut Program) {
    assert!(program.ask("proc limits").contains("Max open files 99 99"));
    let status = program.ask("proc status");
    assert!(status.contains("NoNewPrivs: 1"), "{status}");
    let allowed = status.split("Cpus_allowed_list: ").nth(1).unwrap().split(' ').next().unwrap();
    assert!(allowed.parse::<usize>().is_ok(), "one processor: {allowed}");
    let name = |pid: &u32| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap();
    let names = || workers(program).iter().map(name).collect::<HashSet<String>>();
    until("both have their names", || names() == ["web-0\n".to_owned(), "web-1\n".to_owned()].into());
    program.stop();
}
