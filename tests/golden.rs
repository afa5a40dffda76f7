//! What the examples answer, log and report in the same small conversations, as texts in `tests/golden`: no line of
//! them changes unseen. `BLESS=1 cargo test --test golden` writes them anew. Ports and processes are made alike, and
//! the log is sorted, since no order of several threads is promised.

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;

use support::{example, until, Client, Server};

/// The text of one strategy: several conversations, one after the other.
#[derive(Default)]
struct Golden(String);

/// One conversation: a server, and what its clients have heard.
struct Talk<'a> {
    golden: &'a mut Golden,
    server: Server,
    title: String,
    heard: Vec<String>,
}

impl Golden {
    fn talk(&mut self, name: &str, args: &str) -> Talk<'_> {
        let mut command = Command::new(example(name));
        command.env("RUST_LOG", "socketserver=debug").env("RUST_BACKTRACE", "0");
        let args: Vec<&str> = args.split_whitespace().collect();
        let server = Server::start_command(command, "127.0.0.1:0", &args);
        Talk { golden: self, server, title: format!("{name} {}", args.join(" ")), heard: Vec::new() }
    }

    /// Compares with the file, or writes it.
    #[track_caller]
    fn check(self, name: &str) {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name).with_extension("txt");
        if std::env::var_os("BLESS").is_some() {
            return fs::write(file, self.0).unwrap();
        }
        let expected = fs::read_to_string(&file).unwrap_or_default();
        let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
        let (expected, found) = (lines(&expected), lines(&self.0));
        let same = expected.iter().zip(&found).take_while(|(a, b)| a == b).count();
        let place = file.display();
        assert!(expected == found, "{place}, line {}: {:#?}\nnow: {:#?}", same + 1, &expected[same..], &found[same..]);
    }
}

impl Talk<'_> {
    fn says(&mut self, what: &str, text: impl AsRef<str>) {
        self.heard.push(alike(&format!("{what}: {:?}", text.as_ref())));
    }

    /// A line there, and all that comes until the end.
    fn last(&mut self, line: &str) {
        let mut client = self.server.connect();
        client.send(line);
        let heard = client.rest();
        self.says(line.trim_end(), heard);
    }

    /// A line there, one back.
    fn ask(&mut self, line: &str) {
        let answer = self.server.ask(line);
        self.says(line, answer);
    }

    /// As [`last`](Self::last), of what is told in the log.
    fn trouble(&mut self, line: &str, logged: &str) {
        self.last(line);
        self.server.until_logged(logged);
    }

    /// A client whose request is under way: more is to be sent than the kernel takes. All others have been counted, so
    /// that they do not count as drained.
    fn stuck(&mut self) -> Client {
        let mut client = self.server.connect();
        until("the end of all others", || client.ask("STATS").contains("\"active\": 1,"));
        client.send_and_see_it_taken(&format!("BIG {BIG}"));
        client
    }

    /// SIGTERM while that client waits for its answer.
    fn stop_over(&mut self, mut client: Client) {
        self.server.signal_and_see_it_taken("TERM");
        let answer = client.rest();
        self.says("BIG", format!("{} bytes", answer.len()));
    }

    /// Its end: what it has printed and logged becomes part of the text.
    fn end(mut self) {
        assert_eq!(self.server.ended().code(), Some(0));
        self.server.until_all_is_read();
        let is_report = |line: &&String| line.starts_with("accepted ");
        let mut log: Vec<String> = self.server.stderr().iter().filter(|line| is_told(line)).map(|l| alike(l)).collect();
        log.sort();
        let mut out: Vec<String> = self.server.stdout().iter().map(|line| alike(line)).collect();
        out.sort();
        let (report, log): (Vec<_>, Vec<_>) = log.iter().partition(is_report);
        let parts = [("heard", self.heard.iter().collect()), ("printed", out.iter().collect()), ("logged", log)];
        let mut text = format!("=== {}\n", self.title.trim_end());
        for (what, lines) in parts.into_iter().chain([("reported", report)]) {
            lines.iter().for_each(|line| text += &format!("{what:<9} {line}\n"));
        }
        self.golden.0 += &(text + "\n");
    }
}

/// What a buffer of a kernel does not hold.
const BIG: usize = 50_000_000;

