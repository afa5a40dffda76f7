//! The servers, each by the clients that people use for it.

#[path = "../../../../tests/support/mod.rs"]
mod support;

mod dns;
mod inetd;
mod irc;
mod mail;
mod mqtt;
mod redis_lite;
mod tftp;

use std::process::Stdio;

/// Runs a client to its end, and gives what it says; `None` where it is not installed.
#[track_caller]
fn client(name: &str, args: &[&str]) -> Option<String> {
    let mut command = support::tool(name)?;
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = support::output(command.spawn().unwrap(), &format!("{name} {args:?}"));
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    Some(said.into_owned())
}

/// Starts one of the servers on a free port.
macro_rules! start {
    ($name:literal $(, $arg:expr)* $(; $args:expr)?) => {{
        let command = std::process::Command::new(env!(concat!("CARGO_BIN_EXE_", $name)));
        $crate::support::Server::start_command(command, "127.0.0.1:0", &[&[$($arg),*][..] $(, $args)?].concat())
    }};
}
use start;
