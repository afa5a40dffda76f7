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

/// Waits for its client and for a thread of its own, as a child may have one.
pub fn waiting_for_both() {
    let serve = handler(|conn: &mut Connection| {
        let waker = conn.waker()?;
        loop {
            match conn.wait()? {
                Event::Input => {
                    while let Some(line) = conn.try_next_line()? {
                        let waker = waker.clone();
                        thread::spawn(move || waker.wake());
                        println!("{line}");
                    }
                }
                event @ (Event::Stopping | Event::End) => {
                    println!("{event:?}");
                    return Ok(());
                }
                event => println!("{event:?}"),
            }
        }
    });
    let builder = ServerBuilder::new().strategy(Forking::new()).request_timeout(Duration::from_millis(200));
    let mut server = builder.handle_signals().bind("127.0.0.1:0", serve).unwrap();
    println!("{}", server.local_addr());
    let report = server.serve_forever().unwrap();
    println!("served {}, failed {}, crashed {}", report.served, report.failed, report.crashed);
}

pub fn is_woken_by_both(program: &mut Program) {
    let mut client = TcpStream::connect(&program.addr).unwrap();
    for _ in 0..2 {
        thread::sleep(Duration::from_millis(300)); // longer than the request limit: the wait is idle
        client.write_all(b"a line\n").unwrap();
        assert_eq!((program.line(), program.line()), ("a line".to_owned(), "Woken".to_owned()));
    }
    nix::sys::signal::kill(Pid::from_raw(program.child.id() as i32), Signal::SIGTERM).unwrap();
    assert_eq!(program.rest(), "Stopping\nserved 1, failed 0, crashed 0\n");
}
