//! For tests of handlers and protocols (feature `testing`).

pub use crate::event_loop::TestLoop;
