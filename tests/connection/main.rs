//! The connection, as a handler sees it.

#[path = "../kit/mod.rs"]
mod kit;

mod limits;
mod lines;
mod promises;
mod writer;
