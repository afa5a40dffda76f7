//! [`Failure`]: an event that the log and the hook `handle_error` report.

use std::io;

use super::greeting::GreetingFailure;
use crate::config::Limit;
use crate::net::Addr;

/// A failure, for the [`handle_error`](crate::ServerBuilder::handle_error) hook.
#[derive(Debug)]
#[non_exhaustive]
pub enum Failure<'a> {
    /// A handler returned an error, or a limit ended it.
    #[non_exhaustive]
    Error {
        /// The peer of the connection.
        peer: &'a Addr,
        /// The error that the handler returned.
        error: &'a (dyn std::error::Error + Send + Sync + 'static),
        /// True if the peer is at fault: see [`PeerFault`](crate::PeerFault). The log has such errors at `debug`.
        at_fault: bool,
    },
    /// A handler panicked.
    #[non_exhaustive]
    Panic {
        /// The peer of the connection.
        peer: &'a Addr,
        /// The panic's text, or `(a panic without a text)`.
        message: &'a str,
    },
    /// The peer left before the handler was done. It is logged at `debug`, because a peer may leave.
    #[non_exhaustive]
    Disconnected {
        /// The peer of the connection.
        peer: &'a Addr,
        /// The error that the handler returned.
        error: &'a (dyn std::error::Error + Send + Sync + 'static),
    },
    /// A handler's process has exited by itself ([`Forking`](crate::Forking)).
    #[non_exhaustive]
    Exited {
        /// The peer of the connection.
        peer: &'a Addr,
        /// The exit code.
        code: i32,
    },
    /// A handler's process was killed by a signal ([`Forking`](crate::Forking)).
    #[non_exhaustive]
    Killed {
        /// The peer of the connection.
        peer: &'a Addr,
        /// The signal's name, for example `SIGSEGV`.
        signal: &'static str,
        /// The limit, if the server itself has sent the signal at a limit.
        limit: Option<Limit>,
    },
    /// A connection was closed without a handler: at the limit, because the system lacked something, or
    /// because [`verify_request`](crate::ServerBuilder::verify_request) refused it. If the hook said no, the
    /// error's kind is `PermissionDenied`; if it did not answer in time, `TimedOut`.
    #[non_exhaustive]
    Refused {
        /// The peer of the connection.
        peer: &'a Addr,
        /// The reason.
        error: &'a io::Error,
    },
    /// A connection was closed before its handler could see it, because its greeting failed. A peer that left
    /// is logged at `debug`, the others at `info`, one line a second for each reason.
    #[non_exhaustive]
    Greeting {
        /// The peer of the connection: the proxy, as long as the client is not known.
        peer: &'a Addr,
        /// The reason, as it is counted.
        reason: GreetingFailure,
        /// The error.
        error: &'a io::Error,
    },
    /// A callback has held up an event loop, and all its connections.
    #[non_exhaustive]
    Stalled {
        /// The name of the callback.
        callback: &'static str,
        /// The peer, if the callback belongs to a connection.
        peer: Option<&'a Addr>,
        /// The time that it took.
        took: std::time::Duration,
    },
    /// A worker process ([`PreForking`](crate::PreForking)) has ended, or must be ended, although the master
    /// has not asked it to. Another worker replaces it. The master reports this.
    #[non_exhaustive]
    Worker {
        /// The worker's number, from 0.
        worker: usize,
        /// Its process.
        pid: i32,
        /// How it ended, and its last error text if there was one.
        how: &'a str,
        /// The number of connections that were lost with it.
        connections: u64,
    },
    /// A hook of the server panicked: `verify_request`, `service_actions` or `handle_timeout`. (A panic in
    /// `verify_request` also refuses its connection. In a child of [`Forking`](crate::Forking) only the
    /// refusal is reported.)
    #[non_exhaustive]
    Hook {
        /// The name of the builder's method.
        hook: &'static str,
        /// The panic's text, or `(a panic without a text)`.
        message: &'a str,
    },
    /// Accepting failed, and goes on. It goes on at once if only that connection was gone, else after a rest.
    #[non_exhaustive]
    Accept {
        /// The listener.
        local: &'a Addr,
        /// The system's answer.
        error: &'a io::Error,
    },
    /// Accepting failed on one listener for good. The server goes on with the other listeners. If this was
    /// the last, it ends.
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

/// Returns a hint for people about a lack of the system.
pub(super) fn remedy(error: &io::Error) -> &'static str {
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
            Self::Error { peer, error, .. } => write!(f, "the handler of {peer} failed: {}", brief(error)),
            Self::Panic { peer, message } => write!(f, "the handler of {peer} panicked: {}", brief(message)),
            Self::Disconnected { peer, error } => write!(f, "{peer} went away: {}", brief(error)),
            Self::Exited { peer, code } => write!(f, "the process of {peer} exited with {code}"),
            Self::Killed { peer, signal, limit: Some(limit) } => {
                write!(f, "the process of {peer} was ended by {signal} at the {limit} limit")
            }
            Self::Killed { peer, signal, limit: None } => write!(f, "the process of {peer} was killed by {signal}"),
            Self::Refused { peer, error } => write!(f, "refused {peer}: {}{}", brief(error), remedy(error)),
            Self::Greeting { peer, reason: GreetingFailure::Left, error } => {
                write!(f, "{peer} went away before it began: {}", brief(error))
            }
            Self::Greeting { peer, error, .. } => write!(f, "refused {peer}: {}{}", brief(error), remedy(error)),
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

/// The most characters of a foreign text in a log line.
const LONGEST_TEXT: usize = 100;

/// Makes a text fit for one log line. An error may quote what a client has sent, so line breaks and control
/// characters are escaped, and the text is cut.
pub(super) fn brief(text: &(impl std::fmt::Display + ?Sized)) -> String {
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

    #[test]
    fn a_lack_of_the_system_comes_with_a_remedy() {
        use nix::libc::{EAGAIN, EINVAL, EMFILE, ENFILE, EPERM};
        let words = [(EMFILE, "ulimit -n"), (ENFILE, "fs.file-max"), (EAGAIN, "ulimit -u"), (EPERM, "firewall")];
        for (errno, word) in words {
            let hint = remedy(&io::Error::from_raw_os_error(errno));
            assert!(hint.starts_with("; ") && hint.contains(word), "{errno}: {hint}");
        }
        assert_eq!(remedy(&io::Error::from_raw_os_error(EINVAL)), "");
    }
}
