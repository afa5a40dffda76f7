//! [`Threading`]: a thread for each connection.

use std::time::Duration;

use super::crew::{self, HandOver, ThreadSettings};
use crate::accept::{Acceptor, Rejected, Request, ServingStrategy};
use crate::error::{Error, Result};

/// Serves each connection on a thread of its own, up to the connection limit.
///
/// A thread that is done waits for the next connection and accepts it itself. So a short connection costs
/// neither a new thread nor a hand-over. One thread always waits while the limit allows another connection.
/// If no thread can be started, the connection in hand is refused, and its thread waits on: the server stays
/// reachable.
///
/// With a handler of requests ([`per_request`](crate::per_request)) each request has a thread, of 1024 at most, and the
/// connection is parked until the next one. The default limit is then `RLIMIT_NOFILE` less 64.
///
/// A panic ends its connection only. An abort, a segfault or a stack overflow ends the process. Unlike
/// Python's `ThreadingMixIn`, it has a limit, and its stop ends.
#[derive(Debug)]
pub struct Threading {
    settings: ThreadSettings,
    hand_over: HandOver,
}

impl Default for Threading {
    fn default() -> Self {
        Self::new()
    }
}

impl Threading {
    /// Makes the strategy with its defaults. The default limit is 1024 connections, or `RLIMIT_NOFILE` less
    /// 64, whichever is lower.
    pub fn new() -> Self {
        let settings = ThreadSettings {
            name: "threading".to_owned(),
            stack_size: None,
            // A burst finds threads; an idle server gives them back.
            keep_alive: Duration::from_secs(10),
            spare: 16,
            size: None,
        };
        Self { settings, hand_over: HandOver::default() }
    }

    /// Sets the stack of each thread, in bytes. The system rounds it up. Defaults to Rust's 2 MiB.
    #[must_use]
    pub fn stack_size(mut self, bytes: usize) -> Self {
        self.settings.stack_size = Some(bytes);
        self
    }

    /// Sets the name of the threads, as debuggers and `top -H` show it (its first 15 bytes). Defaults to
    /// `threading`.
    #[must_use]
    pub fn thread_name(mut self, name: impl Into<String>) -> Self {
        self.settings.name = name.into();
        self
    }

    /// Sets how long a thread waits for a connection before it ends. One thread always waits. Defaults to 10
    /// s.
    #[must_use]
    pub fn keep_alive(mut self, time: Duration) -> Self {
        self.settings.keep_alive = time;
        self
    }

    /// Sets how many threads may wait for connections at once. Further ones end at once. Defaults to 16.
    #[must_use]
    pub fn spare_threads(mut self, count: usize) -> Self {
        self.settings.spare = count;
        self
    }
}

impl ServingStrategy for Threading {
    fn process_request(&self, request: Request) -> std::result::Result<(), Rejected> {
        self.hand_over.give(&self.settings, request)
    }

    fn serve(&self, acceptor: &Acceptor) -> Result<()> {
        crew::serve(&self.settings, self, acceptor)
    }

    fn parks(&self) -> bool {
        true
    }

    fn max_connections(&self) -> Result<usize> {
        self.settings.check()?;
        if self.settings.spare == 0 {
            return Err(Error::setting("spare_threads", "one thread at least must wait for connections"));
        }
        Ok(1024.min(crate::sys::limits::descriptors().saturating_sub(64)).max(1))
    }
}
