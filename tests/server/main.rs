//! Servers in the process of the test: binding, accepting, serving, hooks, and the end.

#[path = "../kit/mod.rs"]
mod kit;
#[path = "../support/mod.rs"]
mod support;

mod accept_faults;
mod accepting;
mod datagrams;
mod errors;
mod floods;
mod handlers;
mod hooks;
mod lifecycle;
mod observers;
mod proxy;
mod regressions;
mod single_stops;
mod sources;
mod unix;
