//! The connection, as a handler sees it.

#[path = "../kit/mod.rs"]
mod kit;
#[path = "../support/mod.rs"]
mod support;

mod boundaries;
mod limits;
mod lines;
mod promises;
mod tls;
mod waits;
mod writer;
