//! Values that know no loop: slots, timers, the clock, tokens, groups, rates, and what loops share.
//!
//! Nothing here may use `State`, `Conn` or `Io`. `Slab` gives ids, `Timers` orders time, `token` divides the numbers
//! that epoll reports. `Groups` and `RateLimit` are shared by connections, `LoopGroup` by the loops of a server.

pub(crate) mod clock;
pub(crate) mod group;
pub(crate) mod loop_group;
pub(crate) mod rate;
pub(crate) mod slab;
pub(crate) mod timers;
pub(crate) mod token;
