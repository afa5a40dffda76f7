//! What went wrong, as the log, the hook and the counters are told.

use std::io;

use crate::config::Limit;
use crate::net::Addr;

/// What went wrong, for the [`handle_error`](crate::ServerBuilder::handle_error) hook.
#[derive(Debug)]
#[non_exhaustive]
pub enum Failure<'a> {
    /// A handler returned an error, or a limit ended it.
    #[non_exhaustive]
    Error {
        /// Whose connection it was.
        peer: &'a Addr,
        /// What the handler returned.
        error: &'a (dyn std::error::Error + Send + Sync + 'static),
    },
    /// A handler panicked.
    #[non_exhaustive]
    Panic {
        /// Whose connection it was.
        peer: &'a Addr,
        /// The panic's text, or what stands for it.
        message: &'a str,
    },
    /// The peer went away before the handler was done. Not logged above `debug`: it is the peer's right.
    #[non_exhaustive]
    Disconnected {
        /// Whose connection it was.
        peer: &'a Addr,
        /// What the handler met.
        error: &'a (dyn std::error::Error + Send + Sync + 'static),
    },
    /// A handler's process has exited by itself ([`Forking`](crate::Forking)).
    #[non_exhaustive]
    Exited {
        /// Whose connection it was.
        peer: &'a Addr,
        /// The exit code.
        code: i32,
    },
    /// A handler's process was killed by a signal ([`Forking`](crate::Forking)).
    #[non_exhaustive]
    Killed {
        /// Whose connection it was.
        peer: &'a Addr,
        /// The signal's name, as `SIGSEGV`.
        signal: &'static str,
        /// The limit for which the server itself has sent the signal.
        limit: Option<Limit>,
    },
    /// A connection was closed without a handler: at the limit, for want of something, or because
    /// [`verify_request`](crate::ServerBuilder::verify_request) did not let it in (the error's kind is
    /// `PermissionDenied` where it said no, `TimedOut` where it did not answer in time).
    #[non_exhaustive]
    Refused {
        /// Whose connection it was.
        peer: &'a Addr,
        /// Why.
        error: &'a io::Error,
    },
    /// A callback has held up an event loop, and with it all its connections.
    #[non_exhaustive]
    Stalled {
        /// Which callback.
        callback: &'static str,
        /// Whose connection it was, where it was one's.
        peer: Option<&'a Addr>,
        /// How long it took.
        took: std::time::Duration,
    },
    /// A worker process ([`PreForking`](crate::PreForking)) has ended, or has to be ended, without having been asked to;
    /// another one takes its place. Told in the master.
    #[non_exhaustive]
    Worker {
        /// The number of its place, from 0.
        worker: usize,
        /// Its process.
        pid: i32,
        /// What has become of it, and its last words if it had any.
        how: &'a str,
        /// How many connections went with it.
        connections: u64,
    },
    /// A hook of the server panicked: `verify_request`, `service_actions` or `handle_timeout`. (A panic in
    /// `verify_request` also refuses its connection. In a child of [`Forking`](crate::Forking) only that is told.)
    #[non_exhaustive]
    Hook {
        /// Which, as the builder's method is called.
        hook: &'static str,
        /// The panic's text, or what stands for it.
        message: &'a str,
    },
    /// Accepting failed, and goes on: at once where only that connection was gone, else after a rest.
    #[non_exhaustive]
    Accept {
        /// The listener.
        local: &'a Addr,
        /// The system's answer.
        error: &'a io::Error,
    },
    /// Accepting failed on one listener for good. The server goes on with the others, or ends where this was the last.
    #[non_exhaustive]
    ListenerLost {
        /// The listener.
        local: &'a Addr,
        /// The system's answer.
        error: &'a io::Error,
    },
}

/// The hook `handle_error`.
pub(crate) type ErrorHook = Box<dyn Fn(&Failure<'_>) + Send + Sync>;

/// What a person can do about a lack of the system's.
fn remedy(error: &io::Error) -> &'static str {
    use nix::libc::{EAGAIN, EMFILE, ENFILE, EPERM};
    match error.raw_os_error() {
        Some(EMFILE) => "; raise RLIMIT_NOFILE (ulimit -n) or lower max_connections",
        Some(ENFILE) => "; the whole system has no descriptor left (sysctl fs.file-max)",
        Some(EAGAIN) => {
            "; no thread or process can be started: see ulimit -u, kernel.pid_max, the control group's pids.max"
        }
        Some(EPERM) => "; a firewall refuses it",
        _ => "",
    }
}

impl std::fmt::Display for Failure<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Error { peer, error } => write!(f, "the handler of {peer} failed: {}", brief(error)),
            Self::Panic { peer, message } => write!(f, "the handler of {peer} panicked: {}", brief(message)),
            Self::Disconnected { peer, error } => write!(f, "{peer} went away: {}", brief(error)),
            Self::Exited { peer, code } => write!(f, "the process of {peer} exited with {code}"),
            Self::Killed { peer, signal, limit: Some(limit) } => {
                write!(f, "the process of {peer} was ended by {signal} at the {limit} limit")
            }
            Self::Killed { peer, signal, limit: None } => write!(f, "the process of {peer} was killed by {signal}"),
            Self::Refused { peer, error } => write!(f, "refused {peer}: {}{}", brief(error), remedy(error)),
            Self::Stalled { callback, peer: Some(peer), took } => {
                write!(f, "the loop stood still for {} ms in {callback} of {peer}", took.as_millis())
            }
            Self::Stalled { callback, peer: None, took } => {
                write!(f, "the loop stood still for {} ms in {callback}", took.as_millis())
            }
            Self::Worker { worker, pid, how, connections } => {
                write!(f, "worker {worker} (process {pid}) {}; {connections} connections went with it", brief(how))
            }
            Self::Hook { hook, message } => write!(f, "{hook} panicked: {}", brief(message)),
            Self::Accept { local, error } => {
                write!(f, "cannot accept on {local} for now: {error}{}", remedy(error))
            }
            Self::ListenerLost { local, error } => write!(f, "gave up listening on {local}: {error}"),
        }
    }
}

/// At most this much of a foreign text goes into a log line.
const LONGEST_TEXT: usize = 100;

/// A text that may come from a peer, fit for one log line: escaped and cut.
fn brief(text: &(impl std::fmt::Display + ?Sized)) -> String {
    let text = text.to_string();
    let mut kept: String = text.chars().take(LONGEST_TEXT).flat_map(char::escape_debug).collect();
    if text.chars().nth(LONGEST_TEXT).is_some() {
        kept.push('…');
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_foreign_text_is_escaped_and_cut() {
        assert_eq!(brief("plain, ä"), "plain, ä");
        assert_eq!(brief("a\r\nforged line\u{1b}[2J"), "a\\r\\nforged line\\u{1b}[2J");
        assert_eq!(brief(&"ä".repeat(LONGEST_TEXT)), "ä".repeat(LONGEST_TEXT));
        assert_eq!(brief(&"ä".repeat(LONGEST_TEXT + 1)), "ä".repeat(LONGEST_TEXT) + "…");
    }
}
