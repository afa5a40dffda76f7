//! Examples as processes, driven from outside as any client would; and what needs a process or a network of its own.

#[path = "../kit/mod.rs"]
mod kit;
#[path = "../support/mod.rs"]
mod support;

mod activation;
mod addresses;
mod chat;
mod costs;
mod datagram_examples;
mod deploy;
mod examples;
mod forking;
mod frozen;
mod injected;
mod keep_alive;
mod notify;
mod observers;
mod port_forward;
mod preforking;
mod privileges;
mod proxy;
mod restart;
mod scopes;
mod sources;
mod tls;
mod unix_files;
mod unix_peers;
mod vanished;
