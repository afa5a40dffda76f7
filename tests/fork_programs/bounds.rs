//! Bounds of a child: processor time, memory, descriptors, and the request limit.

use super::*;

pub(crate) fn bounded() {
    let strategy = Forking::new().limit_cpu(17).limit_files(50).limit_memory(1 << 30).no_new_privs();
    serve(strategy.after_fork(|| {
        setrlimit(Resource::RLIMIT_CORE, 0, 0).unwrap();
        umask(Mode::from_bits_truncate(0o77));
        env::set_current_dir("/proc").unwrap();
    }));
}

pub(crate) fn bounds_are_seen(program: &mut Program) {
    let limits = program.ask("proc limits");
    for limit in ["cpu time 17 18", "open files 50 50", "core file size 0 0", "address space 1073741824 1073741824"] {
        assert!(limits.contains(limit), "{limit} is not in {limits}");
    }
    let status = program.ask("proc status");
    assert!(status.contains("NoNewPrivs: 1") && status.contains("Umask: 0077"), "{status}");
    assert!(program.ask("state").starts_with("/proc "));
    let own = std::fs::read_to_string(format!("/proc/{}/limits", program.child.id())).unwrap();
    let own = own.lines().find(|line| line.starts_with("Max cpu time")).unwrap();
    assert!(!own.contains("17"), "the server is bound itself: {own}");
    program.stop();
}

pub(crate) fn badly_bounded() {
    serve_one(Forking::new().limit_files(u64::MAX)); // more than the kernel has, for root too
}

pub(crate) fn fails_for_its_bounds(program: &mut Program) {
    assert_eq!(program.ask("anything"), "");
    let stats = program.rest();
    assert!(stats.contains("active 0 of 128, accepted 1, served 0, failed 1, disconnected 0, refused 0"), "{stats}");
}

pub(crate) fn hung() {
    let strategy = Forking::new().after_fork(|| loop {
        thread::park();
    });
    let builder = ServerBuilder::new().strategy(strategy).request_timeout(Duration::from_millis(200));
    let mut server = builder.drain_timeout(Duration::ZERO).bind("127.0.0.1:0", handler(answer)).unwrap();
    println!("{}", server.local_addr());
    assert!(server.handle_request(None).unwrap());
    let handle = server.handle();
    while handle.stats().active > 0 {
        server.handle_request(Some(Duration::from_millis(10))).unwrap();
    }
    println!("timed out {}", handle.stats().timed_out);
}

pub(crate) fn ends_at_the_limit(program: &mut Program) {
    assert_eq!(program.ask("anything"), "");
    assert_eq!(program.rest().trim(), "timed out 1");
}
