//! Children that a hostile client has taken over, and what an honest one may ask for.

use super::*;

pub(crate) fn attacked() {
    let builder = ServerBuilder::new().strategy(Forking::new()).request_timeout(Duration::from_secs(20));
    let mut server = builder.bind("127.0.0.1:0", handler(answer)).unwrap();
    println!("{}", server.local_addr());
    println!("{}", server.serve_forever().unwrap());
    println!("{}", server.handle().stats());
}

/// It can write the page of its own slot, and nothing of what it writes there counts.
pub(crate) fn withstands_the_attack(program: &mut Program) {
    let mut sibling = connect(program, "wait 1500");
    let mut told = String::new();
    sibling.read_line(&mut told).unwrap();
    for _ in 0..40 {
        assert_eq!(program.ask("attack"), "1 own, 0 opened");
        assert_eq!(program.ask("attack and exit"), "1 own, 0 opened");
    }
    sibling.read_line(&mut told).unwrap();
    assert_eq!(told, "waits\ndone\n", "another child felt it");
    assert_eq!(program.ask("on"), "on");
    let told = program.stop();
    assert!(told.contains("accepted 83, served 43, failed 40 (crashed 40)"), "{told}");
    assert!(told.contains("active 0 of 128"), "{told}");
}

/// A process that a child has left behind has the child's slot still. The next children have others.
pub(crate) fn is_not_haunted(program: &mut Program) {
    assert_eq!(program.ask("haunt"), "haunts");
    for _ in 0..40 {
        assert_eq!(program.ask("on"), "on");
    }
    let told = program.stop();
    // What becomes of the child itself is its own affair.
    assert!(told.contains("accepted 42, served 42") || told.contains("accepted 42, served 41, failed 1"), "{told}");
}

pub(crate) fn asks_its_parent(program: &mut Program) {
    assert_eq!(program.ask("ask"), "paused true, then false; limit 7");
    // The child that has asked may not be reaped yet.
    assert!(program.ask("stats").contains(" of 7, accepted 2"));
    assert!(program.stop().contains("served 3"));
}

/// A stop ends the wait of an idle sibling, by whichever child it is asked for; in the second run as in the first.
pub(crate) fn stops_its_siblings(program: &mut Program) {
    for word in ["first", "second"] {
        let mut idle = connect(program, "idle");
        let mut told = String::new();
        idle.read_line(&mut told).unwrap();
        assert_eq!(program.ask("stop"), "stopping");
        idle.read_line(&mut told).unwrap();
        assert_eq!(told, "idles\n", "{word}");
    }
    let told = program.rest();
    assert_eq!(told.trim(), "4", "{told}");
}

fn connect(program: &Program, line: &str) -> BufReader<TcpStream> {
    let client = TcpStream::connect(&program.addr).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    writeln!(&client, "{line}").unwrap();
    BufReader::new(client)
}
