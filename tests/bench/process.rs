//! A server in a process of its own: its start, its stop, its processor time and its memory.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sched::{sched_getaffinity, sched_setaffinity, CpuSet};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::resource::{getrusage, UsageWho};
use nix::sys::signal::{kill, killpg, Signal};
use nix::sys::time::TimeValLike;
use nix::unistd::Pid;

use crate::load::GREETING;

/// Greets, with the class of Python's `socketserver` that the command line names.
const PYTHON: &str = r#"
import socketserver, sys
class Greet(socketserver.BaseRequestHandler):
    def handle(self): self.request.sendall(sys.argv[2].encode())
class Server(getattr(socketserver, sys.argv[1])): request_queue_size = 4096
server = Server(("127.0.0.1", 0), Greet)
print("%s:%d" % server.server_address, flush=True)
server.serve_forever()
"#;

/// It ends with this process, with all that it has started.
pub struct Server {
    child: Child,
    address: String,
    forks: bool,
}

impl Server {
    pub fn start(name: &str, mode: &str) -> Self {
        let this = std::env::current_exe().unwrap();
        let (program, args) = match name.strip_prefix("Python's ") {
            Some(class) => ("python3".into(), ["-c", PYTHON, class, GREETING].to_vec()),
            None => (this, ["serve", name, mode].to_vec()),
        };
        let mut command = Command::new(program);
        command.args(args);
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped());
        // SAFETY: one system call, and no allocation.
        unsafe { command.pre_exec(|| Ok(set_pdeathsig(Signal::SIGTERM)?)) };
        let mut server = Self { child: command.spawn().unwrap(), address: String::new(), forks: name.contains("ork") };
        let mut stdout = BufReader::new(server.child.stdout.take().unwrap());
        stdout.read_line(&mut server.address).unwrap();
        assert!(!server.address.is_empty(), "{name} does not start; it is served by: serve {name:?} {mode}");
        server
    }

    pub fn address(&self) -> &str {
        self.address.trim()
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    /// The user memory of all its processes (PSS), in bytes.
    pub fn memory(&self) -> u64 {
        let pss = |pid: u32| -> Option<u64> {
            let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
            let line = text.lines().find(|line| line.starts_with("Pss:"))?;
            line.split_whitespace().nth(1)?.parse().ok()
        };
        let of_group = |pid: &u32| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.rsplit(')').next().unwrap().split_whitespace().nth(2) == Some(&self.child.id().to_string())
        };
        let all = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        all.filter(of_group).filter_map(pss).sum::<u64>() * 1024
    }

    /// Ends it, and returns the processor time of its whole life, with that of its children.
    pub fn stop(mut self) -> Duration {
        if self.forks {
            // A plain loop looks after its children when the next client comes. Time counts once a child is waited for.
            sleep(Duration::from_millis(10));
            drop(TcpStream::connect(self.address()).unwrap());
            sleep(Duration::from_millis(10));
        }
        let used = || {
            let usage = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap();
            let time = usage.user_time() + usage.system_time();
            Duration::from_micros(time.num_microseconds() as u64)
        };
        let before = used();
        kill(self.pid(), Signal::SIGTERM).unwrap();
        let end = Instant::now() + Duration::from_secs(20);
        while self.child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < end, "{} does not stop", self.address());
            sleep(Duration::from_millis(1));
        }
        used() - before
    }
}

/// After a stop the group has at most what a plain loop has left; after a panic, all of the server.
impl Drop for Server {
    fn drop(&mut self) {
        let _ = killpg(self.pid(), Signal::SIGKILL);
        let _ = self.child.wait();
    }
}

/// False for Python's servers where there is no Python.
pub fn is_there(name: &str) -> bool {
    !name.starts_with("Python") || Command::new("python3").arg("--version").output().is_ok()
}

/// Keeps this process, and all that it starts, on one processor, where that is allowed.
pub fn pin() {
    let this = Pid::from_raw(0);
    let pinned = sched_getaffinity(this).and_then(|allowed| {
        let last = (0..CpuSet::count()).rev().find(|cpu| allowed.is_set(*cpu).unwrap_or(false)).unwrap_or(0);
        let mut one = CpuSet::new();
        one.set(last)?;
        sched_setaffinity(this, &one)
    });
    if let Err(e) = pinned {
        println!("not on one processor, so the ratios are less steady: sched_setaffinity: {e}");
    }
}

pub fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpus = read("/proc/cpuinfo");
    let models: Vec<_> = cpus.lines().filter_map(|line| line.strip_prefix("model name\t: ")).collect();
    let rustc = Command::new("rustc").arg("--version").output();
    let rustc = rustc.map_or_else(|_| "rustc unknown".into(), |out| String::from_utf8_lossy(&out.stdout).into_owned());
    let load = read("/proc/loadavg");
    format!(
        "{} x {}, Linux {}, {}, load {}",
        models.len(),
        models.first().unwrap_or(&"unknown processor"),
        read("/proc/sys/kernel/osrelease").trim(),
        rustc.split('(').next().unwrap().trim(),
        load.split(' ').next().unwrap()
    )
}
