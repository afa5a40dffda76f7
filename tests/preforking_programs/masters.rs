//! Processes within workers, single requests, runs in a row, sockets of others.

use super::*;
use nix::sys::signal::{raise, Signal};

pub(crate) fn forking_within() {
    serve(builder(PreForking::new(2, Forking::new())));
}

pub(crate) fn serves_and_adds_up(program: &mut Program) {
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

pub(crate) fn one_of_four() {
    serve(builder(PreForking::new(4, Threading::new())).max_connections(40));
}

/// It can write its own page, and the counts of the queue at the stop. Its nonsense ends with it.
pub(crate) fn withstands_the_attack(program: &mut Program) {
    assert_eq!(program.ask("on"), "on");
    for _ in 0..10 {
        let before = workers(program);
        assert_eq!(program.ask("attack"), "2 own, 0 opened");
        until("it is replaced", || workers(program).len() == 4 && workers(program) != before);
        assert_eq!(program.ask("on"), "on");
    }
    until("the counters make sense again", || program.ask("stats").starts_with("active 1 of 40, accepted "));
    let told = program.stop();
    let number = |name: &str| -> u64 {
        told.split(&format!("{name} ")).nth(1).unwrap().split([',', ' ', '\n']).next().unwrap().parse().unwrap()
    };
    assert!(number("accepted") < 10_000 && number("served") >= 2, "{told}");
}

pub(crate) fn withstands_the_attack_of_a_child(program: &mut Program) {
    for _ in 0..20 {
        assert_eq!(program.ask("attack"), "1 own, 0 opened");
        assert_eq!(program.ask("on"), "on");
    }
    assert!(program.stop().contains("accepted 41, served 21, failed 20 (crashed 20)"));
}

pub(crate) fn asks_the_master(program: &mut Program) {
    assert_eq!(program.ask("workers 3"), "Ok(())");
    until("it has three workers", || workers(program).len() == 3);
    assert_eq!(program.ask("limit 9"), "Ok(())");
    until("the limit is nine", || program.ask("stats").starts_with("active 1 of 9,"));
    let before = workers(program);
    assert_eq!(program.ask("reload"), "Ok(())");
    until("all are replaced", || workers(program).is_disjoint(&before) && workers(program).len() == 3);
    program.stop();
}

pub(crate) fn handling_signals() {
    serve(builder(PreForking::new(2, Threading::new())).handle_signals());
}

pub(crate) fn handling_signals_twice() {
    serve(builder(PreForking::new(2, Forking::new())).handle_signals());
}

pub(crate) fn blocked_at_start() {
    nix::sys::signal::SigSet::all().thread_block().unwrap();
    handling_signals();
}

pub(crate) fn reloads_and_ends_at_signals(program: &mut Program) {
    let master = program.child.id();
    let before: HashSet<u32> = [program.ask("pid").parse().unwrap()].into();
    kill("HUP", master);
    until("all workers are replaced", || workers(program).is_disjoint(&before));
    kill("TERM", master);
    assert!(program.rest().contains("served 1"));
}

/// A shell cannot trap what was ignored when it started.
pub(crate) fn programs_trap_signals(program: &mut Program) {
    for signal in ["INT", "TERM", "HUP", "TTIN", "TTOU"] {
        assert_eq!(program.ask(&format!("status trap 'exit 42' {signal}; kill -s {signal} $$")), "42", "{signal}");
    }
    program.stop();
}

/// Ctrl-C reaches the whole group, and it is the master that drains.
pub(crate) fn child_survives_interrupts(program: &mut Program) {
    let mut client = connect(program, "hold 500");
    assert_eq!(line(&mut client), "held");
    let children: Vec<u32> = workers(program).into_iter().flat_map(children_of).collect();
    assert_eq!(children.len(), 1);
    ["INT", "HUP", "TTOU"].iter().for_each(|signal| kill(signal, children[0]));
    assert_eq!(line(&mut client), "done");
    program.stop();
}

pub(crate) fn ends_with_its_worker(program: &mut Program) {
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

pub(crate) fn one_by_one() {
    let mut server = builder(PreForking::new(2, Threading::new())).bind("127.0.0.1:0", handler(answer)).unwrap();
    println!("{}", server.local_addr());
    let master = std::process::id();
    assert!(server.handle_request(None).unwrap());
    assert!(server.handle_request(Some(Duration::from_secs(20))).unwrap());
    assert!(!server.handle_request(Some(Duration::ZERO)).unwrap());
    server.handle().shutdown();
    let addr = server.local_addr().socket_addr().unwrap();
    let mut queued = std::net::TcpStream::connect(addr).unwrap();
    queued.write_all(b"pid\n").unwrap();
    // A connection whose request is still on its way is sent away by a stop.
    until("its request is in the queue", || queues::unread_on(&[addr.port()]) == 4);
    assert!(!server.handle_request(None).unwrap() && !server.handle_request(None).unwrap());
    assert_eq!(server.serve_forever().unwrap().served, 1, "the run that drains serves the queue");
    assert_ne!(line(&mut std::io::BufReader::new(queued)), "");
    println!("{master} {}", server.handle().stats());
}

pub(crate) fn is_served_one_by_one(program: &mut Program) {
    let (one, two) = (program.ask("pid"), program.ask("pid"));
    assert!(one != two && !one.is_empty(), "each by a worker of its own: {one} {two}");
    let rest = program.rest();
    assert!(!rest.starts_with(&one) && rest.contains("served 3"), "{rest}");
}

/// The signals come before the run, as if its starter had read the address and had been fast.
pub(crate) fn told_early() {
    let strategy = PreForking::new(1, Threading::new());
    let mut server = builder(strategy).handle_signals().bind("127.0.0.1:0", handler(answer)).unwrap();
    for signal in [Signal::SIGHUP, Signal::SIGTTIN, Signal::SIGTTIN, Signal::SIGTTOU] {
        raise(signal).unwrap();
    }
    println!("{}", server.local_addr());
    println!("{}", server.serve_forever().unwrap());
}

pub(crate) fn has_two_workers(program: &mut Program) {
    until("there are two", || workers(program).len() == 2);
    program.stop();
}

pub(crate) fn twice() {
    let mut server = builder(PreForking::new(2, Threading::new())).bind("127.0.0.1:0", handler(answer)).unwrap();
    println!("{}", server.local_addr());
    println!("first: {}", server.serve_forever().unwrap());
    println!("second: {}", server.serve_forever().unwrap());
}

pub(crate) fn serves_twice(program: &mut Program) {
    assert_eq!(program.ask("one"), "one");
    assert_eq!(program.ask("stop"), "stopping");
    assert!(program.line().starts_with("first: accepted 2, served 2"));
    assert_eq!(program.ask("two"), "two");
    assert!(program.stop().contains("second: accepted 2, served 2"));
}

/// A supervisor that hands its socket on. This program is the supervisor, and with the socket as its standard input,
/// the server too.
pub(crate) fn taken_over() {
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

/// Without a logger. What goes to stderr is read by the client's part.
pub(crate) fn unheard() {
    nix::unistd::dup2_stderr(std::io::stdout()).unwrap();
    serve(builder(PreForking::new(3, Forking::new())));
}

pub(crate) fn is_said_once(program: &mut Program) {
    for _ in 0..30 {
        assert_eq!(program.ask("limit none"), "");
    }
    let told = program.stop();
    // Children that fail before the master has heard of the first one may each say it.
    let said = told.matches("socketserver: the handler of 127.0.0.1:").count();
    assert!((1..30).contains(&said), "{told}");
    assert!(told.contains("failed: invalid digit") && told.contains("failed 30"), "{told}");
}
