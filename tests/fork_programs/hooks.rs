//! Hooks of a server that forks.

use super::*;

pub fn idle_for_ever() -> ! {
    loop {
        thread::park();
    }
}

/// The first is refused, the second meets a panic, the third a hook that hangs; longer than a request may take.
pub fn verifying() {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hears = heard.clone();
    let builder = ServerBuilder::new().strategy(Forking::new()).request_timeout(Duration::from_millis(400));
    let builder = builder.verify_timeout(Duration::from_secs(1)).verify_request(|incoming| {
        match incoming.server().stats().accepted {
            1 => false,
            2 => panic!("no such name"),
            3 => idle_for_ever(),
            _ => true,
        }
    });
    let builder = builder.handle_error(move |failure| hears.lock().unwrap().push(format!("{failure:?}")));
    let mut server = builder.bind("127.0.0.1:0", handler(answer)).unwrap();
    println!("{}", server.local_addr());
    println!("{}", server.serve_forever().unwrap());
    println!("threads {}", std::fs::read_dir("/proc/self/task").unwrap().count());
    heard.lock().unwrap().iter().for_each(|text| println!("{text}"));
}

pub fn refuses_and_goes_on(program: &mut Program) {
    for _ in 0..3 {
        assert_eq!(program.ask("on"), "");
    }
    assert_eq!(program.ask("on"), "on");
    let told = program.stop();
    assert!(told.contains("accepted 5, served 2, refused 3"), "{told}");
    assert!(told.contains("threads 1\n"), "the server has started a thread: {told}");
    let parts = ["PermissionDenied", "said no", "no such name", "TimedOut", "took longer than 1s"];
    parts.iter().for_each(|part| assert!(told.contains(part), "{part:?} is not in {told}"));
    assert_eq!(told.matches("Refused").count(), 3, "{told}");
}

pub fn verifying_at_the_stop() {
    let builder = ServerBuilder::new().strategy(Forking::new()).drain_timeout(Duration::from_millis(200));
    let builder = builder.verify_request(|incoming| {
        incoming.server().shutdown();
        idle_for_ever()
    });
    let mut server = builder.bind("127.0.0.1:0", handler(answer)).unwrap();
    println!("{}", server.local_addr());
    let started = std::time::Instant::now();
    let report = server.serve_forever().unwrap();
    println!("{} of 1 ended, within 8 s: {}", report.refused + report.failed, started.elapsed().as_secs() < 8);
}

pub fn is_cut_with_its_child(program: &mut Program) {
    assert_eq!(program.ask("on"), "");
    assert_eq!(program.rest().trim(), "1 of 1 ended, within 8 s: true");
}

pub fn acting() {
    let calls = Arc::new(Mutex::new(Vec::new()));
    let acts = calls.clone();
    let builder = ServerBuilder::new().strategy(Forking::new());
    let act = move || acts.lock().unwrap().push(std::process::id());
    let mut server =
        builder.service_actions(Duration::from_millis(5), act).bind("127.0.0.1:0", handler(answer)).unwrap();
    println!("{}", server.local_addr());
    server.serve_forever().unwrap();
    let calls = calls.lock().unwrap();
    let own = calls.iter().all(|pid| *pid == std::process::id());
    println!("often: {}, here: {own}", calls.len() >= 10);
}

pub fn has_acted(program: &mut Program) {
    assert_eq!(program.ask("status sleep 0.5"), "0"); // the server is not held up by it
    assert_eq!(program.stop().trim(), "often: true, here: true");
}
