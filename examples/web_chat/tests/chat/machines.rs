//! Many servers that share a room, with a real Redis between them.

use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use super::guests::{Chat, Guest};
use super::support::{tool, until, Client};

/// An address of this program's own: no other binds its ports, also while nobody listens there.
fn own() -> Ipv4Addr {
    let [_, a, b, c] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, a | 64, b, c)
}

fn free_port() -> u16 {
    TcpListener::bind((own(), 0)).unwrap().local_addr().unwrap().port()
}

/// A Redis of our own, which keeps nothing.
struct Redis {
    port: u16,
    folder: PathBuf,
    child: Option<Child>,
}

impl Redis {
    /// `None`, with a line that says so, on a system without Redis.
    fn start() -> Option<Self> {
        tool("redis-server")?;
        let port = free_port();
        let folder = std::env::temp_dir().join(format!("web-chat-redis-{}-{port}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        let mut redis = Self { port, folder, child: None };
        redis.restart();
        Some(redis)
    }

    fn restart(&mut self) {
        let mut command = Command::new("redis-server");
        command.args(["--port", &self.port.to_string(), "--bind", &own().to_string(), "--save", "", "--dir"]);
        self.child = Some(command.arg(&self.folder).stdout(Stdio::null()).spawn().unwrap());
        until("Redis listens", || std::net::TcpStream::connect((own(), self.port)).is_ok());
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    fn url(&self) -> String {
        format!("redis://{}:{}", own(), self.port)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Waits for these lines, in any order and past any others.
#[track_caller]
fn until_lines(client: &mut Client, wanted: &[&str]) {
    let mut wanted = wanted.to_vec();
    while !wanted.is_empty() {
        let line = client.line();
        assert!(!line.is_empty(), "the end, before {wanted:?}");
        wanted.retain(|one| *one != line);
    }
}

const AWAY: &str = "* the other servers are out of reach: what you say is heard on this one only";
const BACK: &str = "* the other servers are in reach again";

#[test]
fn three_servers_share_a_room_and_members_outlive_a_server_and_redis() {
    let Some(mut redis) = Redis::start() else { return };
    let url = redis.url();
    let start = |strategy| Chat::start(&["--strategy", strategy, "--broker", &url, "--most-said", "1000000"]);
    let (one, two, three) = (start("event-loop"), start("threading"), start("event-loop"));
    let mut anna: Guest = one.member("anna");
    let mut ben: Client = two.liner("ben");
    anna.until_text("* ben has joined");
    // Its subscription may have begun after anna came: then it learns her name by a list, within a second.
    until("the second server knows anna", || {
        ben.send("/who\n");
        std::iter::repeat_with(|| ben.line()).find(|line| line.starts_with("* here: ")).unwrap().contains("anna")
    });
    let mut carl = three.member("carl");
    anna.until_text("* carl has joined");
    until_lines(&mut ben, &["* carl has joined"]);
    ben.send("hello from two\n");
    anna.until_text("ben: hello from two");
    carl.until_text("ben: hello from two");
    anna.say("/who");
    assert_eq!(anna.text(), "* here: anna, ben, carl");
    let mut other = two.guest();
    other.say("anna");
    assert_eq!(other.text(), "* anna is taken");

    drop(three); // killed
    anna.until_text("* carl has left");
    until_lines(&mut ben, &["* carl has left"]);

    redis.kill();
    anna.until_text(AWAY);
    until_lines(&mut ben, &[AWAY]);
    for text in ["nobody", "hears", "this"] {
        anna.say(text);
    }
    anna.say("/who");
    assert_eq!(anna.text(), "* here: anna, ben");

    redis.restart();
    until_lines(&mut ben, &[BACK, "* 3 messages from another server were lost"]);
    anna.until_text(BACK);
    anna.say("and now?");
    until_lines(&mut ben, &["anna: and now?"]);
    ben.send("yes\n");
    anna.until_text("ben: yes");
}

#[test]
fn rooms_of_one_redis_do_not_hear_each_other() {
    let Some(redis) = Redis::start() else { return };
    let start = |room| Chat::start(&["--broker", &redis.url(), "--room", room, "--most-said", "1000000"]);
    let (rust, chess, rust_too) = (start("rust"), start("chess"), start("rust"));
    let (mut anna, mut ben, mut carl) = (rust.member("anna"), chess.member("anna"), rust_too.member("carl"));
    // The servers have met once each has the other's names, whether by news or by its list.
    for guest in [&mut anna, &mut carl] {
        until("the servers have met", || {
            guest.say("/who");
            guest.until_who() == "* here: anna, carl"
        });
    }
    anna.say("about rust");
    carl.until_text("anna: about rust");
    ben.say("/who");
    assert_eq!(ben.text(), "* here: anna");
}

#[test]
fn a_server_without_its_redis_is_a_room_of_its_own_and_stops_at_once() {
    let mut chat = Chat::start(&["--broker", &format!("redis://{}:{}", own(), free_port())]);
    let (mut anna, mut ben) = (chat.member("anna"), chat.member("ben"));
    anna.say("still here");
    ben.until_text("anna: still here");
    chat.server.term().well_within(super::support::AT_ONCE);
}
