//! One connection: it begins, is read, called, sent, settled, and ends.

pub(crate) mod call;
pub(crate) mod end;
pub(crate) mod flush;
pub(crate) mod half_close;
pub(crate) mod link;
pub(crate) mod send;
pub(crate) mod switch;
pub(crate) mod throttle;
