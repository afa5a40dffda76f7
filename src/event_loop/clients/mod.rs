//! Connections that this side makes, as data: where to, how, how often, and why not.

pub(crate) mod connect;
pub(crate) mod connect_error;
pub(crate) mod reconnect;
