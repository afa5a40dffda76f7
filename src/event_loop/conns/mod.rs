//! One connection: it begins, is read, called, sent, settled, and ends.

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
pub(crate) mod switch;
pub(crate) mod timers;
