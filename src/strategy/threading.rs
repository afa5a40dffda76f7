//! A thread for each connection.

use std::time::Duration;

use super::crew::{self, HandOver, Plan};
use crate::accept::{Acceptor, Rejected, Request, ServingStrategy};
use crate::error::{Error, Result};

/// A thread for each connection, as many as the connection limit allows.
///
/// Threads that are done wait for the next connection and accept it themselves, so a short connection costs neither
/// a new thread nor a hand-over. A panic ends its connection only; an abort, a segfault or a stack overflow ends the
/// process. Unlike Python's `ThreadingMixIn`, it has a limit, and a stop that ends.
#[derive(Debug)]
pub struct Threading {
    plan: Plan,
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
        let plan = Plan {
            name: "threading".to_owned(),
            stack_size: None,
            keep_alive: Duration::from_secs(10),
            spare: 16,
            size: None,
        };
        Self { plan, hand_over: HandOver::default() }
    }

    /// The stack of each thread, in bytes; the system rounds up to what it needs. Defaults to Rust's 2 MiB.
    #[must_use]
    pub fn stack_size(mut self, bytes: usize) -> Self {
        self.plan.stack_size = Some(bytes);
        self
    }

    /// The name of the threads, as debuggers and `top -H` show it (its first 15 bytes). Defaults to `threading`.
    #[must_use]
    pub fn thread_name(mut self, name: impl Into<String>) -> Self {
        self.plan.name = name.into();
        self
    }

    /// How long a thread waits for a connection before it ends; one always waits. Defaults to 10 s.
    #[must_use]
    pub fn keep_alive(mut self, time: Duration) -> Self {
        self.plan.keep_alive = time;
        self
    }

    /// How many threads may wait for connections at once; further ones end at once. Defaults to 16.
    #[must_use]
    pub fn spare_threads(mut self, count: usize) -> Self {
        self.plan.spare = count;
        self
    }
}

impl ServingStrategy for Threading {
    fn process_request(&self, request: Request) -> std::result::Result<(), Rejected> {
        self.hand_over.give(&self.plan, request)
    }

    fn serve(&self, acceptor: &Acceptor) -> Result<()> {
        crew::serve(&self.plan, self, acceptor)
    }

    fn max_connections(&self) -> Result<usize> {
        self.plan.check()?;
        if self.plan.spare == 0 {
            return Err(Error::setting("spare_threads", "one thread at least must wait for connections"));
        }
        Ok(1024.min(crate::sys::limits::descriptors().saturating_sub(64)).max(1))
    }
}
