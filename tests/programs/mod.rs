//! Programs that fork: each is this very executable, started again under the name of a case, with one thread. The
//! parent half drives it as a client and looks at what it prints at its end.
#![allow(dead_code)] // each suite uses its part

pub mod attack;
#[path = "../support/patience.rs"]
pub mod patience;

use std::env;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{exit, Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

const CASE: &str = "SOCKETSERVER_FORK_CASE";

/// A case: its name, what the program does, and what its clients expect.
pub type Case = (&'static str, fn(), fn(&mut Program));

/// The program, or all that drive one.
pub fn run(cases: &'static [Case]) {
    if let Ok(name) = env::var(CASE) {
        let (_, program, _) = cases.iter().find(|(n, ..)| *n == name).expect("a case");
        return program();
    }
    let wanted: Vec<String> = env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let is_chosen = |case: &&Case| wanted.is_empty() || wanted.iter().any(|w| case.0.contains(w.as_str()));
    let (left, counts) = (Mutex::new(cases.iter().filter(is_chosen)), Mutex::new((0, 0)));
    let take_cases = || loop {
        let next = left.lock().unwrap().next();
        let Some((name, _, client)) = next else { break };
        let ok = thread::spawn(|| client(&mut Program::start(name))).join().is_ok();
        println!("test {name} ... {}", if ok { "ok" } else { "FAILED" });
        let mut counts = counts.lock().unwrap();
        *if ok { &mut counts.0 } else { &mut counts.1 } += 1;
    };
    // As many side by side as libtest would run: most wait most of the time.
    let told = env::var("RUST_TEST_THREADS").ok().and_then(|number| number.parse().ok());
    let most = told.unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from));
    thread::scope(|scope| (0..most).for_each(|_| drop(scope.spawn(take_cases))));
    let (passed, failed) = counts.into_inner().unwrap();
    println!(
        "\ntest result: {}. {passed} passed; {failed} failed; 0 ignored;",
        if failed == 0 { "ok" } else { "FAILED" }
    );
    exit(i32::from(failed > 0));
}

pub struct Program {
    pub child: Child,
    out: BufReader<ChildStdout>,
    pub addr: String,
    /// Dropped with the program, which is then not killed by its number any more.
    _over: mpsc::Sender<()>,
}

impl Program {
    pub fn start(name: &str) -> Self {
        let mut command = Command::new(env::current_exe().unwrap());
        let mut child = command
            .env(CASE, name)
            .env("RUST_BACKTRACE", "0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (pid, mut out) = (child.id().to_string(), BufReader::new(child.stdout.take().unwrap()));
        let (over, is_over) = mpsc::channel::<()>();
        thread::spawn(move || {
            if is_over.recv_timeout(Duration::from_secs(60)) == Err(RecvTimeoutError::Timeout) {
                // A program that hangs fails its case.
                let _ = Command::new("kill").args(["-s", "KILL", &pid]).stderr(Stdio::null()).status();
            }
        });
        let mut addr = String::new();
        out.read_line(&mut addr).unwrap();
        Self { child, out, addr: addr.trim().to_owned(), _over: over }
    }

    /// One line there, one back; nothing where the connection ends instead.
    pub fn ask(&self, line: &str) -> String {
        let client = TcpStream::connect(&self.addr).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let _ = writeln!(&client, "{line}");
        let mut answer = String::new();
        let _ = BufReader::new(client).read_line(&mut answer);
        answer.trim_end().to_owned()
    }

    /// Its next line.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.out.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// What it prints until its end, which is a success.
    pub fn rest(&mut self) -> String {
        let mut rest = String::new();
        self.out.read_to_string(&mut rest).unwrap();
        assert!(self.child.wait().unwrap().success(), "the program failed: {rest}");
        rest
    }

    pub fn stop(&mut self) -> String {
        assert_eq!(self.ask("stop"), "stopping");
        self.rest()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until the condition holds.
#[track_caller]
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < end, "waited in vain: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}
