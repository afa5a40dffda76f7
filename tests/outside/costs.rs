//! What a connection costs, in numbers that no clock and no other job changes: system calls and page faults.
//!
//! Each number is the difference between a long run and a short one, for each further connection.

use std::cell::RefCell;
use std::collections::HashMap;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::support::{example, kill, procfs, tool, until, Client, Server};

const FEW: usize = 10;
const MANY: usize = 60;

/// The calls of one connection, by name, of all processes of the server together.
struct Calls(HashMap<String, f64>);

impl Calls {
    fn of<C>(strategy: &str, serve: impl Fn(&str) -> C) -> Self {
        Self::with(&["--strategy", strategy, "--mode", "greet", "--workers", "1"], serve)
    }

    /// Of a run with these options. What `serve` returns stays until the server has ended.
    fn with<C>(options: &[&str], serve: impl Fn(&str) -> C) -> Self {
        let [few, many] = [FEW, MANY].map(|count| count_calls(options, count, &serve));
        let each = |(name, calls): (String, usize)| {
            let more = calls as f64 - few.get(&name).copied().unwrap_or_default() as f64;
            (name, more / (MANY - FEW) as f64)
        };
        Self(many.into_iter().map(each).collect())
    }

    fn count(&self, name: &str) -> f64 {
        self.0.get(name).copied().unwrap_or_default()
    }

    fn sum(&self) -> f64 {
        self.0.values().sum()
    }
}

/// What strace counts in a whole run with this number of connections, one after the other.
fn count_calls<C>(options: &[&str], connections: usize, serve: impl Fn(&str) -> C) -> HashMap<String, usize> {
    static RUNS: AtomicUsize = AtomicUsize::new(0);
    let name = format!("socketserver-costs-{}-{}", std::process::id(), RUNS.fetch_add(1, Relaxed));
    let log = std::env::temp_dir().join(name);
    let mut strace = Command::new("strace");
    strace.args(["-qq", "-f", "-c", "-o"]).arg(&log).arg(example("echo_server"));
    let mut server = Server::start_command(strace, "127.0.0.1:0", options);
    let kept: Vec<C> = (0..connections).map(|_| serve(server.addr())).collect();
    let pid = procfs::descendants(server.pid())[0];
    kill("TERM", &pid.to_string());
    server.ended();
    drop(kept);
    let text = std::fs::read_to_string(&log).unwrap();
    std::fs::remove_file(&log).unwrap();
    let calls = text.lines().filter_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        Some(((*fields.last()?).to_owned(), fields.get(3)?.parse().ok()?))
    });
    // `fcntl`: in a debug build, the standard library looks at each descriptor that it closes.
    calls.filter(|(name, _): &(String, usize)| !["total", "fcntl"].contains(&&**name)).collect()
}

fn greet(addr: &str) {
    assert!(!Client::connect(addr).until_closed().is_empty());
}

#[test]
fn a_greeting_takes_five_calls_on_one_thread() {
    if tool("strace").is_none() {
        return;
    }
    for strategy in ["sequential", "event-loop"] {
        let calls = Calls::of(strategy, greet);
        for name in ["epoll_wait", "accept4", "sendto", "ioctl", "close"] {
            assert!((0.9..1.3).contains(&calls.count(name)), "{strategy}: {name} in {:?}", calls.0);
        }
        assert!(calls.sum() < 5.6, "{strategy}: {:?}", calls.0);
    }
}

/// Other threads may be woken for nothing now and then. But none of them does more than look. The long run may start more
/// threads than the short one: a thread makes each call at most five times for itself.
#[test]
fn a_greeting_takes_no_other_calls_on_threads() {
    if tool("strace").is_none() {
        return;
    }
    for strategy in ["threading", "thread-pool", "preforking"] {
        let calls = Calls::of(strategy, greet);
        let of_threads = 5.0 * (calls.count("clone3") + calls.count("clone"));
        for name in ["sendto", "ioctl", "close"] {
            assert!((0.9..1.3 + of_threads).contains(&calls.count(name)), "{strategy}: {name} in {:?}", calls.0);
        }
        for name in calls.0.keys() {
            let is_its_own = ["sendto", "ioctl", "close", "epoll_wait", "accept4"].contains(&&**name);
            assert!(is_its_own || calls.count(name) < 0.5 + of_threads, "{strategy}: {name} in {:?}", calls.0);
        }
    }
}

/// No thread is woken for a single one of them: that would be a `write`, and more.
#[test]
fn a_stop_takes_few_calls_for_each_parked_connection() {
    if tool("strace").is_none() {
        return;
    }
    let options = ["--strategy", "thread-pool", "--workers", "2", "--as", "request"];
    let calls = Calls::with(&options, |addr| {
        let mut client = Client::connect(addr);
        assert_eq!(client.ask("parked"), "parked");
        client
    });
    assert!((0.9..1.3).contains(&calls.count("shutdown")), "{:?}", calls.0);
    assert!(calls.count("ioctl") < 4.5, "{:?}", calls.0);
    assert!(calls.count("write") + calls.count("ppoll") < 0.3, "{:?}", calls.0);
}

