//! What a protocol can ask the loop for: clients, datagrams, listeners, other loops, threads, files.
//!
//! Here are the methods of `State` for each service, with the `impl Context` block that offers it. A service uses
//! `conns`, and never the turn. What a callback asks for is noted in `queues.deferred`, and done in `run_deferred`,
//! so that no callback runs within another.
//!
//! The walk of a client: `connect` → `continue_connecting` → `begin_attempt` → `try_addresses` → `connect_socket` →
//! `check_attempt` → `finish_attempt` → `serve_connected`; on failure `fail_attempt` → `plan_next_attempt`.

pub(crate) mod across;
pub(crate) mod adopt;
pub(crate) mod attempt;
pub(crate) mod clients;
pub(crate) mod datagram_events;
pub(crate) mod datagrams;
pub(crate) mod files;
pub(crate) mod offload;
pub(crate) mod ports;
