//! As a server: one loop, several loops, or one for each connection.

pub(crate) mod blocking;
pub(crate) mod event_loop;
pub(crate) mod loops;
