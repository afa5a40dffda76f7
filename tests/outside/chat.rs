//! The event-driven examples: the loggers, and the chat room in one thread and in many.

use crate::support;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Stdio};

use crate::support::{procfs, tool, until, Client, Server, AT_ONCE};

/// One room, written twice: each case is run on both.
const ROOMS: [&str; 2] = ["chat_room", "threaded_chat"];

fn join(server: &Server, name: &str) -> Client {
    let mut client = server.connect();
    assert_eq!(client.line(), "What is your name?");
    client.send(format!("{name}\r\n"));
    client
}

/// Members that have all heard the others join.
fn members(server: &Server, names: &[&str]) -> Vec<Client> {
    let mut all: Vec<Client> = Vec::new();
    for name in names {
        let mut new = join(server, name);
        assert!(new.ask("/who").contains(name));
        for client in &mut all {
            assert_eq!(client.line(), format!("* {name} has joined"));
        }
        all.push(new);
    }
    all
}

#[test]
fn a_line_goes_to_all_others_and_joins_and_leaves_are_told() {
    for room in ROOMS {
        let server = Server::start(room, &[]);
        let mut all = members(&server, &["ada", "bob", "eve"]);
        all[0].send("good morning\r\n");
        for client in &mut all[1..] {
            assert_eq!(client.line(), "ada: good morning", "{room}");
        }
        all[1].send("to you, too\n");
        assert_eq!(all[0].line(), "bob: to you, too", "{room}: the first after joining, so nobody hears himself");
        assert_eq!(all[2].line(), "bob: to you, too");
        drop(all.remove(1));
        for client in &mut all {
            assert_eq!(client.line(), "* bob has left", "{room}");
        }
    }
}

#[test]
fn the_commands_do_what_the_help_says() {
    for room in ROOMS {
        let server = Server::start(room, &[]);
        let mut all = members(&server, &["ada", "bob"]);
        assert_eq!(all[0].ask("/who"), "ada, bob", "{room}");
        all[0].send("/nick countess\n");
        assert_eq!(all[1].line(), "* ada is now countess", "{room}");
        assert_eq!(all[1].ask("/who"), "countess, bob");
        for (line, answer) in [
            ("/nick bob", "Somebody has that name. Another one?"),
            ("/nick", "A name has up to 32 characters and no / in front. Yours?"),
            ("/dance", "The first line is your name; each later one goes to all others. /who, /nick NAME, /quit"),
        ] {
            assert_eq!(all[0].ask(line), answer, "{room}: {line}");
        }
        all[0].send("/quit\nnobody hears this\n");
        assert_eq!(all[0].rest(), "", "{room}");
        assert_eq!(all[1].line(), "* countess has left", "{room}");
    }
}

#[test]
fn a_client_without_a_name_is_no_member() {
    for room in ROOMS {
        let server = Server::start(room, &[]);
        let mut all = members(&server, &["ada"]);
        let mut second = join(&server, "ada");
        assert_eq!(second.line(), "Somebody has that name. Another one?", "{room}");
        drop(second);
        assert_eq!(all[0].ask("/who"), "ada", "{room}: and nobody was told");
    }
}

/// Escape sequences would play tricks on the others' terminals.
#[test]
fn control_characters_are_left_out() {
    for room in ROOMS {
        let server = Server::start(room, &[]);
        let mut all = members(&server, &["ada", "bob"]);
        all[0].send("a\u{1b}[2J\u{7}bell\r\n");
        assert_eq!(all[1].line(), "ada: a[2Jbell", "{room}");
    }
}

/// More than the kernel's buffers take, and than one member may have queued.
#[test]
fn a_member_that_never_reads_costs_the_room_nothing() {
    let server = Server::start("chat_room", &[]);
    let mut all = members(&server, &["ada", "bob", "lazy"]);
    let (line, mut cut) = ("m".repeat(900), None);
    for burst in 0..32 {
        let lines: String = (0..500).map(|n| format!("{burst}.{n} {line}\n")).collect();
        all[0].send(lines);
        for n in 0..500 {
            let mut heard = all[1].line();
            if heard == "* lazy has left" {
                cut = Some(burst);
                heard = all[1].line();
            }
            assert!(heard == format!("ada: {burst}.{n} {line}"), "{burst}.{n}: {heard:.30}");
        }
    }
    // 14 MB went to a member that has neither read nor left: it was cut when 8 MiB waited.
    assert!(cut > Some(17), "{cut:?}");
    assert!(procfs::rss_kib(server.pid()) < 64_000);
    assert_eq!(procfs::threads(server.pid()), 1);
}

