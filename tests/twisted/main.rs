//! Cases of Twisted's own tests, written anew: each is named after the one that it follows.

#[path = "../support/patience.rs"]
mod patience;
#[path = "../script/mod.rs"]
mod script;

mod clients;
mod policies;
mod task;
mod tcp;
mod udp;
