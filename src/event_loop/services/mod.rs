//! What a protocol may ask for: clients, datagrams, other loops, threads, files.

pub(crate) mod across;
pub(crate) mod attempt;
pub(crate) mod clients;
pub(crate) mod datagrams;
pub(crate) mod files;
pub(crate) mod offload;
pub(crate) mod ports;
