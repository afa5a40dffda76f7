//! Every example does what it is there to show, and all of them keep the same manners: help, errors, the first line.

use crate::support;
use std::io::{BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use crate::support::{comes_true, procfs, run, tool, until, Client, Server, AT_ONCE};

/// All there are: each file in `examples/` is one.
fn all_examples() -> Vec<String> {
    let files = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/examples")).unwrap();
    let name = |path: std::path::PathBuf| {
        let is_source = path.extension().is_some_and(|e| e == "rs");
        is_source.then(|| path.file_stem().unwrap().to_string_lossy().into_owned())
    };
    let found: Vec<String> = files.filter_map(|file| name(file.unwrap().path())).collect();
    assert!(found.len() >= 7, "{found:?}");
    found
}

/// Those that do not listen.
const CLIENTS: [&str; 1] = ["chat_client"];

fn all_servers() -> Vec<String> {
    all_examples().into_iter().filter(|name| !CLIENTS.contains(&name.as_str())).collect()
}

// Manners.

#[test]
fn every_example_explains_itself() {
    for name in all_examples() {
        for flag in ["--help", "-h"] {
            let told = run(&name, &[flag]);
            let text = String::from_utf8(told.stdout).unwrap();
            assert_eq!(told.status.code(), Some(0), "{name} {flag}");
            for part in ["Usage: ", "ADDR", "--help", "SIGTERM"] {
                assert!(text.contains(part), "{name} {flag} does not speak of {part:?}:\n{text}");
            }
            assert!(told.stderr.is_empty(), "{name} {flag} complains");
        }
    }
}

#[test]
fn every_example_says_first_where_it_listens_and_stops_cleanly() {
    for name in all_servers() {
        if name == "tls_server" && tool("openssl").is_none() {
            continue; // it makes its certificate with that command
        }
        let mut server = Server::start(&name, &[]);
        let port = server.addr().strip_prefix("127.0.0.1:").unwrap_or_else(|| panic!("{name}: {}", server.addr()));
        assert_ne!(port.parse::<u16>(), Ok(0), "{name} names the real port");
        if !name.starts_with("udp_") {
            drop(Client::connect(server.addr())); // it listens when it says so
        }
        server.term().well_within(AT_ONCE);
        let out = server.stdout();
        assert_eq!(out.iter().filter(|line| line.starts_with("listening")).count(), 1, "{name}: {out:?}");
    }
}

/// `println!` would panic there.
#[test]
fn an_example_whose_output_nobody_reads_serves_on() {
    for name in all_servers() {
        if name == "tls_server" && tool("openssl").is_none() {
            continue;
        }
        let (reader, writer) = UnixStream::pair().unwrap();
        drop(reader);
        let mut command = Command::new(support::example(&name));
        command.arg("127.0.0.1:0").stdin(Stdio::null()).stdout(OwnedFd::from(writer)).stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        // It handles signals from the bind on, prints then, and only then does it see the stop.
        until("it is bound", || procfs::catches(child.id(), 15));
        assert!(support::kill("TERM", &child.id().to_string()));
        let output = support::output(child, &name);
        assert_eq!(output.status.code(), Some(0), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn an_example_listens_soon_after_its_start() {
    let fastest = (0..5).map(|_| Server::start("echo_server", &[]).listened_after).min();
    assert!(fastest < Some(Duration::from_secs(1)), "{fastest:?}");
}

#[test]
fn an_unknown_argument_is_one_line_of_error() {
    for name in all_examples() {
        for args in [&["--nonsense", "1"][..], &["127.0.0.1:0", "nonsense"]] {
            let wrong = args.iter().find(|a| a.contains("nonsense")).unwrap();
            assert_fails(&run(&name, args), &["unknown argument", wrong, "--help"]);
        }
    }
}

#[test]
fn an_option_that_makes_no_sense_is_one_line_of_error() {
    let cases = [
        ("--strategy psychic", "--strategy psychic"),
        ("--workers 0 --strategy thread-pool", "ThreadPool::new"),
        ("--workers some", "--workers some"),
        ("--max-connections 0", "max_connections"),
        ("--drain", "--drain wants a value"),
    ];
    for (options, named) in cases {
        let args: Vec<&str> = ["127.0.0.1:0"].into_iter().chain(options.split(' ')).collect();
        assert_fails(&run("torture_server", &args), &[named]);
    }
}

#[test]
fn an_address_that_cannot_be_had_is_one_line_with_a_hint() {
    let server = Server::start("echo_server", &[]);
    let cases: &[(&str, &[&str])] = &[
        (server.addr(), &["bind", "os error 98", "another program listens there"]),
        ("no-such-host.invalid:80", &["resolve", "check the name, or give an IP address"]),
        ("localhost", &["no port", "an address is HOST:PORT"]),
        ("127.0.0.1:99999", &["65535", "an address is HOST:PORT"]),
        ("::1:0", &["brackets", "an address is HOST:PORT"]),
        ("192.0.2.1:0", &["bind", "os error 99", "no interface of this machine"]), // reserved for documentation
        (
            "unix:/no/such/folder/x.sock",
            &["open the folder of", "os error 2", "folder of the socket file does not exist"],
        ),
    ];
    for (addr, parts) in cases {
        let named = format!(" {addr}: ");
        assert_fails(&run("echo_server", &[addr]), &[&[named.as_str()], *parts].concat());
    }
    assert_eq!(server.connect().ask("still listening"), "still listening");
}

#[test]
fn a_unix_address_without_a_name_is_one_line_with_a_hint() {
    assert_fails(&run("echo_server", &["unix:"]), &["no path", "unix:PATH"]);
    assert_fails(&run("echo_server", &["unix:@"]), &["no name", "unix:PATH"]);
}

/// Exit status 1, nothing on stdout, and one line on stderr that contains all of these.
#[track_caller]
fn assert_fails(output: &Output, parts: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(output.stdout.is_empty());
    assert_eq!(text.lines().count(), 1, "{text}");
    for part in parts {
        assert!(text.contains(part), "{part:?} is missing: {text}");
    }
}

// What each of them shows.

#[test]
fn the_threading_server_greets() {
    greets("threading_server");
}

#[test]
fn the_thread_pool_server_greets() {
    greets("thread_pool_server");
}

fn greets(name: &str) {
    let server = Server::start(name, &[]);
    for _ in 0..20 {
        let mut client = server.connect();
        let came = format!("Got connection from {}", client.local_addr());
        assert_eq!(client.rest(), "Thank you for connecting\n");
        until("it says which client came", || server.stdout().contains(&came));
    }
}

#[test]
fn the_echo_server_echoes_or_greets() {
    let server = Server::start("echo_server", &["--buf", "100"]);
    let mut client = server.connect();
    for word in ["a dialogue", "needs no flush"] {
        assert_eq!(client.ask(word), word); // sent because the handler waits for more
    }
    client.send(vec![b'e'; 100_000]);
    client.half_close();
    assert_eq!(client.rest().len(), 100_000);
    let greeter = Server::start("echo_server", &["--mode", "greet", "--strategy", "sequential"]);
    assert_eq!(greeter.connect().rest(), "Hello from the server, what can I do for you?\r\n");
}

#[test]
fn an_echo_ends_at_a_stop() {
    for strategy in ["threading", "thread-pool", "forking", "sequential", "event-loop"] {
        let mut server = Server::start("echo_server", &["--strategy", strategy]);
        let mut idle = server.connect();
        assert_eq!(idle.ask("then silence"), "then silence", "{strategy}");
        server.term().well_within(AT_ONCE);
        assert_eq!(idle.rest(), "", "{strategy}");
    }
}

#[test]
fn the_101st_client_of_the_limits_server_is_told_that_it_is_busy() {
    let server = Server::start("limits", &[]);
    let mut held: Vec<Client> = (0..100).map(|_| server.connect()).collect();
    for client in &mut held {
        assert_eq!(client.ask("hello"), "HELLO");
    }
    assert_eq!(server.connect().rest(), "busy, try again later\n");
    server.until_logged("refused 127.0.0.1:");
    held.pop();
    let served = || {
        let mut client = server.connect();
        client.try_ask("again").is_ok_and(|answer| answer == "AGAIN")
    };
    assert!(comes_true(AT_ONCE * 5, served), "a place that is free again is given again");
    assert_eq!(held[0].ask("unharmed"), "UNHARMED");
}

#[test]
fn the_limits_server_ends_a_line_that_is_too_long() {
    let server = Server::start("limits", &[]);
    let mut client = server.connect();
    client.send(vec![b'x'; 1001]);
    assert_eq!(client.rest(), "");
    server.until_logged("a line of more than 1000 bytes");
}

#[test]
fn the_graceful_server_loses_nothing_at_its_stop() {
    let mut server = Server::start("graceful_shutdown", &[]);
    let (mut idle, mut works, mut stops) = (server.connect(), server.connect(), server.connect());
    assert_eq!(idle.ask("hello"), "work or stop?");
    works.send_and_see_it_taken("work");
    stops.send("stop\n");
    assert_eq!(stops.rest(), "good bye\n");
    assert_eq!(idle.rest(), "good bye\n");
    assert!(server.is_running(), "it waits for the work in flight");
    assert_eq!(works.rest(), "done\ngood bye\n");
    server.ended().well_within(AT_ONCE);
    server.until_reported("served 3, drained 3");
}

#[test]
fn the_custom_strategy_serves_each_client_on_its_own_thread() {
    let server = Server::start("custom_strategy", &[]);
    for _ in 0..10 {
        let mut client = server.connect();
        let name = format!("for {}", client.local_addr());
        assert_eq!(client.rest(), format!("served by the thread Some({name:?})\n"));
    }
}

#[test]
fn the_server_of_the_testing_example_adds_up() {
    for strategy in ["threading", "thread-pool", "forking", "sequential", "event-loop"] {
        let server = Server::start("testing_a_handler", &["--strategy", strategy]);
        let mut client = server.connect();
        assert_eq!((client.ask("1 2 3"), client.ask("-5")), ("6".to_owned(), "-5".to_owned()), "{strategy}");
        client.send("quit\n");
        assert_eq!(client.rest(), "", "{strategy}");
    }
}

#[test]
fn the_torture_server_lists_its_commands() {
    let server = Server::start("torture_server", &[]);
    let help = server.ask("HELP");
    for command in ["ECHO", "SLEEP", "BIG", "PANIC", "STATS", "SHUTDOWN"] {
        assert!(help.contains(command), "{help}");
    }
}

#[test]
fn the_select_server_prints_what_all_its_clients_send_on_one_thread() {
    let mut server = Server::start("select_server", &[]);
    let mut clients: Vec<Client> = (0..50).map(|_| server.connect()).collect();
    let names: Vec<String> = clients.iter().map(|client| client.local_addr().to_string()).collect();
    for round in 0..3 {
        for (n, client) in clients.iter_mut().enumerate() {
            client.send(format!("message {round} of {n}"));
        }
        let came = |n| server.stdout().contains(&format!("message {round} of {n}"));
        until("it prints each message as a line", || (0..clients.len()).all(came));
    }
    assert_eq!(procfs::threads(server.pid()), 1);
    drop(clients.pop());
    let says = |what: &str| names.iter().filter(|name| server.stdout().contains(&what.replace("ADDR", name))).count();
    until("it says which client went", || says("ADDR disconnected") == 1);
    assert_eq!(says("got connection from ADDR"), names.len());
    server.term().well_within(AT_ONCE); // with clients connected
}

#[test]
fn the_select_server_waits_out_a_lack_of_descriptors() {
    let mut few = Command::new("sh");
    few.args(["-c", "ulimit -n 32; exec \"$0\" \"$@\""]).arg(support::example("select_server"));
    let mut server = Server::start_command(few, "127.0.0.1:0", &[]);
    let mut clients: Vec<Client> = (0..40).map(|_| server.connect()).collect();
    server.until_logged("cannot accept");
    let ticks = procfs::ticks(server.pid());
    std::thread::sleep(Duration::from_millis(300)); // in which it shall do nothing
    assert!(procfs::ticks(server.pid()) - ticks < 10, "it spins");
    clients.drain(..20);
    clients.last_mut().unwrap().send("at last");
    until("the last one is served", || server.stdout().contains(&"at last".to_owned()));
    server.term().well_within(AT_ONCE);
}

#[test]
fn the_select_server_speaks_over_a_unix_socket_and_removes_its_file() {
    let path = std::env::temp_dir().join(format!("select-server-{}", std::process::id()));
    let mut server = Server::start_at(&format!("unix:{}", path.display()), "select_server", &[]);
    server.connect().send(b"not \xff text\r\n");
    until("it prints it", || server.stdout().contains(&"not \u{fffd} text".to_owned()));
    server.term().well_within(AT_ONCE);
    assert!(!path.exists());
}

#[test]
fn a_second_signal_ends_the_select_server_at_once() {
    let mut stuck = Server::start("select_server", &[]);
    let mut client = stuck.connect();
    stuck.signal("STOP"); // so that both signals find it in the middle of its work
    client.send("any");
    stuck.signal("TERM");
    stuck.signal("INT");
    stuck.signal("CONT");
    assert!(matches!(stuck.ended().code(), Some(130 | 143)), "128 and the signal's number");
}

// Clients that somebody else has written.

#[test]
fn pythons_socket_talks_to_the_echo_server() {
    let Some(mut python) = tool("python3") else { return };
    let server = Server::start("echo_server", &[]);
    let script = "import socket, sys\n\
                  s = socket.create_connection((sys.argv[1], int(sys.argv[2])), 30)\n\
                  s.sendall(b'hello from python'); s.shutdown(socket.SHUT_WR)\n\
                  print(s.makefile().read(), end='')";
    let output = python.args(["-c", script, "127.0.0.1", &server.port().to_string()]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "hello from python", "{output:?}");
}

#[test]
fn netcat_is_greeted() {
    let Some(mut nc) = tool("nc") else { return };
    let server = Server::start("threading_server", &[]);
    nc.args(["127.0.0.1", &server.port().to_string()]);
    assert_eq!(told(&mut nc), "Thank you for connecting\n");
}

#[test]
fn curl_is_greeted() {
    let Some(mut curl) = tool("curl") else { return };
    let server = Server::start("threading_server", &[]);
    curl.args(["--silent", "--no-buffer", "--max-time", "30", &format!("telnet://{}", server.addr())]);
    assert_eq!(told(&mut curl), "Thank you for connecting\n");
}

/// The first line that a client prints, whose input stays open and silent. Some then wait for a word of their user.
fn told(client: &mut Command) -> String {
    let mut child = client.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    let read = BufReader::new(child.stdout.take().unwrap()).read_line(&mut line);
    child.kill().unwrap();
    child.wait().unwrap();
    read.unwrap();
    line
}
