//! Workers that hang, and those that only wait.

use super::*;

pub(crate) fn hanging() {
    serve(builder(PreForking::new(1, Sequential).heartbeat(Duration::from_millis(1000))));
}

pub(crate) fn hanging_loop() {
    let strategy = PreForking::new(1, EventLoop::new()).heartbeat(Duration::from_millis(1000));
    let mut server = builder(strategy).bind("127.0.0.1:0", factory(|_| Hangs)).unwrap();
    println!("{}", server.local_addr());
    println!("{}", server.serve_forever().unwrap());
}

pub(crate) fn hanging_loops() {
    let strategy = PreForking::new(1, EventLoops::new(3)).heartbeat(Duration::from_millis(1000));
    let mut server = builder(strategy).bind("127.0.0.1:0", factory(|_| Hangs)).unwrap();
    println!("{}", server.local_addr());
    println!("{}", server.serve_forever().unwrap());
}

/// The other loops of the worker serve on, and must not speak for the one that hangs.
pub(crate) fn is_replaced_beside_others(program: &mut Program) {
    let pid = program.ask("pid");
    let mut hangs = connect(program, "hang");
    until("another worker serves", || {
        let other = program.ask("pid");
        !other.is_empty() && other != pid
    });
    assert_eq!(line(&mut hangs), "", "it goes with its worker");
    let told = program.stop();
    assert!(told.contains("crashed "), "{told}");
}

pub(crate) fn loops_within() {
    let strategy = PreForking::new(2, EventLoops::new(2)).heartbeat(Duration::from_millis(500));
    let mut server = builder(strategy).bind("127.0.0.1:0", factory(|_| Hangs)).unwrap();
    println!("{}", server.local_addr());
    println!("{}", server.serve_forever().unwrap());
}

pub(crate) fn serves_in_all_loops(program: &mut Program) {
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
    thread::sleep(Duration::from_millis(1500)); // three heartbeats
    assert_eq!(program.ask("crashed"), "0", "all hearts beat");
    let told = program.stop();
    assert!(told.contains("accepted ") && !told.contains("failed"), "{told}");
}

pub(crate) fn is_replaced(program: &mut Program) {
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

pub(crate) fn waiting() {
    serve(builder(PreForking::new(1, Sequential).heartbeat(Duration::from_millis(500))));
}

pub(crate) fn is_not_replaced(program: &mut Program) {
    let pid = program.ask("pid");
    let mut client = TcpStream::connect(&program.addr).unwrap();
    thread::sleep(Duration::from_millis(1500)); // three heartbeats
    writeln!(client, "pid").unwrap();
    assert_eq!(line(&mut BufReader::new(client)), pid);
    program.stop();
}