#[test]
fn a_stop_ends_the_room_at_once() {
    for room in ROOMS {
        let mut server = Server::start(room, &[]);
        let mut all = members(&server, &["ada", "bob"]);
        all[0].send("good bye\n");
        assert_eq!(all[1].line(), "ada: good bye");
        server.term().well_within(AT_ONCE);
        drop(all);
    }
}

#[test]
fn nc_is_a_client_of_the_room() {
    for room in ROOMS {
        let Some(mut nc) = tool("nc") else { return };
        let server = Server::start(room, &[]);
        let mut all = members(&server, &["ada"]);
        let mut nc: Child = nc
            .args(["127.0.0.1", &server.port().to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        nc.stdin.as_mut().unwrap().write_all(b"netcat\nhello\n/who\n/quit\n").unwrap();
        assert_eq!(all[0].line(), "* netcat has joined", "{room}");
        assert_eq!(all[0].line(), "netcat: hello");
        assert_eq!(all[0].line(), "* netcat has left");
        drop(nc.stdin.take()); // nc waits for both ends
        let mut said = String::new();
        nc.stdout.take().unwrap().read_to_string(&mut said).unwrap();
        nc.wait().unwrap();
        assert_eq!(said, "What is your name?\nada, netcat\n");
    }
}

#[test]
fn the_simple_logger_prints_clients_as_they_come_send_and_go() {
    let mut server = Server::start("simple_logger", &[]);
    let mut clients: Vec<Client> = (0..20).map(|_| server.connect()).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        client.send(format!("data of {n}"));
    }
    until("all is printed", || (0..20).all(|n| server.stdout().contains(&format!("data of {n}"))));
    let gone = clients.pop().unwrap();
    let name = gone.local_addr();
    drop(gone);
    until("it says which member went", || server.stdout().contains(&format!("{name} disconnected")));
    assert!(server.stdout().contains(&format!("Got connection from {name}")));
    assert_eq!(procfs::threads(server.pid()), 1);
    server.term().well_within(AT_ONCE);
    until("it says so of all at the stop", || {
        server.stdout().iter().filter(|line| line.ends_with("disconnected")).count() == 20
    });
}

#[test]
fn the_line_logger_prints_whole_lines_only() {
    let server = Server::start("line_logger", &[]);
    let mut client = server.connect();
    for byte in b"first line\r\nsec" {
        client.send([*byte]);
    }
    until("the first line is printed", || server.stdout().contains(&"first line".to_owned()));
    client.send_and_see_it_taken("ond"); // the rest, and a line end
    until("the second is whole", || server.stdout().contains(&"second".to_owned()));
    client.send("cut off");
    client.half_close();
    assert_eq!(client.rest(), "");
    assert!(!server.stdout().iter().any(|line| line.contains("cut") || *line == "sec" || *line == "ond"));
}

// The client of the room.

/// A client with this input, and its process.
fn chat_client(addr: &str, input: Stdio) -> Child {
    let mut command = std::process::Command::new(support::example("chat_client"));
    command.arg(addr).stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// How it has ended: its status, what it has printed, and what it complained of.
fn outcome(client: Child) -> (Option<i32>, String, String) {
    let output = support::output(client, "chat_client");
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn a_chat_client_sends_what_is_typed_and_prints_what_is_said_in_one_thread() {
    let server = Server::start("chat_room", &[]);
    let mut all = members(&server, &["ada"]);
    let mut client = chat_client(server.addr(), Stdio::piped());
    let mut typing = client.stdin.take().unwrap();
    typing.write_all(b"bob\n").unwrap();
    assert_eq!(all[0].line(), "* bob has joined");
    assert_eq!(procfs::threads(client.id()), 1);
    let flags = procfs::open_flags(client.id(), 0);
    assert_eq!(flags & 0o4000, 0, "O_NONBLOCK on what others may share: {flags:o}");
    all[0].send("good morning\n");
    let (mut said, mut line) = (BufReader::new(client.stdout.take().unwrap()), String::new());
    for expected in ["What is your name?\n", "ada: good morning\n"] {
        line.clear();
        said.read_line(&mut line).unwrap();
        assert_eq!(line, expected);
    }
    typing.write_all(b"good ").unwrap();
    typing.write_all(b"evening\n/who\n").unwrap();
    assert_eq!(all[0].line(), "bob: good evening");
    drop(typing);
    assert_eq!(all[0].line(), "* bob has left");
    line.clear();
    said.read_to_string(&mut line).unwrap();
    assert_eq!(line, "ada, bob\n", "answers to the last line are awaited");
    assert_eq!(outcome(client), (Some(0), String::new(), String::new()));
}

#[test]
fn the_end_of_the_room_ends_its_client() {
    let mut server = Server::start("chat_room", &[]);
    let mut client = chat_client(server.addr(), Stdio::piped());
    let typing = client.stdin.take().unwrap(); // nobody types
    let mut asked = vec![0; "What is your name?\n".len()];
    client.stdout.as_mut().unwrap().read_exact(&mut asked).unwrap();
    server.term().well_within(AT_ONCE);
    assert_eq!(outcome(client), (Some(0), String::new(), String::new()));
    drop(typing);
}

/// Files and `/dev/null` are no descriptors that epoll takes.
#[test]
fn any_kind_of_input_will_do() {
    let server = Server::start("chat_room", &[]);
    let file = std::env::temp_dir().join(format!("socketserver-chat-{}", std::process::id()));
    std::fs::write(&file, "eve\n/who\n").unwrap();
    let inputs: [(Stdio, &str); 2] = [(std::fs::File::open(&file).unwrap().into(), "eve\n"), (Stdio::null(), "")];
    std::fs::remove_file(&file).unwrap();
    for (input, answer) in inputs {
        let client = chat_client(server.addr(), input);
        assert_eq!(outcome(client), (Some(0), format!("What is your name?\n{answer}"), String::new()));
    }
    let Some(mut script) = tool("script") else { return };
    let command = format!("{} {}", support::example("chat_client").display(), server.addr());
    let mut terminal = script
        .args(["-qec", &command, "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    terminal.stdin.as_mut().unwrap().write_all(b"tom\n/who\n/quit\n").unwrap();
    let (status, said, _) = outcome(terminal);
    assert_eq!(status, Some(0), "{said:?}");
    assert!(said.contains("What is your name?") && said.trim_end().ends_with("tom"), "{said:?}");
}

/// More than fits into all buffers on the way.
#[test]
fn a_chat_client_reads_no_faster_than_the_room() {
    let slow = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let file = std::env::temp_dir().join(format!("socketserver-chat-big-{}", std::process::id()));
    let text: Vec<u8> = (0..8_000_000u32).flat_map(u32::to_be_bytes).collect();
    std::fs::write(&file, &text).unwrap();
    let input = std::fs::File::open(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    let client = chat_client(&slow.local_addr().unwrap().to_string(), input.into());
    let (mut room, _) = slow.accept().unwrap();
    room.set_read_timeout(Some(support::LIMIT)).unwrap();
    let (mut last, mut still) = (0, 0);
    until("nothing moves any more", || {
        let at = procfs::position(client.id(), 0);
        still = if at > 0 && at == last && procfs::state(client.id()) == Some('S') { still + 1 } else { 0 };
        last = at;
        still > 50
    });
    let rss = procfs::rss_kib(client.id());
    assert!(rss < 20_000, "{rss} KiB, of a file of 32 MB");
    let mut got = Vec::new();
    room.read_to_end(&mut got).unwrap();
    assert!(got == text, "{} bytes of {}", got.len(), text.len());
    drop(room);
    assert_eq!(outcome(client), (Some(0), String::new(), String::new()));
}

#[test]
fn a_client_without_a_room_says_so_in_one_line() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (status, said, complaint) = outcome(chat_client(&free.to_string(), Stdio::null()));
    assert_eq!((status, said.as_str(), complaint.lines().count()), (Some(1), "", 1), "{complaint}");
    assert!(complaint.starts_with(&format!("Error: cannot connect to {free}: ")), "{complaint}");
    assert!(complaint.contains("start it"), "{complaint}");
}
