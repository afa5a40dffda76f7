//! Runs a program for each connection, with the connection as its standard input and output, as inetd does. So any filter
//! is a server: `cargo run --bin inetd -- --command 'cat -n'`, then `nc -N 127.0.0.1 1234`.
//!
//! With `--strategy forking` the process of a connection becomes the program. With `threading` a thread starts the program
//! and waits for its end. What the program writes to standard error goes where that of the server goes.

use std::os::fd::AsFd;
use std::process::{Command, Stdio};

use common::any::AnyServer;
use socketserver::{handler, Connection, Forking, HandlerResult, ServerBuilder, Threading};

/// The program, which finds its client's address in its environment (as under tcpserver(1)).
fn command(words: &[String], conn: &Connection) -> Command {
    let peer = conn.peer_addr();
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).env("PROTO", "TCP");
    if let Some(addr) = peer.socket_addr() {
        command.env("TCPREMOTEIP", addr.ip().to_string()).env("TCPREMOTEPORT", addr.port().to_string());
    }
    command
}

/// Starts the program, and waits for its end. At a stop it may finish; at the drain limit its connection is cut.
fn run(conn: &mut Connection, mut command: Command) -> HandlerResult {
    let socket = || conn.as_fd().try_clone_to_owned().map(Stdio::from);
    let mut child = command.stdin(socket()?).stdout(socket()?).spawn()?;
    drop(command); // it holds the socket too
    match child.wait()? {
        status if status.success() => Ok(()),
        status => Err(format!("the program has ended with {status}").into()),
    }
}

fn main() -> socketserver::Result<()> {
    let own = [
        ("command WORDS", "the program and its arguments; not read by a shell [cat]"),
        ("strategy S", "forking or threading [forking]"),
    ];
    let args = common::args("Runs a program for each connection.", &[&own, common::LIMITS]);
    let words: Vec<String> = args.choice("command", "cat").split_ascii_whitespace().map(str::to_owned).collect();
    if words.is_empty() {
        common::fail("--command wants the name of a program");
    }
    let builder = args.limits(ServerBuilder::new().handle_signals());
    let mut server: Box<dyn AnyServer> = match args.choice("strategy", "forking") {
        "forking" => {
            let become_it = handler(move |conn| Err(conn.exec(&mut command(&words, conn)).into()));
            Box::new(builder.strategy(Forking::new()).bind(&args.addr, become_it)?)
        }
        "threading" => {
            let run_it = handler(move |conn| run(conn, command(&words, conn)));
            Box::new(builder.strategy(Threading::new()).bind(&args.addr, run_it)?)
        }
        other => common::fail(format!("--strategy {other}: it is forking or threading")),
    };
    common::listening(server.local_addr());
    common::report(&server.serve_forever()?);
    Ok(())
}
