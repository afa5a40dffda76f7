use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::Arc;
use std::thread;

use super::Permit;
use crate::config::ServerSettings;
use crate::lifecycle::{Core, Hooks};

fn core(limit: usize) -> Arc<Core> {
    Core::new(ServerSettings::default(), Hooks::default(), limit, usize::MAX).unwrap()
}

#[test]
fn no_more_permits_are_out_than_the_limit_allows() {
    let (core, most, taken) = (core(3), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let takers: Vec<_> = (0..8)
        .map(|_| {
            let (core, most, taken) = (core.clone(), most.clone(), taken.clone());
            thread::spawn(move || {
                for _ in 0..5_000 {
                    if let Some(_permit) = Permit::take(&core) {
                        most.fetch_max(taken.fetch_add(1, SeqCst) + 1, SeqCst);
                        taken.fetch_sub(1, SeqCst);
                    }
                }
            })
        })
        .collect();
    takers.into_iter().for_each(|taker| taker.join().unwrap());
    assert!((1..=3).contains(&most.load(SeqCst)));
    assert_eq!(core.admission.permits.active(), 0);
}

#[test]
fn a_permit_gives_itself_back_in_a_panic_too() {
    let core = core(1);
    let theirs = core.clone();
    let panicked = thread::spawn(move || {
        let _permit = Permit::take(&theirs).unwrap();
        assert!(Permit::take(&theirs).is_none());
        panic!("with a permit in hand");
    });
    assert!(panicked.join().is_err());
    assert!(Permit::take(&core).is_some());
}

#[test]
fn a_lower_limit_holds_once_enough_have_ended() {
    let core = core(3);
    let (a, b, c) = (Permit::take(&core).unwrap(), Permit::take(&core).unwrap(), Permit::take(&core).unwrap());
    core.admission.permits.set_limit(1);
    drop((a, b));
    assert!(core.admission.permits.full());
    assert!(Permit::take(&core).is_none());
    drop(c);
    assert!(!core.admission.permits.full());
    let _one = Permit::take(&core).unwrap();
    assert!(Permit::take(&core).is_none());
}
