//! A thread for each connection.

use std::time::Duration;

use super::crew::{self, HandOver, ThreadSettings};
use crate::accept::{Acceptor, Rejected, Request, ServingStrategy};
use crate::error::{Error, Result};

/// A thread for each connection, as many as the connection limit allows.
///
/// Threads that are done wait for the next connection and accept it themselves, so a short connection costs neither
/// a new thread nor a hand-over. A panic ends its connection only; an abort, a segfault or a stack overflow ends the
/// process. Unlike Python's `ThreadingMixIn`, it has a limit, and a stop that ends.
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
    /// Default limit: 1024 connections, or 64 less than the process may have descriptors.
    pub fn new() -> Self {
        let settings = ThreadSettings {
            name: "threading".to_owned(),
            stack_size: None,
            keep_alive: Duration::from_secs(10),
            spare: 16,
            size: None,
        };
        Self { settings, hand_over: HandOver::default() }
    }

    /// The stack of each thread, in bytes; the system rounds up to what it needs. Defaults to Rust's 2 MiB.
    #[must_use]
    pub fn stack_size(mut self, bytes: usize) -> Self {
        self.settings.stack_size = Some(bytes);
        self
    }

    /// The name of the threads, as debuggers and `top -H` show it (its first 15 bytes). Defaults to `threading`.
    #[must_use]
    pub fn thread_name(mut self, name: impl Into<String>) -> Self {
        self.settings.name = name.into();
        self
    }

    /// How long a thread waits for a connection before it ends; one always waits. Defaults to 10 s.
    #[must_use]
    pub fn keep_alive(mut self, time: Duration) -> Self {
        self.settings.keep_alive = time;
        self
    }

    /// How many threads may wait for connections at once; further ones end at once. Defaults to 16.
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

    fn max_connections(&self) -> Result<usize> {
        self.settings.check()?;
        if self.settings.spare == 0 {
            return Err(Error::setting("spare_threads", "one thread at least must wait for connections"));
        }
        Ok(1024.min(crate::sys::limits::descriptors().saturating_sub(64)).max(1))
    }
}
