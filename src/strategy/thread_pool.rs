//! [`ThreadPool`]: a fixed number of threads.

use std::time::Duration;

use super::crew::{self, HandOver, ThreadSettings};
use crate::accept::{Acceptor, Rejected, Request, ServingStrategy};
use crate::error::{Error, Result};

/// Serves with a fixed number of threads. Each thread accepts a connection, serves it to its end, and accepts
/// the next.
///
/// The queue is the kernel's: a client beyond the last thread waits, connected, until a thread is free. So a
/// pool suits short connections. A client that stays (a chat) holds its thread: N threads are N connections.
/// [`idle_timeout`](crate::ServerBuilder::idle_timeout) frees the thread of an idle client.
///
/// With a handler of requests ([`per_request`](crate::per_request)) a thread serves a request, and the connection is
/// parked until the next one. Then N threads serve as many connections as there are descriptors, by default up to
/// `RLIMIT_NOFILE` less 64.
///
/// A panic ends its connection only. An abort, a segfault or a stack overflow ends the process.
#[derive(Debug)]
pub struct ThreadPool {
    settings: ThreadSettings,
    threads: usize,
    hand_over: HandOver,
}

impl Default for ThreadPool {
    /// Makes a pool of 16 threads: handlers wait more than they compute, so more than there are cores.
    fn default() -> Self {
        Self::new(16)
    }
}

impl ThreadPool {
    /// Makes a pool of `threads` threads, which serve as many connections at once. Zero is an error when the
    /// server is bound.
    pub fn new(threads: usize) -> Self {
        let settings = ThreadSettings {
            name: "thread-pool".to_owned(),
            stack_size: None,
            keep_alive: Duration::from_secs(10),
            spare: threads,
            size: Some(threads),
        };
        Self { settings, threads, hand_over: HandOver::default() }
    }

    /// Sets the stack of each thread, in bytes. The system rounds it up. Defaults to Rust's 2 MiB.
    #[must_use]
    pub fn stack_size(mut self, bytes: usize) -> Self {
        self.settings.stack_size = Some(bytes);
        self
    }

    /// Sets the name of the threads, as debuggers and `top -H` show it (its first 15 bytes). Defaults to
    /// `thread-pool`.
    #[must_use]
    pub fn thread_name(mut self, name: impl Into<String>) -> Self {
        self.settings.name = name.into();
        self
    }
}

impl ServingStrategy for ThreadPool {
    fn process_request(&self, request: Request) -> std::result::Result<(), Rejected> {
        self.hand_over.give(&self.settings, request)
    }

    fn serve(&self, acceptor: &Acceptor) -> Result<()> {
        crew::serve(&self.settings, self, acceptor)
    }

    fn capacity(&self) -> usize {
        self.threads
    }

    fn parks(&self) -> bool {
        true
    }

    fn max_connections(&self) -> Result<usize> {
        self.settings.check()?;
        match self.threads {
            0 => Err(Error::setting("ThreadPool::new", "a pool without threads serves no client; give it at least 1")),
            // A number with a digit too many must fail at the bind, not when threads are started.
            n if n > 1 << 20 => {
                Err(Error::setting("ThreadPool::new", format!("{n} threads are more than a system has")))
            }
            n => Ok(n),
        }
    }
}