/// Of messages on one connection of each run, each of which waits for the answer to the one before.
#[test]
fn a_message_takes_a_read_and_a_write() {
    if tool("strace").is_none() {
        return;
    }
    for (options, most) in [
        // A thread or a child that finds no input waits for it, and reads again: four calls.
        (&["--strategy", "threading"][..], 4.7),
        (&["--strategy", "forking"], 4.7),
        (&["--strategy", "preforking", "--workers", "1"], 4.7),
        // A loop waits first.
        (&["--strategy", "event-loop"], 3.7),
        (&["--strategy", "event-loops", "--workers", "2"], 3.7),
    ] {
        let client = RefCell::new(None);
        let calls = Calls::with(options, |addr| {
            let mut kept = client.borrow_mut();
            if kept.as_ref().map(|(to, _): &(String, Client)| &**to) != Some(addr) {
                *kept = Some((addr.to_owned(), Client::connect(addr)));
            }
            assert_eq!(kept.as_mut().unwrap().1.ask("message"), "message");
        });
        assert!(calls.sum() < most, "{options:?}: {:?}", calls.0);
    }
}

/// How many threads wake for each greeting or message, by what `serve` does with a server.
fn wakes(options: &[&str], serve: impl Fn(&Server)) -> f64 {
    let server = Server::start("echo_server", options);
    (0..FEW).for_each(|_| serve(&server)); // threads start
    let before = procfs::waits(server.pid());
    (0..10 * MANY).for_each(|_| serve(&server));
    (procfs::waits(server.pid()) - before) as f64 / (10 * MANY) as f64
}

#[test]
fn a_message_wakes_one_thread() {
    for options in [
        &["--strategy", "threading"][..],
        &["--strategy", "forking"],
        &["--strategy", "thread-pool", "--workers", "4", "--as", "request"],
        &["--strategy", "preforking", "--workers", "2"],
        &["--strategy", "event-loop"],
        &["--strategy", "event-loops", "--workers", "2"],
    ] {
        let client = RefCell::new(None);
        let wakes = wakes(options, |server| {
            let mut client = client.borrow_mut();
            assert_eq!(client.get_or_insert_with(|| Client::connect(server.addr())).ask("message"), "message");
        });
        println!("{options:?}: {wakes}");
        assert!(wakes < 1.2, "{options:?}: {wakes}");
    }
}

#[test]
fn a_greeting_wakes_one_thread() {
    for strategy in ["sequential", "thread-pool", "threading", "preforking", "event-loop", "event-loops"] {
        let wakes =
            wakes(&["--strategy", strategy, "--mode", "greet", "--workers", "2"], |server| greet(server.addr()));
        println!("{strategy}: {wakes}");
        assert!(wakes < 1.2, "{strategy}: {wakes}");
    }
}

#[test]
fn a_forked_greeting_takes_few_calls() {
    if tool("strace").is_none() {
        return;
    }
    let calls = Calls::of("forking", greet);
    for name in ["clone", "sendto", "ioctl"] {
        assert!((0.9..1.3).contains(&calls.count(name)), "{name} in {:?}", calls.0);
    }
    // To change its mappings is the dearest thing that a young process can do.
    assert!(calls.count("mremap") < 2.2, "{:?}", calls.0);
    assert!(calls.count("mmap") + calls.count("munmap") + calls.count("mprotect") < 0.5, "{:?}", calls.0);
    assert_eq!(calls.count("statx"), 0.0, "{:?}", calls.0);
    // SIGCHLD tells of ended children, so none has a descriptor of its own.
    assert!(calls.count("pidfd_open") + calls.count("epoll_ctl") < 0.2, "{:?}", calls.0);
    // How many events come at once is the scheduler's matter.
    assert!(calls.sum() - calls.count("epoll_wait") < 30.0, "{:?}", calls.0);
}

/// The page faults of parent and child for each connection.
fn faults(strategy: &str) -> (f64, f64) {
    let server = Server::start("echo_server", &["--strategy", strategy, "--mode", "greet"]);
    let serve = |connections| {
        (0..connections).for_each(|_| greet(server.addr()));
        until("no child is left", || procfs::descendants(server.pid()).is_empty());
        procfs::faults(server.pid())
    };
    serve(MANY);
    let ((parent, children), (parent_then, children_then)) = (serve(FEW), serve(MANY));
    let each = |then: u64, before: u64| (then - before) as f64 / MANY as f64;
    (each(parent_then, parent), each(children_then, children))
}

/// The text of a program without optimization lies in more places than that of a release, so the child has more.
#[test]
fn a_forked_greeting_takes_few_faults() {
    let (parent, child) = faults("forking");
    assert!(parent < 12.0, "the parent has {parent}");
    let bound = if cfg!(debug_assertions) { 120.0 } else { 40.0 };
    assert!(child < bound, "the child has {child}");
}

#[test]
fn a_greeting_on_threads_takes_no_faults() {
    for strategy in ["sequential", "event-loop", "threading", "thread-pool"] {
        let (parent, _) = faults(strategy);
        assert!(parent < 0.5, "{strategy}: {parent}");
    }
}
