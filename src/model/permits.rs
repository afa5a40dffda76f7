//! Permits alone: never more than the limit, whatever changes meanwhile.

use std::sync::Arc;

use super::{check, join_all};
use crate::admit::Permit;
use crate::config::ServerSettings;
use crate::lifecycle::{Core, Hooks};
use crate::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use crate::sync::thread::spawn;

fn core(limit: usize) -> Arc<Core> {
    Core::new(ServerSettings::default(), Hooks::default(), limit, usize::MAX).unwrap()
}

#[test]
fn there_are_never_more_permits_than_the_limit() {
    check(|| {
        let (core, out) = (core(2), Arc::new(AtomicUsize::new(0)));
        let take = |_| {
            let (core, out) = (core.clone(), out.clone());
            spawn(move || {
                for _ in 0..2 {
                    let Some(_permit) = Permit::take(&core) else { continue };
                    assert!(out.fetch_add(1, SeqCst) < 2);
                    out.fetch_sub(1, SeqCst);
                }
            })
        };
        join_all((0..3).map(take).collect());
        assert_eq!(core.admission.permits.active(), 0);
        let again: Vec<_> = (0..3).map(|_| Permit::take(&core)).collect();
        assert_eq!(again.iter().flatten().count(), 2, "none is lost");
    });
}

#[test]
fn a_changed_limit_holds_for_permits_taken_afterwards() {
    check(|| {
        let core = core(1);
        let held = Permit::take(&core).unwrap();
        let theirs = core.clone();
        let changes = spawn(move || {
            theirs.admission.permits.set_limit(3);
            theirs.admission.permits.set_limit(2);
        });
        let takes: Vec<_> = (0..3).map(|_| core.clone()).map(|core| spawn(move || Permit::take(&core))).collect();
        changes.join().unwrap();
        let mut permits: Vec<_> = join_all(takes).into_iter().flatten().collect();
        permits.push(held);
        assert!(permits.len() <= 3);
        assert_eq!(core.admission.permits.active(), permits.len());
        assert_eq!(Permit::take(&core).is_some(), permits.len() < 2);
    });
}
