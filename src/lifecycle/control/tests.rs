use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::lifecycle::Control;
use crate::sys;

const LIMIT: Duration = Duration::from_secs(10);

/// True if the level, the eventfd and the time of the request agree.
fn is_consistent(control: &Control) -> bool {
    let shown = sys::poll([Some(control.stop_fd())], None, Some(Duration::ZERO)).unwrap().has(0);
    shown == control.stopping() && control.drain_deadline(LIMIT).is_some() == control.stopping()
}

fn control() -> Control {
    Control::apart()
}

#[test]
fn a_stop_holds_until_a_run_has_obeyed_it() {
    let control = control();
    control.request_stop();
    control.begin();
    assert!(control.stopping(), "asked for before the run");
    control.end();
    assert!(control.stopping(), "until the next run begins");
    control.begin();
    assert!(!control.stopping());
    assert!(is_consistent(&control));
}

#[test]
fn a_run_that_ends_by_itself_forgets_no_later_stop() {
    let control = control();
    control.begin();
    control.end();
    control.request_stop();
    control.begin();
    assert!(control.stopping());
}

#[test]
fn a_late_stop_is_over_with_the_run_it_was_late_for() {
    let control = control();
    control.begin();
    control.request_stop();
    control.end();
    control.request_stop();
    control.request_stop_now();
    control.begin();
    assert!(!control.stopping());
    assert!(is_consistent(&control));
}

#[test]
fn urgency_only_grows_and_the_drain_counts_from_the_first_request() {
    let control = control();
    assert_eq!(control.drain_deadline(LIMIT), None);
    control.request_stop();
    let drain = control.drain_deadline(LIMIT).unwrap();
    control.request_stop();
    assert_eq!(control.drain_deadline(LIMIT), Some(drain));
    control.request_stop_now();
    assert_eq!(control.drain_deadline(LIMIT), Some(drain - LIMIT));
    control.request_stop();
    assert_eq!(control.drain_deadline(LIMIT), Some(drain - LIMIT));
}

#[test]
fn a_pause_is_no_stop() {
    let control = control();
    control.pause();
    assert!(control.paused() && !control.stopping());
    control.resume();
    assert!(!control.paused());
}

/// A request that meets the beginning of a run counts for the run before or for this run, never for a half of
/// each.
#[test]
fn a_stop_that_meets_a_beginning_is_whole() {
    const ROUNDS: usize = 5_000;
    let control = Arc::new(control());
    let round = Arc::new(AtomicUsize::new(0)); // odd: both go; even: the other has asked
    let asks = thread::spawn({
        let (control, round) = (control.clone(), round.clone());
        move || {
            for n in 0..ROUNDS {
                wait_for(&round, 2 * n + 1);
                control.request_stop();
                round.store(2 * n + 2, SeqCst);
            }
        }
    });
    for n in 0..ROUNDS {
        control.request_stop();
        control.end();
        round.store(2 * n + 1, SeqCst);
        control.begin();
        wait_for(&round, 2 * n + 2);
        assert!(is_consistent(&control), "round {n}: {control:?}");
    }
    asks.join().unwrap();
}

fn wait_for(round: &AtomicUsize, due: usize) {
    while round.load(SeqCst) != due {
        thread::yield_now();
    }
}

#[test]
fn one_caller_wakes_for_each_stop() {
    let control = control();
    assert_eq!(control.first_to_wake(true), (true, false), "those without a request are spared");
    assert_eq!(control.first_to_wake(true), (false, false));
    assert_eq!(control.first_to_wake(false), (false, true), "the server stops as well");
    assert_eq!(control.first_to_wake(false), (false, false));
    control.request_stop();
    control.end();
    control.begin();
    assert_eq!(control.first_to_wake(false), (true, true), "another run");
}
