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

/// Becomes another program for each client, in the order in which they come.
pub fn with_programs() {
    let run = handler(|conn: &mut Connection| {
        conn.write_all(b"first ")?;
        let shell = |script: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            command
        };
        let mut command = match conn.server().stats().accepted {
            1 => shell("read line; echo $line"),
            2 => shell("exit 3"),
            3 => Command::new("/no/such/program"),
            4 => {
                let line = conn.next_line()?; // and has read ahead
                writeln!(conn, "{line:?}")?;
                Command::new("cat")
            }
            5 => {
                conn.flush()?;
                let refused = conn.detach().map_err(|e| e.kind()).err();
                writeln!(conn, "{refused:?}")?;
                conn.flush()?;
                exit(0) // no program
            }
            _ => Command::new("cat"),
        };
        Err(conn.exec(&mut command).into())
    });
    let builder = ServerBuilder::new().strategy(Forking::new()).drain_timeout(Duration::from_millis(300));
    let hears = Arc::new(Mutex::new(Vec::new()));
    let heard = hears.clone();
    let mut server = builder
        .handle_signals()
        .handle_error(move |failure: &Failure<'_>| {
            let text = failure.to_string();
            hears.lock().unwrap().push(text.split_once(' ').map_or(text.clone(), |(_, rest)| rest.to_owned()));
        })
        .bind("127.0.0.1:0", run)
        .unwrap();
    println!("{}", server.local_addr());
    let report = server.serve_forever().unwrap();
    println!("served {}, failed {}, crashed {}", report.served, report.failed, report.crashed);
    heard.lock().unwrap().iter().for_each(|text| println!("{text}"));
}

pub fn programs_are_counted(program: &mut Program) {
    for answer in ["first a line", "first ", "first ", "first Some(\"a line\")", "first Some(Unsupported)"] {
        let mut client = TcpStream::connect(&program.addr).unwrap();
        client.write_all(b"a line\nand one\n").unwrap();
        let mut got = String::new();
        let _ = BufReader::new(client).read_line(&mut got); // a program that does not read its input resets
        assert_eq!(got.trim_end_matches('\n'), answer);
    }
    let idle = TcpStream::connect(&program.addr).unwrap();
    let mut first = [0; 6];
    std::io::Read::read_exact(&mut &idle, &mut first).unwrap();
    nix::sys::signal::kill(Pid::from_raw(program.child.id() as i32), Signal::SIGTERM).unwrap();
    let told = program.rest();
    assert!(told.starts_with("served 1, failed 5, crashed 2\n"), "{told}");
    for part in ["exited with 3", "exited with 0", "No such file", "read ahead", "SIGTERM"] {
        assert!(told.contains(part), "{part:?} is not in {told}");
    }
}
