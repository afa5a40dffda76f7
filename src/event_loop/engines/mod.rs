//! The loop as a server: one loop, several loops, or one for each connection.
//!
//! Here are the implementations of `Engine`, and nothing that a loop does. The walks: `EventLoop::run` →
//! `Reactor::run_to_the_end`. `EventLoops::run` → `LoopRun::serve` → a thread each → `LoopRun::run`. `Blocking` runs a
//! loop for its one connection.

pub(crate) mod blocking;
pub(crate) mod event_loop;
pub(crate) mod loops;
