//! Programs that serve datagrams with `Forking`: a child for each.

mod programs;

use std::fs;
use std::io::Write;
use std::net::UdpSocket;
use std::process::{abort, exit, id};
use std::thread;
use std::time::Duration;

use programs::patience::uninterrupted;
use programs::{until, Case, Program};
use socketserver::{
    datagram_handler, handler, Datagram, DatagramRequestHandler, Failure, Forking, HandlerResult, ServerBuilder,
    UdpServer,
};

const CASES: &[Case] = &[
    ("s9_each_datagram_is_a_child_s", plain, is_served_by_children),
    ("a_child_has_nothing_of_another_server", beside_others, has_nothing_of_others),
    ("whatever_ends_a_child_sends_nothing_and_the_server_goes_on", reporting, every_end_is_told),
    ("never_more_children_than_the_limit", limited, keeps_its_limit),
    ("a_handler_that_spins_ends_at_the_request_limit", hasty, is_ended_at_the_limit),
    ("verify_request_is_asked_in_the_child", verifying, refuses_and_goes_on),
    ("single_requests_leave_no_zombie", one_by_one, is_served_one_by_one),
    ("what_is_queued_at_the_stop_is_served", limited, serves_the_queue),
    ("a_flood_does_not_delay_the_stop", flooded, stops_in_the_flood),
];

fn main() {
    programs::run(CASES);
}

// ---- the program ----

fn answer(datagram: &mut Datagram) -> HandlerResult {
    let text = String::from_utf8_lossy(datagram.data()).into_owned();
    match text.as_str() {
        "stop" => {
            datagram.server().shutdown();
            write!(datagram, "stopping")?;
        }
        "pid" => write!(datagram, "{}", id())?,
        "files" => write!(datagram, "{}", fs::read_dir("/proc/self/fd")?.count())?,
        "fail" => {
            write!(datagram, "half")?;
            return Err("as it was told".into());
        }
        "panic" => panic!("as it was told"),
        "exit" => exit(7),
        "abort" => abort(),
        "spin" => loop {
            std::hint::spin_loop();
        },
        "long" => {
            thread::sleep(Duration::from_millis(50)); // so that children overlap
            write!(datagram, "{}", datagram.data().len())?;
        }
        text => write!(datagram, "{text}")?,
    }
    Ok(())
}

fn bind(builder: ServerBuilder) -> UdpServer<impl DatagramRequestHandler, Forking> {
    let server = builder.strategy(Forking::new()).bind_udp("127.0.0.1:0", datagram_handler(answer)).unwrap();
    println!("{}", server.local_addr());
    server
}

/// Each datagram brings two more, so that the queue is never found empty.
fn flooded() {
    let feeding = datagram_handler(|datagram: &mut Datagram| {
        let (socket, to) = (UdpSocket::bind("127.0.0.1:0")?, datagram.local_addr().socket_addr().unwrap());
        (0..2).try_for_each(|_| socket.send_to(b"x", to).map(drop))?;
        if datagram.server().stats().served > 20 {
            datagram.server().shutdown();
        }
        Ok(())
    });
    let builder = ServerBuilder::new().strategy(Forking::new()).drain_timeout(Duration::from_secs(3600));
    let mut server = builder.bind_udp("127.0.0.1:0", feeding).unwrap();
    println!("{}", server.local_addr());
    println!("{}", server.serve_forever().unwrap());
}

fn stops_in_the_flood(program: &mut Program) {
    UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"x", &program.addr).unwrap();
    let report = program.rest();
    assert!(report.contains("accepted") && !report.contains("forced"), "{report}");
}

fn serve(builder: ServerBuilder) {
    println!("{}", bind(builder).serve_forever().unwrap());
}

// ---- its clients ----

fn client(program: &Program) -> UdpSocket {
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    client.connect(&program.addr).unwrap();
    client
}

fn next(client: &UdpSocket) -> String {
    let mut buf = [0; 100];
    let n = uninterrupted(|| client.recv(&mut buf)).unwrap();
    String::from_utf8_lossy(&buf[..n]).into_owned()
}

fn ask(program: &Program, text: &str) -> String {
    let client = client(program);
    client.send(text.as_bytes()).unwrap();
    next(&client)
}

fn stop(program: &mut Program) -> String {
    assert_eq!(ask(program, "stop"), "stopping");
    program.rest()
}

fn children(program: &Program) -> usize {
    let pid = program.child.id();
    fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap().split_whitespace().count()
}

// ---- the cases ----

fn plain() {
    serve(ServerBuilder::new());
}

fn is_served_by_children(program: &mut Program) {
    let pids: Vec<String> = (0..3).map(|_| ask(program, "pid")).collect();
    assert!(!pids.contains(&program.child.id().to_string()), "{pids:?}");
    assert!(pids[0] != pids[1] && pids[1] != pids[2], "{pids:?}");
    assert_eq!(ask(program, "hello world"), "hello world");
    until("all are reaped", || children(program) == 0);
    let report = stop(program);
    assert!(report.starts_with("accepted 5, served 5") && !report.contains("failed"), "{report}");
}

