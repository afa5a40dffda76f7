//! The event-driven examples: the loggers, and the chat room in one thread and in many.

mod support;

use std::io::{Read, Write};
use std::process::{Child, Stdio};

use support::{procfs, tool, until, Client, Server, AT_ONCE};

/// One room, written twice: each case is run on both.
const ROOMS: [&str; 2] = ["chat_room", "threaded_chat"];

fn join(server: &Server, name: &str) -> Client {
    let mut client = server.connect();
    assert_eq!(client.line(), "What is your name?");
    client.send(format!("{name}\r\n"));
    client
}

/// Members who have all heard of each other's joining.
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
fn who_gives_no_name_is_no_member() {
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
fn a_member_who_never_reads_costs_the_room_nothing() {
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
    // 14 MB went to him, who has neither read nor left: he was cut when 8 MiB waited for him.
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
fn the_simple_logger_prints_who_comes_what_is_sent_and_who_goes() {
    let mut server = Server::start("simple_logger", &[]);
    let mut clients: Vec<Client> = (0..20).map(|_| server.connect()).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        client.send(format!("data of {n}"));
    }
    until("all is printed", || (0..20).all(|n| server.stdout().contains(&format!("data of {n}"))));
    let gone = clients.pop().unwrap();
    let name = gone.local_addr();
    drop(gone);
    until("it says who went", || server.stdout().contains(&format!("{name} disconnected")));
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
