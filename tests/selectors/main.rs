//! The selectors: one suite, run on each back end. The names that begin with `l` and a number are the cases of Python's
//! own suite for its `selectors`, written anew.
//!
//! A new case is a function and its name in `cases!`. Those under `alone` change what the whole process shares, so
//! this executable starts itself again for each.

#[path = "../kit/mod.rs"]
mod kit;
#[path = "../support/mod.rs"]
mod support;

mod calls;
mod closed;
mod keys;
mod many;
mod ready;
mod signals;
mod wakers;

use std::env;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::Duration;

use nix::time::{clock_gettime, ClockId};
use socketserver::selectors::{Backend, Events, Selector};

const READ: Events = Events::READ;
const WRITE: Events = Events::WRITE;
const NOW: Option<Duration> = Some(Duration::ZERO);
/// Long enough for all that shall come.
const SOON: Option<Duration> = Some(Duration::from_secs(30));

fn new<T>(backend: Backend) -> Selector<T> {
    let selector = Selector::with_backend(backend).unwrap();
    assert_eq!(selector.backend(), backend);
    selector
}

fn pair() -> (UnixStream, UnixStream) {
    UnixStream::pair().unwrap()
}

/// What is ready: the data and the events, in the order of the numbers.
fn told<T: Clone>(selector: &mut Selector<T>, timeout: Option<Duration>) -> Vec<(T, Events)> {
    let mut ready = selector.select(timeout).unwrap();
    ready.sort_by_key(|(key, _)| key.fd);
    ready.into_iter().map(|(key, events)| (key.data, events)).collect()
}

/// Processor time of this thread while it does this: a wait that spins shows.
fn processor_time(act: impl FnOnce()) -> Duration {
    let now = || Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap());
    let before = now();
    act();
    now() - before
}

const ROLE: &str = "SOCKETSERVER_SELECTORS_ROLE";

type Case = (&'static str, fn(Backend));

/// Not a test of its own: what the child processes run.
#[test]
fn role() {
    let Ok(role) = env::var(ROLE) else { return };
    let (name, backend) = role.split_once(' ').unwrap();
    let backends = [Backend::Epoll, Backend::Poll, Backend::Select];
    let backend = backends.into_iter().find(|b| format!("{b:?}") == backend).unwrap();
    let all = ALONE.iter().chain(calls::TRACED);
    let (_, case) = all.into_iter().find(|(n, _)| *n == name).unwrap();
    case(backend);
}

/// This executable, to run one case by itself.
fn in_its_own_process(mut command: Command, name: &str, backend: Backend) {
    command.args(["--exact", "role", "--nocapture"]).env(ROLE, format!("{name} {backend:?}"));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

macro_rules! cases {
    ($backend:ident: $($file:ident: $($case:ident)*;)*) => {$($(
        #[test]
        fn $case() {
            crate::$file::$case(socketserver::selectors::Backend::$backend);
        }
    )*)*};
}

macro_rules! alone {
    ($($file:ident: $($case:ident)*;)*) => {
        const ALONE: &[Case] = &[$($((stringify!($case), $file::$case)),*),*];

        macro_rules! cases_alone {
            ($backend:ident) => {$($(
                #[test]
                fn $case() {
                    let this = std::process::Command::new(std::env::current_exe().unwrap());
                    let backend = socketserver::selectors::Backend::$backend;
                    crate::in_its_own_process(this, stringify!($case), backend);
                }
            )*)*};
        }
    };
}

alone! {
    keys: l8_a_dropped_selector_leaves_nothing_behind l13_the_end_of_its_scope_ends_it_in_a_panic_too;
    many: l20_takes_as_many_as_the_process_may_have a16_numbers_from_1024_on;
}

macro_rules! backends {
    ($($name:ident: $backend:ident;)*) => {$(
        mod $name {
            cases_alone!($backend);
            cases! { $backend:
                keys: l1_registers_once_and_for_something l2_unregisters_once l3_unregisters_after_a_close
                    l4_unregisters_after_a_close_and_another_use l5_unregisters_by_key_after_its_owner_went
                    l6_modifies_events_and_data l7_a_failed_change_leaves_it_unregistered l9_finds_keys
                    l10_lists_keys_as_they_are_now l14_lends_its_epoll_descriptor
                    l21_refuses_what_cannot_be_waited_for l22_refuses_a_bad_descriptor
                    errors_name_the_descriptor_and_the_way_out;
                ready: l11_tells_what_is_ready_and_was_asked_for l12_tells_both_events_at_once
                    l15_brings_each_message_to_its_pair l16_tells_nothing_where_nothing_is_registered
                    l17_waits_as_long_as_it_is_told_to l23_waits_although_nothing_is_registered
                    is_level_triggered shows_a_hang_up_as_what_was_asked_for fills_a_list_of_the_caller_s
                    knows_a_key_of_before_in_the_same_pass;
                closed: a_closed_descriptor_is_never_told a_duplicate_does_not_keep_a_closed_descriptor
                    a_duplicate_is_silent_after_unregistering a_number_used_again_is_another_descriptor_s
                    a_number_that_comes_back_is_registered_anew
                    a_late_event_of_the_old_one_is_not_told_for_the_new;
                signals: l18_a_handler_that_wakes_ends_the_wait l19_a_handler_that_does_not_leaves_the_time_as_it_was;
                wakers: wakes_from_another_thread wakes_the_next_select counts_as_one tells_what_is_ready_besides
                    waits_for_ever_and_wakes outlives_its_selector no_wake_is_lost moves_to_another_thread;
                calls: uses_its_own_system_call a_change_of_data_is_no_system_call what_the_system_refuses_is_an_error;
            }
        }
    )*};
}

backends! {
    epoll: Epoll;
    poll: Poll;
    select: Select;
}