fn beside_others() {
    let udp = bind_apart();
    let tcp = ServerBuilder::new().strategy(Forking::new()).bind("127.0.0.1:0", handler(|_| Ok(()))).unwrap();
    serve(ServerBuilder::new());
    drop((udp, tcp));
}

fn bind_apart() -> UdpServer<impl DatagramRequestHandler, Forking> {
    ServerBuilder::new().strategy(Forking::new()).bind_udp("127.0.0.1:0", datagram_handler(answer)).unwrap()
}

fn has_nothing_of_others(program: &mut Program) {
    let mut alone = Program::start("s9_each_datagram_is_a_child_s");
    assert_eq!(ask(program, "files"), ask(&alone, "files"), "the same number of descriptors");
    stop(program);
    stop(&mut alone);
}

fn reporting() {
    serve(ServerBuilder::new().handle_error(|failure: &Failure<'_>| {
        println!("told: {}", failure.to_string().split_once(' ').map_or("", |(_, rest)| rest));
    }));
}

fn every_end_is_told(program: &mut Program) {
    let client = client(program);
    let expected = [
        ("fail", "failed: as it was told"),
        ("panic", "panicked: as it was told"),
        ("exit", "exited with 7"),
        ("abort", "was killed by SIGABRT"),
    ];
    for (text, how) in expected {
        client.send(text.as_bytes()).unwrap();
        let told = program.line();
        assert!(told.starts_with("told: ") && told.ends_with(how), "{text}: {told}");
        client.send(b"on").unwrap();
        assert_eq!(next(&client), "on", "{text}: nothing else was sent");
    }
    let report = stop(program);
    assert!(report.starts_with("accepted 9, served 5, failed 4 (panicked 1, crashed 2)"), "{report}");
}

fn limited() {
    serve(ServerBuilder::new().max_connections(2));
}

fn keeps_its_limit(program: &mut Program) {
    let client = client(program);
    client.set_nonblocking(true).unwrap();
    (0..12).for_each(|_| assert!(client.send(b"long").is_ok()));
    let (mut most, mut answered) = (0, 0);
    until("all are answered", || {
        most = most.max(children(program));
        answered += usize::from(client.recv(&mut [0; 10]).is_ok());
        answered == 12
    });
    assert!((1..=2).contains(&most), "{most}");
    stop(program);
}

fn serves_the_queue(program: &mut Program) {
    let client = client(program);
    (0..2).for_each(|_| assert!(client.send(b"long").is_ok())); // its two places
    client.send(b"stop").unwrap();
    (0..4).for_each(|_| assert!(client.send(b"long").is_ok()));
    let mut answers: Vec<String> = (0..7).map(|_| next(&client)).collect();
    answers.sort_unstable();
    assert_eq!(answers, ["4", "4", "4", "4", "4", "4", "stopping"]);
    assert!(program.rest().starts_with("accepted 7, served 7, "));
}

fn hasty() {
    serve(ServerBuilder::new().request_timeout(Duration::from_millis(500)));
}

fn is_ended_at_the_limit(program: &mut Program) {
    client(program).send(b"spin").unwrap();
    assert_eq!(ask(program, "on"), "on"); // by then both have begun
    until("both are ended", || children(program) == 0);
    let report = stop(program);
    assert!(report.contains("(timed out 1)"), "{report}");
}

fn verifying() {
    serve(
        ServerBuilder::new()
            .verify_request(|incoming| incoming.peer_addr().ip().is_some_and(|ip| ip.to_string() != "127.0.0.3")),
    );
}

fn refuses_and_goes_on(program: &mut Program) {
    let refused = UdpSocket::bind("127.0.0.3:0").unwrap();
    refused.send_to(b"on", &program.addr).unwrap();
    assert_eq!(ask(program, "on"), "on");
    until("both are reaped", || children(program) == 0);
    refused.set_nonblocking(true).unwrap();
    assert!(refused.recv(&mut [0; 10]).is_err());
    let report = stop(program);
    assert!(report.starts_with("accepted 3, served 2, refused 1"), "{report}");
}

fn one_by_one() {
    let mut server = bind(ServerBuilder::new());
    for _ in 0..5 {
        assert!(server.handle_request(None).unwrap());
    }
    let handle = server.handle();
    while handle.stats().active > 0 {
        assert!(!server.handle_request(Some(Duration::from_millis(10))).unwrap());
    }
    let task = format!("/proc/self/task/{}/children", id());
    println!("served {}, children {:?}", handle.stats().served, fs::read_to_string(task).unwrap());
}

fn is_served_one_by_one(program: &mut Program) {
    for _ in 0..5 {
        assert_eq!(ask(program, "on"), "on");
    }
    assert_eq!(program.rest().trim(), "served 5, children \"\"");
}
