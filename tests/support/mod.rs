//! Example servers as processes, driven from outside: what the suites have in common. The helpers are verbs, and
//! each waits for a condition rather than for a time. A server that goes out of scope takes all of its processes along.
#![allow(dead_code)] // each suite uses its part

mod client;
#[allow(clippy::duplicate_mod)] // `kit` has it too
mod patience;
pub mod pki;
pub mod procfs;
pub mod queues;
pub mod tls;

use std::io::{BufRead, BufReader, Read};
use std::ops::Index;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{mpsc, Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

pub use client::Client;
pub use patience::uninterrupted;

/// Nothing that a test waits for takes this long, unless it is broken.
pub const LIMIT: Duration = Duration::from_secs(30);

/// What happens at once happens within this time on a machine with ten other jobs. Every default limit of a server is
/// longer: the shortest is the drain limit, 10 s.
pub const AT_ONCE: Duration = Duration::from_secs(8);

/// Waits until the condition holds; panics, with what was waited for, once it never will.
#[track_caller]
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    assert!(comes_true(LIMIT, &mut holds), "waited {LIMIT:?} in vain: {what}");
}

/// Does something that must be prepared within the given time, and returns `None` where it was not: a loaded machine may
/// be too slow. Then it is done again with three times as much, and so on up to 81 times.
pub fn with_time_enough<R>(time: Duration, mut act: impl FnMut(Duration) -> Option<R>) -> R {
    let done = [1, 3, 9, 27, 81].into_iter().find_map(|factor| act(time * factor));
    done.unwrap_or_else(|| panic!("{:?} were not enough to prepare it", time * 81))
}

/// Whether the condition comes true within the time.
pub fn comes_true(within: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + within;
    loop {
        let look = Instant::now();
        if holds() {
            return true;
        }
        if Instant::now() > end {
            return false;
        }
        // Between two looks. One at all processes takes long, and must not take a whole processor.
        thread::sleep((look.elapsed() * 4).clamp(Duration::from_millis(2), Duration::from_millis(20)));
    }
}

/// Copies a program, by a process of its own. While this one had it open for writing, another test might fork, and the
/// program could not be started as long as that child has the descriptor.
pub fn install(from: &Path, to: &Path) {
    let copied = Command::new("install").args(["-m", "700"]).args([from, to]).status().unwrap();
    assert!(copied.success(), "install {} {}", from.display(), to.display());
}

/// The executable of an example: Cargo puts examples next to the folder of the tests.
pub fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test.parent().and_then(|deps| deps.parent()).unwrap().join("examples").join(name);
    assert!(path.exists(), "{} is missing: `cargo test` builds it, or `cargo build --examples`", path.display());
    path
}

/// Runs an example to its end: for those that end by themselves.
#[track_caller]
pub fn run(name: &str, args: &[&str]) -> Output {
    let mut command = Command::new(example(name));
    command.args(args).env("RUST_LOG", "info");
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    output(child, &format!("{name} {args:?}"))
}

/// What a process prints until its end, which comes soon.
#[track_caller]
pub fn output(child: Child, what: &str) -> Output {
    let pid = child.id();
    let (done, output) = mpsc::channel();
    thread::spawn(move || done.send(child.wait_with_output()));
    output.recv_timeout(LIMIT).map(Result::unwrap).unwrap_or_else(|_| {
        kill("KILL", &pid.to_string());
        panic!("{what} does not end");
    })
}

/// A command for a program that the system may lack: `None`, with a line that says so, where it does. With
/// `REQUIRE_TOOLS=1` that is a failure, so that no continuous test passes by skipping.
pub fn tool(name: &str) -> Option<Command> {
    let found = Command::new("sh").args(["-c", "command -v \"$0\"", name]).stdout(Stdio::null()).status();
    if found.unwrap().success() {
        return Some(Command::new(name));
    }
    assert_ne!(std::env::var("REQUIRE_TOOLS").as_deref(), Ok("1"), "{name} is not installed");
    println!("skipped: {name} is not installed");
    None
}

/// The lines that a pipe has brought so far, and whether it has ended.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>, Arc<AtomicBool>);

impl Lines {
    /// Collects on a thread of its own, so that the server never waits for us.
    fn collect(pipe: impl Read + Send + 'static) -> Self {
        let lines = Self::default();
        let to = lines.clone();
        thread::spawn(move || {
            for line in BufReader::new(pipe).lines() {
                let Ok(line) = line else { break };
                to.0.lock().unwrap().push(line);
            }
            to.1.store(true, SeqCst);
        });
        lines
    }

