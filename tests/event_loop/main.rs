//! The event loop in the process of the test, by theme. What counts threads or descriptors of the process, or sets
//! what the process has once, is a program of its own.

#[path = "../kit/mod.rs"]
mod kit;
#[path = "../script/mod.rs"]
mod script;
#[path = "../support/mod.rs"]
mod support;

mod across;
mod adopt;
mod callbacks;
mod clients;
mod context;
mod edges;
mod faults;
mod flow;
mod groups;
mod half_close;
mod idle;
mod limits;
mod link;
mod loops;
mod ports;
mod rate;
mod reactor;
mod reconnects;
mod regressions;
mod send;
mod server;
mod shutdown;
mod sockets;
mod streams;
mod switch;
mod timers;
mod tls;
mod tls_clients;
mod transport;
