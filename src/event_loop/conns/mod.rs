//! One connection: it begins, is read, called, sent, settled, and ends.
//!
//! Here are the methods of `State` that concern one connection. Nothing here waits, accepts or decides about the
//! whole loop: that is `turn`. Clients, datagrams and files are `services`.
//!
//! The walk: `build_and_begin` → `handle_readiness` → `read` → `deliver_input` → `call` → the user's `Protocol` →
//! `write` → `settle_one` → `flush` → `advance` → `finish`.
//!
//! No callback runs within another. A `close` that called `connection_lost` would find the protocol's state half
//! changed; two protocols that write to each other would recurse without end. So an act is noted on the connection,
//! which is marked, and its callbacks follow in `settle_one`.

pub(crate) mod begin;
pub(crate) mod call;
pub(crate) mod end;
pub(crate) mod flush;
pub(crate) mod groups;
pub(crate) mod half_close;
pub(crate) mod limits;
pub(crate) mod link;
pub(crate) mod next_attempt;
pub(crate) mod pause;
pub(crate) mod rate_limit;
pub(crate) mod read;
pub(crate) mod send;
pub(crate) mod settle;
pub(crate) mod socket;
pub(crate) mod stream;
pub(crate) mod switch;
pub(crate) mod timers;
#[cfg(feature = "__tls")]
pub(crate) mod tls;