    fn get(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

/// How a server ended, and how long after the test began to wait for it.
#[derive(Debug, Clone, Copy)]
pub struct Ended {
    pub status: ExitStatus,
    pub after: Duration,
}

impl Ended {
    /// Ended by itself, without an error, within this time.
    #[track_caller]
    pub fn well_within(self, time: Duration) {
        assert_eq!(self.status.code(), Some(0), "{:?}", self.status);
        assert!(self.after < time, "it took {:?}, of {time:?} at most", self.after);
    }

    pub fn code(self) -> Option<i32> {
        self.status.code()
    }

    pub fn signal(self) -> Option<i32> {
        self.status.signal()
    }
}

/// The counters that `STATS` answers.
#[derive(Debug)]
pub struct Stats(Vec<(String, u64)>);

impl Stats {
    /// Reads `{"name": number, ...}`.
    pub fn parse(json: &str) -> Self {
        let inner = json.trim().strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
        let inner = inner.unwrap_or_else(|| panic!("no JSON object: {json:?}"));
        let field = |field: &str| -> Option<(String, u64)> {
            let (name, number) = field.split_once(':')?;
            Some((name.trim().trim_matches('"').to_owned(), number.trim().parse().ok()?))
        };
        Self(inner.split(',').map(|f| field(f).unwrap_or_else(|| panic!("no counter: {f:?}"))).collect())
    }

    /// Whether every accepted connection is accounted for, once.
    pub fn add_up(&self) -> bool {
        let ended = self["served"] + self["failed"] + self["disconnected"] + self["refused"];
        self["accepted"] == ended + self["active"]
    }
}

impl Index<&str> for Stats {
    type Output = u64;

    fn index(&self, name: &str) -> &u64 {
        let found = self.0.iter().find(|(n, _)| n == name);
        &found.unwrap_or_else(|| panic!("STATS has no {name:?}: {self:?}")).1
    }
}

/// A running example. Dropping it kills its process group and waits for it.
pub struct Server {
    child: Child,
    addr: String,
    out: Lines,
    err: Lines,
    /// From the start of the process to the line that says where it listens.
    pub listened_after: Duration,
}

impl Server {
    /// Starts an example on a free port and waits until it says that it listens.
    pub fn start(name: &str, args: &[&str]) -> Self {
        Self::start_at("127.0.0.1:0", name, args)
    }

    /// As [`start`](Self::start), at this address.
    pub fn start_at(addr: &str, name: &str, args: &[&str]) -> Self {
        Self::start_command(Command::new(example(name)), addr, args)
    }

    /// As [`start_at`](Self::start_at), by a command that becomes the example in the end. It logs as it is set to, or
    /// from `info` on.
    pub fn start_command(command: Command, addr: &str, args: &[&str]) -> Self {
        Self::start_with(Stdio::null(), command, addr, args)
    }

    /// As [`start_command`](Self::start_command), with this as its standard input.
    pub fn start_with(stdin: impl Into<Stdio>, mut command: Command, addr: &str, args: &[&str]) -> Self {
        if command.get_envs().all(|(name, _)| name != "RUST_LOG") {
            command.env("RUST_LOG", "info");
        }
        command.env("RUST_BACKTRACE", "0"); // a panic's backtrace takes most of a second in a debug build
        command.arg(addr).args(args).process_group(0);
        command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
        let started = Instant::now();
        let mut child = command.spawn().unwrap();
        let (out, err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let (out, err) = (Lines::collect(out), Lines::collect(err));
        let mut server = Self { child, addr: String::new(), out, err, listened_after: Duration::ZERO };
        until("the first line on stdout", || !server.out.get().is_empty() || !server.is_running());
        server.listened_after = started.elapsed();
        let first = server.out.get().into_iter().next().unwrap_or_default();
        let at = first.strip_prefix("listening on ").unwrap_or_else(|| panic!("it began with {first:?}"));
        server.addr = at.to_owned();
        server
    }

    /// Where it listens, as it has said itself.
    pub fn addr(&self) -> &str {
        &self.addr
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// What it has printed so far.
    pub fn stdout(&self) -> Vec<String> {
        self.out.get()
    }

    /// What it has logged so far.
    pub fn stderr(&self) -> Vec<String> {
        self.err.get()
    }

    /// Waits until all that it and its processes have printed and logged has been read; they have ended by then.
    #[track_caller]
    pub fn until_all_is_read(&self) {
        until("the ends of its output", || self.out.1.load(SeqCst) && self.err.1.load(SeqCst));
    }

    /// Waits for a line in the log that contains the text.
    #[track_caller]
    pub fn until_logged(&self, text: &str) {
        until(&format!("{text:?} in the log"), || self.stderr().iter().any(|line| line.contains(text)));
    }

    /// Waits for the report, which is the last line of a server, to end so. A count of drained connections may
    /// follow. A client sees the end of its connection before the server has counted it, and a stop may come in
    /// between.
    #[track_caller]
    pub fn until_reported(&self, end: &str) {
        let ends = |line: &String| line.ends_with(end) || line.contains(&format!("{end}, drained "));
        until(&format!("a report that ends with {end:?}"), || self.stderr().iter().any(ends));
    }

    /// Waits for a report that begins so, and names none of these counts.
    #[track_caller]
    pub fn until_reported_without(&self, begin: &str, counts: &[&str]) {
        let is_it = |line: &String| line.starts_with(begin) && !counts.iter().any(|count| line.contains(count));
        until(&format!("a report {begin:?} without {counts:?}"), || self.stderr().iter().any(is_it));
    }

    pub fn connect(&self) -> Client {
        Client::connect(&self.addr)
    }

    /// One connection, one line, one line back.
    pub fn ask(&self, line: &str) -> String {
        self.connect().ask(line)
    }

    /// The counters, the connection that asks for them included.
    pub fn stats(&self) -> Stats {
        Stats::parse(&self.ask("STATS"))
    }

    /// Waits until the counters have these values. A connection is counted when it is closed, a little after its
    /// client has seen the end.
    #[track_caller]
    pub fn until_stats(&self, what: &str, mut hold: impl FnMut(&Stats) -> bool) {
        let mut last = None;
        let came = comes_true(LIMIT, || hold(last.insert(self.stats())));
        assert!(came, "{what}: {last:?}");
    }

    /// How many clients wait in the kernel's queue.
    pub fn queued(&self) -> usize {
        queues::accept_queue(self.port())
    }

    pub fn port(&self) -> u16 {
        self.addr.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a TCP address")
    }

    /// Sends a signal (`TERM`, `INT`, ...) to the process that was started.
    pub fn signal(&self, name: &str) {
        assert!(kill(name, &self.pid().to_string()), "no signal {name} to {}", self.pid());
    }

    /// Sends a signal and waits until it has been delivered.
    pub fn signal_and_see_it_taken(&mut self, name: &str) {
        self.signal(name);
        until("the signal's delivery", || !self.is_running() || !procfs::signals_pending(self.pid()));
    }

    /// Sends a signal to a server that has had one, until it ends. At once, the same one is taken for an echo of the first.
    #[track_caller]
    pub fn end_by_another(&mut self, name: &str) -> Ended {
        let started = Instant::now();
        until("the server's end", || {
            let ends = comes_true(Duration::from_millis(100), || !self.is_running());
            if !ends {
                self.signal(name);
            }
            ends
        });
        Ended { status: self.child.wait().unwrap(), after: started.elapsed() }
    }

    /// Waits for its end.
    #[track_caller]
    pub fn ended(&mut self) -> Ended {
        let started = Instant::now();
        until("the server's end", || !self.is_running());
        Ended { status: self.child.wait().unwrap(), after: started.elapsed() }
    }

    /// SIGTERM, and its end.
    #[track_caller]
    pub fn term(&mut self) -> Ended {
        self.signal("TERM");
        self.ended()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if thread::panicking() {
            let log = self.stderr();
            eprintln!("the server's last lines:\n{}", log[log.len().saturating_sub(20)..].join("\n"));
        }
        kill("KILL", &format!("-{}", self.pid())); // its children too, whether it still lives or not
        let _ = self.child.wait();
    }
}

/// Stops servers and all of their processes (SIGSTOP), as frozen containers are stopped.
pub fn freeze<'a>(servers: impl Iterator<Item = &'a Server> + Clone) {
    signal_groups("STOP", servers.clone());
    for server in servers {
        until("it has stopped", || procfs::state(server.pid()) == Some('T'));
    }
}

/// Lets them go on.
pub fn thaw<'a>(servers: impl Iterator<Item = &'a Server>) {
    signal_groups("CONT", servers);
}

fn signal_groups<'a>(signal: &str, servers: impl Iterator<Item = &'a Server>) {
    let mut command = Command::new("sh");
    command.args(["-c", "kill -s \"$0\" -- \"$@\"", signal]).args(servers.map(|server| format!("-{}", server.pid())));
    assert!(command.status().unwrap().success(), "no {signal} to all servers");
}

/// The standard library sends SIGKILL only; the shell sends them all.
pub fn kill(signal: &str, to: &str) -> bool {
    let mut command = Command::new("sh");
    command.args(["-c", "kill -s \"$0\" -- \"$1\"", signal, to]).stderr(Stdio::null());
    command.status().unwrap().success()
}
