//! The switch and the wait for the end, without a server.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use super::check;
use crate::config::ServerSettings;
use crate::lifecycle::{Control, Core, Hooks};
use crate::sync::thread::spawn;
use crate::sys;

const LIMIT: Duration = Duration::from_secs(10);

fn control() -> Arc<Control> {
    Arc::new(Control::apart())
}

/// Checks that the switch, its eventfds and the time of the request say the same.
fn assert_whole(control: &Control) {
    let shows = |fd| sys::poll([Some(fd)], None, Some(Duration::ZERO)).unwrap().has(0);
    assert_eq!(shows(control.stop_fd()), control.stopping());
    assert_eq!(shows(control.now.as_fd()), control.is_urgent());
    assert_eq!(control.drain_deadline(LIMIT).is_some(), control.stopping());
}

#[test]
fn stops_that_meet_a_beginning_are_whole_or_over() {
    check(|| {
        let control = control();
        control.request_stop();
        control.end(); // a run has obeyed it
        let (first, second) = (control.clone(), control.clone());
        let asks = [spawn(move || first.request_stop()), spawn(move || second.request_stop_now())];
        control.begin();
        asks.into_iter().for_each(|ask| ask.join().unwrap());
        assert_whole(&control);
    });
}

#[test]
fn a_stop_that_nobody_has_obeyed_ends_the_next_run() {
    check(|| {
        let control = control();
        let theirs = control.clone();
        let asks = spawn(move || theirs.request_stop());
        control.begin();
        control.end();
        control.begin();
        asks.join().unwrap();
        // It came in the first run and was obeyed by it, or it holds.
        assert_whole(&control);
        control.end();
        let obeyed = control.stopping();
        control.request_stop();
        control.begin();
        assert_whole(&control);
        assert_eq!(control.stopping(), !obeyed);
    });
}

#[test]
fn a_thread_that_waits_for_the_end_hears_of_it() {
    check(|| {
        let core = Core::new(ServerSettings::default(), Hooks::default(), 1, 1).unwrap();
        let run = core.begin();
        let waits: Vec<_> = [None, Some(LIMIT)]
            .into_iter()
            .map(|t| (core.clone(), t))
            .map(|(core, t)| spawn(move || core.wait(t)))
            .collect();
        drop(run);
        let ended: Vec<_> = super::join_all(waits);
        assert!(ended[0]);
        assert!(!core.run.is_serving());
    });
}
