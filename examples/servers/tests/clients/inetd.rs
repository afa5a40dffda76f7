//! Programs as servers: `cat`, `sh`, and one that is not there; by `nc`.

use std::io::Write;
use std::process::Stdio;

use crate::start;
use crate::support::{output, procfs, tool, until, Server, AT_ONCE};

const STRATEGIES: [&str; 2] = ["forking", "threading"];

/// What `nc` prints, after it has sent this.
fn nc(server: &Server, input: &str) -> Option<String> {
    let mut command = tool("nc")?;
    command.args(["-N", "127.0.0.1", &server.port().to_string()]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (mut stdin, input) = (child.stdin.take().unwrap(), input.to_owned());
    // On a thread of its own: `nc` may wait until what it prints is read, before it takes more.
    std::thread::spawn(move || stdin.write_all(input.as_bytes()).unwrap());
    Some(String::from_utf8(output(child, "nc").stdout).unwrap())
}

#[test]
fn a_filter_serves_many_clients() {
    for strategy in STRATEGIES {
        let mut server = start!("inetd", "--strategy", strategy, "--command", "cat -n");
        for input in ["one\ntwo\n", &"much\n".repeat(100_000), ""] {
            let Some(said) = nc(&server, input) else { return };
            let expected: String = (1..).zip(input.lines()).map(|(n, line)| format!("{n:6}\t{line}\n")).collect();
            assert!(said == expected, "{} bytes of {}", said.len(), expected.len());
        }
        server.term().well_within(AT_ONCE);
        server.until_reported("accepted 3, served 3");
    }
}

#[test]
fn a_program_knows_its_client_and_its_exit_code_counts() {
    for strategy in STRATEGIES {
        let mut server = start!("inetd", "--strategy", strategy, "--command", "env");
        let mut client = server.connect();
        let said = client.rest();
        let port = format!("TCPREMOTEPORT={}", client.local_addr().port());
        assert!(
            ["PROTO=TCP", "TCPREMOTEIP=127.0.0.1", &port].iter().all(|var| said.lines().any(|l| l == *var)),
            "{said}"
        );
        server.term();
        server.until_reported("accepted 1, served 1");

        let failed = if strategy == "forking" { "exited with 1" } else { "exit status: 1" };
        for (program, log) in [("false", failed), ("/none/such", "No such file")] {
            let mut server = start!("inetd", "--strategy", strategy, "--command", program);
            assert!(server.connect().until_closed().is_empty());
            server.until_logged(log);
            server.term();
            server.until_reported_without("accepted 1", &["served 1"]);
        }
    }
}

/// The drain limit cuts the connection, and so ends a program that reads it.
#[test]
fn a_stop_leaves_no_program_behind() {
    for strategy in STRATEGIES {
        let mut server = start!("inetd", "--strategy", strategy, "--drain", "100");
        let mut client = server.connect();
        client.send("hello\n");
        assert_eq!(client.line(), "hello");
        until("the program runs", || procfs::descendants(server.pid()).len() == 1);
        let program = procfs::descendants(server.pid())[0];
        server.term().well_within(AT_ONCE);
        client.until_closed();
        until("the program has ended", || procfs::state(program).is_none());
    }
}
