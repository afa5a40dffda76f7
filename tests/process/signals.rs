//! SIGINT and SIGTERM, in a process of their own: this test starts itself again and sends signals with kill(1).
//! That former handlers are called and restored needs sigaction(2), and is not tested here.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::{env, thread, time::Duration};

use crate::kit::{connect, expect, read, read_all, until, Lines};
use crate::support::{comes_true, queues};
use nix::sys::signal::{raise, Signal};
use socketserver::{handler, Reactor, ServerBuilder, TcpServer, Threading};

const ROLE: &str = "SOCKETSERVER_SIGNALS_ROLE";
const ANY: &str = "127.0.0.1:0";

/// Not a test of its own: what the child processes run.
#[test]
fn role() {
    match env::var(ROLE).as_deref() {
        Ok("drain") => drain(),
        Ok("spin") => spin(),
        Ok("two") => two(),
        Ok("off") => off(),
        Ok("over") => over(),
        _ => {}
    }
}

fn builder() -> ServerBuilder {
    ServerBuilder::new().drain_timeout(Duration::from_secs(3600)).handle_signals()
}

fn announce<H, S: socketserver::server::Engine<H>>(server: &TcpServer<H, S>) {
    println!("\nlistening {}", server.local_addr());
}

fn drain() {
    let mut server = builder().bind(ANY, Lines).unwrap();
    announce(&server);
    println!("report {}", server.serve_forever().unwrap());
}

/// A handler that hears nothing.
fn spin() {
    let deaf = handler(|conn| {
        writeln!(conn, "here")?;
        conn.flush()?;
        loop {
            thread::sleep(Duration::from_secs(1));
        }
    });
    let mut server = builder().bind(ANY, deaf).unwrap();
    announce(&server);
    server.serve_forever().unwrap();
}

fn two() {
    let (mut a, mut b) = (builder().bind(ANY, Lines).unwrap(), builder().bind(ANY, Lines).unwrap());
    let other = thread::spawn(move || b.serve_forever().unwrap());
    announce(&a);
    a.serve_forever().unwrap();
    other.join().unwrap();
    println!("report both");
}

fn off() {
    let mut server = TcpServer::<_, Threading>::bind(ANY, Lines).unwrap();
    announce(&server);
    server.serve_forever().unwrap();
}

/// After a run, signals are the program's again.
fn over() {
    let mut server = builder().bind(ANY, Lines).unwrap();
    server.handle().shutdown();
    server.serve_forever().unwrap();
    announce(&server);
    thread::sleep(Duration::from_secs(3600));
}

struct Process {
    child: Child,
    out: Option<BufReader<ChildStdout>>,
    addr: Option<SocketAddr>,
}

impl Process {
    fn start(role: &str) -> Self {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["--exact", "signals::role", "--nocapture"]).env(ROLE, role);
        let mut process = Self { child: command.stdout(Stdio::piped()).spawn().unwrap(), out: None, addr: None };
        let mut out = BufReader::new(process.child.stdout.take().unwrap());
        while process.addr.is_none() {
            let mut line = String::new();
            assert_ne!(out.read_line(&mut line).unwrap(), 0, "{role} has ended early");
            process.addr = line.strip_prefix("listening ").map(|addr| addr.trim_end().parse().unwrap());
        }
        process.out = Some(out);
        process
    }

    fn connect(&self) -> TcpStream {
        connect(self.addr.unwrap())
    }

    fn signal(&self, name: &str) {
        let killed = Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap();
        assert!(killed.success());
    }

    fn end(&mut self) -> (ExitStatus, String) {
        let mut status = None;
        until("the process ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        let mut text = String::new();
        self.out.as_mut().unwrap().read_to_string(&mut text).unwrap();
        (status.unwrap(), text)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn either_signal_drains() {
    for signal in ["-INT", "-TERM"] {
        let mut process = Process::start("drain");
        let mut client = process.connect();
        client.write_all(b"before\nhalf").unwrap();
        expect(&mut client, "before\n");
        let (ours, theirs) = (client.local_addr().unwrap().port(), process.addr.unwrap().port());
        until("the half is read", || queues::unread(theirs, ours) == Some(0));
        process.signal(signal);
        until("it no longer accepts", || {
            let mut late = process.connect();
            late.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
            late.write_all(b"late\n").is_err() || !read(&mut late, &mut [0]).is_ok_and(|n| n > 0)
        });
        client.write_all(b" and half\n").unwrap();
        assert_eq!(read_all(&mut client), "half and half\n", "{signal}");
        let (status, text) = process.end();
        assert!(status.success() && text.contains("served "), "{signal}: {status} {text}");
    }
}

#[test]
fn the_second_signal_ends_the_process_at_once() {
    for (signal, code) in [("-INT", 130), ("-TERM", 143)] {
        let mut process = Process::start("spin");
        let mut client = process.connect();
        expect(&mut client, "here\n");
        process.signal("-TERM");
        thread::sleep(Duration::from_millis(100));
        assert!(process.child.try_wait().unwrap().is_none(), "the first only drains");
        // Again where the first was heard so late that this one is taken for its echo.
        until("the second one is heard", || {
            process.signal(signal);
            comes_true(Duration::from_millis(200), || process.child.try_wait().unwrap().is_some())
        });
        assert_eq!(process.end().0.code(), Some(code), "{signal}");
    }
}

#[test]
fn all_servers_of_a_process_are_drained() {
    let mut process = Process::start("two");
    process.signal("-TERM");
    let (status, text) = process.end();
    assert!(status.success() && text.contains("report both"), "{status} {text}");
}

#[test]
fn by_default_signals_are_the_program_s() {
    let mut process = Process::start("off");
    process.signal("-TERM");
    assert_eq!(process.end().0.signal(), Some(15));
}

#[test]
fn after_a_run_signals_are_the_program_s_again() {
    let mut process = Process::start("over");
    process.signal("-TERM");
    assert_eq!(process.end().0.signal(), Some(15));
}

/// The server of a reactor handles signals until it is dropped.
#[test]
fn a_signal_between_two_runs_of_a_reactor_ends_the_second() {
    alone!();
    let mut reactor = Reactor::new().unwrap();
    reactor.handle_signals().unwrap();
    reactor.server().shutdown();
    reactor.run().unwrap();
    raise(Signal::SIGTERM).unwrap();
    reactor.run().unwrap();
    // That run has ended by the signal, so the next one is free of it.
    reactor.call_when_running(|cx| cx.stop());
    reactor.run().unwrap();
}
