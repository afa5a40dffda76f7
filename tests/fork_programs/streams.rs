//! A stream of lines in a child: each line is a request, and the waits between them are idle.

use std::time::Duration;

use crate::*;

pub fn with_a_sink() {
    let sink = handler(|conn: &mut Connection| {
        while conn.next_line()?.is_some() {
            println!("a line");
        }
        println!("stopping: {}", conn.is_stopping());
        Ok(())
    });
    // A child that exceeded it would be killed soon after.
    let builder = ServerBuilder::new().strategy(Forking::new()).request_timeout(Duration::from_millis(200));
    let mut server = builder.handle_signals().bind("127.0.0.1:0", sink).unwrap();
    println!("{}", server.local_addr());
    let report = server.serve_forever().unwrap();
    println!("served {}, failed {}, crashed {}", report.served, report.failed, report.crashed);
}

pub fn is_idle_between_lines(program: &mut Program) {
    let mut client = TcpStream::connect(&program.addr).unwrap();
    for _ in 0..4 {
        thread::sleep(Duration::from_millis(300)); // longer than the request limit and what a child gets after it
        client.write_all(b"line\n").unwrap();
        assert_eq!(program.line(), "a line");
    }
    nix::sys::signal::kill(Pid::from_raw(program.child.id() as i32), Signal::SIGTERM).unwrap();
    assert_eq!(program.rest(), "stopping: true\nserved 1, failed 0, crashed 0\n");
}