/// All but what the standard library says of a panic, and what only a loaded machine brings about.
fn is_told(line: &str) -> bool {
    let is_panic = line.starts_with("thread '") || line.starts_with("note: ") || line == "a client asked for it";
    !line.is_empty() && !is_panic && !line.contains("the loop stood still") && !line.contains("slow callbacks")
}

/// The same for each run: numbers that the system gives become names.
fn alike(line: &str) -> String {
    let mut text = line.to_owned();
    for (before, name) in [("127.0.0.1:", "PORT"), ("process ", "PID")] {
        let mut parts = text.split(before);
        let first = parts.next().unwrap_or("").to_owned();
        text = parts.fold(first, |text, part| {
            let rest = part.trim_start_matches(|c: char| c.is_ascii_digit());
            text + before + if rest.len() < part.len() { name } else { "" } + rest
        });
    }
    text
}

/// The conversations of one strategy.
fn converse(strategy: &str, has_processes: bool) {
    let mut golden = Golden::default();
    let with = |more: &str| format!("--strategy {strategy} {more}");

    let mut talk = golden.talk("torture_server", &with(""));
    talk.ask("ECHO hello");
    talk.trouble("ERROR\n", "failed: a client asked for it");
    talk.trouble("PANIC\n", "panicked: a client asked for it");
    let mut half = talk.server.connect();
    half.send("ECHO hal");
    half.half_close();
    talk.says("ECHO hal", String::from_utf8_lossy(&half.until_closed()));
    talk.server.until_logged("went away");
    if has_processes {
        talk.trouble("ABORT\n", "SIGABRT");
    }
    talk.ask("ECHO still there");
    let stuck = talk.stuck();
    talk.stop_over(stuck);
    talk.end();

    let mut talk = golden.talk("torture_server", &with("--idle-timeout 200"));
    talk.trouble("", "idle limit");
    talk.server.signal("TERM");
    talk.end();

    let mut talk = golden.talk("torture_server", &with("--verify-delay 5000 --verify-timeout 200"));
    talk.trouble("", "refused");
    talk.server.signal("TERM");
    talk.end();

    let mut talk = golden.talk("torture_server", &with("--drain 200"));
    let client = match strategy {
        "sequential" => talk.stuck(), // a sleep would hold up the stop itself
        _ => {
            let mut client = talk.server.connect();
            client.send_and_see_it_taken("SLEEP 60000");
            client
        }
    };
    talk.server.signal("TERM");
    talk.end();
    drop(client);
    golden.check(strategy.split(' ').next().unwrap_or(strategy));
}

#[test]
fn sequential() {
    converse("sequential", false);
}

#[test]
fn threading() {
    converse("threading", false);
}

#[test]
fn thread_pool() {
    converse("thread-pool --workers 2", false);
}

#[test]
fn forking() {
    converse("forking", true);
}

#[test]
fn preforking() {
    converse("preforking --workers 1", true);
}

#[test]
fn event_loop() {
    converse("event-loop", false);
}

#[test]
fn event_loops() {
    converse("event-loops --workers 2", false);
}

#[test]
fn greetings() {
    let mut golden = Golden::default();
    for name in ["threading_server", "forking_server", "thread_pool_server", "preforking_server --workers 1"] {
        let (name, args) = name.split_once(' ').unwrap_or((name, ""));
        let mut talk = golden.talk(name, args);
        (0..3).for_each(|_| talk.last(""));
        talk.server.signal("TERM"); // the last clients may have been counted by now, or not
        talk.end();
    }
    golden.0 = (1..4).fold(golden.0, |text, n| text.replace(&format!(", drained {n}"), ""));
    golden.check("greetings");
}

#[test]
fn a_full_server_refuses() {
    let mut golden = Golden::default();
    let mut talk = golden.talk("limits", "");
    let mut served: Vec<Client> = (0..100).map(|_| talk.server.connect()).collect();
    let answered = served.iter_mut().filter_map(|client| client.try_ask("hello").ok()).filter(|text| text == "HELLO");
    let answered = answered.count();
    talk.says("100 times hello", format!("{answered} times HELLO"));
    talk.trouble("", "refused");
    talk.server.signal("TERM");
    for client in &mut served {
        assert_eq!(client.rest(), "");
    }
    talk.end();
    golden.check("refusals");
}
