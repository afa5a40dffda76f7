//! One handler, one protocol, any strategy: one suite, written once and run on each of them, over the torture server as a process.
//!
//! A new strategy is a line in `strategies!`, with its traits; a new case is a function and its name in `cases!`. A
//! function that is not named there is dead code, which the lints refuse.

#[path = "../support/mod.rs"]
mod support;

mod dialogue;
mod errors;
mod identity;
mod leaks;
mod limits;
mod observer;
mod proxy;
mod sources;
mod stop;
mod unread;

use support::Server;

/// Where a strategy's nature changes what is to be expected.
struct Traits {
    /// As `--strategy` names it.
    name: &'static str,
    /// Further arguments.
    args: &'static [&'static str],
    /// Serves clients side by side.
    concurrent: bool,
    /// Handlers run in the process that was started.
    same_process: bool,
    /// Clients that are served side by side have a thread each.
    thread_each: bool,
    /// The most threads that the started process keeps while nobody is served, with `--workers 4`.
    idle_threads: usize,
}

impl Traits {
    /// A torture server with four workers, where the strategy has such.
    fn start(&self, args: &[&str]) -> Server {
        self.start_at("127.0.0.1:0", args)
    }

    fn start_at(&self, addr: &str, args: &[&str]) -> Server {
        let all = [&["--strategy", self.name, "--workers", "4"], self.args, args].concat(); // the last word counts
        Server::start_at(addr, "torture_server", &all)
    }
}

macro_rules! cases {
    ($traits:ident: $($file:ident: $($case:ident)*;)*) => {$($(
        #[test]
        fn $case() {
            $crate::$file::$case(&$traits);
        }
    )*)*};
}

macro_rules! strategies {
    ($($strategy:ident: $traits:expr;)*) => {$(
        mod $strategy {
            const TRAITS: crate::Traits = { use crate::Traits; $traits };
            cases! { TRAITS:
                dialogue: echoes answers_64_clients answers_a_thousand_pipelined_requests_in_order
                    takes_a_request_byte_by_byte answers_in_full_after_a_half_close rejects_an_unknown_line
                    speaks_over_a_unix_socket_and_removes_its_file tells_the_peer_address;
                errors: a_panic_ends_its_connection_only an_error_ends_its_connection_only
                    what_was_written_before_a_panic_arrives a_line_too_long_ends_its_connection_only
                    a_client_that_resets_is_no_failure;
                identity: runs_handlers_where_it_says;
                leaks: a_thousand_connections_leave_nothing_behind the_counters_add_up;
                limits: never_serves_more_than_the_limit cuts_idle_clients_and_no_others
                    cuts_a_silent_client_at_the_read_limit cuts_a_client_that_trickles
                    cuts_a_client_that_takes_no_answer refuses_clients_that_a_slow_hook_does_not_admit_in_time;
                observer: observers_are_told_how_each_connection_ended observers_are_told_of_refusals
                    observers_know_the_client_behind_a_proxy;
                proxy: tells_the_clients_address_behind_a_proxy refuses_clients_of_other_networks
                    refuses_a_connection_without_a_header health_checks_are_no_failures
                    the_log_names_the_client_behind_a_proxy a_stop_ends_greetings_at_once
                    cuts_a_slow_header_at_the_handshake_limit a_mute_crowd_holds_up_nobody
                    the_request_limit_begins_after_the_header;
                sources: a_source_has_no_more_at_once_than_it_may a_source_that_connects_too_fast_is_refused
                    behind_a_proxy_the_client_is_the_source a_unix_socket_has_no_sources;
                stop: lets_a_request_in_flight_finish ends_idle_clients_at_once cuts_half_a_request_at_the_drain_limit
                    serves_clients_in_the_queue stops_from_within_a_handler stops_at_once_when_nothing_runs
                    a_second_sigterm_ends_a_spinning_handler a_second_sigint_ends_a_spinning_handler
                    the_first_signal_may_be_another_one;
                unread: a_reply_arrives_whole_although_input_was_left_unread
                    a_reply_arrives_whole_while_the_client_sends_on a_reply_arrives_whole_while_the_server_drains
                    a_reply_arrives_whole_although_the_client_was_idle_at_the_stop
                    a_reply_arrives_whole_although_the_stop_came_before_its_end;
            }
        }
    )*};
}

strategies! {
    sequential: Traits {
        name: "sequential", args: &[], concurrent: false, same_process: true, thread_each: false, idle_threads: 1,
    };
    threading: Traits {
        name: "threading", args: &[], concurrent: true, same_process: true, thread_each: true, idle_threads: 1 + 16,
    };
    thread_pool: Traits {
        name: "thread-pool", args: &[], concurrent: true, same_process: true, thread_each: true, idle_threads: 1 + 4,
    };
    event_loop: Traits {
        name: "event-loop", args: &[], concurrent: true, same_process: true, thread_each: false, idle_threads: 1,
    };
    event_loops: Traits {
        name: "event-loops", args: &[], concurrent: true, same_process: true, thread_each: false, idle_threads: 4,
    };
    forking: Traits {
        name: "forking", args: &[], concurrent: true, same_process: false, thread_each: true, idle_threads: 1,
    };
    preforking: Traits {
        name: "preforking", args: &[], concurrent: true, same_process: false, thread_each: true, idle_threads: 1,
    };
    preforking_event_loop: Traits {
        name: "preforking", args: &["--inner", "event-loop"],
        concurrent: true, same_process: false, thread_each: false, idle_threads: 1,
    };
    preforking_event_loops: Traits {
        name: "preforking", args: &["--inner", "event-loops"],
        concurrent: true, same_process: false, thread_each: false, idle_threads: 1,
    };
    request_sequential: Traits {
        name: "sequential", args: &["--as", "request"],
        concurrent: false, same_process: true, thread_each: false, idle_threads: 1,
    };
    request_threading: Traits {
        name: "threading", args: &["--as", "request"],
        concurrent: true, same_process: true, thread_each: false, idle_threads: 1 + 16,
    };
    request_thread_pool: Traits {
        name: "thread-pool", args: &["--as", "request"],
        concurrent: true, same_process: true, thread_each: false, idle_threads: 1 + 4,
    };
    request_forking: Traits {
        name: "forking", args: &["--as", "request"],
        concurrent: true, same_process: false, thread_each: true, idle_threads: 1,
    };
    request_preforking: Traits {
        name: "preforking", args: &["--as", "request"],
        concurrent: true, same_process: false, thread_each: false, idle_threads: 1,
    };
    request_preforking_pool: Traits {
        name: "preforking", args: &["--as", "request", "--inner", "thread-pool"],
        concurrent: true, same_process: false, thread_each: false, idle_threads: 1,
    };
    protocol_sequential: Traits {
        name: "sequential", args: &["--as", "protocol"],
        concurrent: false, same_process: true, thread_each: false, idle_threads: 1,
    };
    protocol_threading: Traits {
        name: "threading", args: &["--as", "protocol"],
        concurrent: true, same_process: true, thread_each: true, idle_threads: 1 + 16,
    };
    protocol_thread_pool: Traits {
        name: "thread-pool", args: &["--as", "protocol"],
        concurrent: true, same_process: true, thread_each: true, idle_threads: 1 + 4,
    };
    protocol_forking: Traits {
        name: "forking", args: &["--as", "protocol"],
        concurrent: true, same_process: false, thread_each: true, idle_threads: 1,
    };
    protocol_preforking: Traits {
        name: "preforking", args: &["--as", "protocol"],
        concurrent: true, same_process: false, thread_each: true, idle_threads: 1,
    };
}
