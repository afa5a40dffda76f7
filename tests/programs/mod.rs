//! Programs that fork: each is this very executable, started again under the name of a case, with one thread. The
//! parent half drives it as a client and looks at what it prints at its end.
#![allow(dead_code)] // each suite uses its part

use std::env;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{exit, Child, ChildStdout, Command, Stdio};
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
    let chosen =
        cases.iter().filter(|(name, ..)| wanted.is_empty() || wanted.iter().any(|w| name.contains(w.as_str())));
    let (mut passed, mut failed) = (0, 0);
    for (name, _, client) in chosen {
        let ok = thread::spawn(|| client(&mut Program::start(name))).join().is_ok();
        println!("test {name} ... {}", if ok { "ok" } else { "FAILED" });
        *if ok { &mut passed } else { &mut failed } += 1;
    }
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
}

impl Program {
    pub fn start(name: &str) -> Self {
        let mut command = Command::new(env::current_exe().unwrap());
        let mut child = command.env(CASE, name).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let (pid, mut out) = (child.id().to_string(), BufReader::new(child.stdout.take().unwrap()));
        thread::spawn(move || {
            thread::sleep(Duration::from_secs(60)); // a program that hangs fails its case
            Command::new("kill").args(["-s", "KILL", &pid]).stderr(Stdio::null()).status()
        });
        let mut addr = String::new();
        out.read_line(&mut addr).unwrap();
        Self { child, out, addr: addr.trim().to_owned() }
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
