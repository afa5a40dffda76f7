use std::thread::{self, sleep};
use std::time::Instant;

use super::*;
use crate::config::ServerSettings;
use crate::handler::handler;
use crate::lifecycle::{Core, Hooks};

fn crew(size: Option<usize>) -> Arc<Crew> {
    let core = Core::new(ServerSettings::default(), Hooks::default(), 100, usize::MAX).unwrap();
    let listeners = Arc::default();
    std::mem::forget(Arc::clone(&listeners)); // like a server that is never dropped
    let acceptor = Acceptor::new(&core, &listeners, Arc::new(handler(|_| Ok(()))));
    let settings =
        ThreadSettings { name: "crew".into(), stack_size: None, keep_alive: Duration::from_secs(60), spare: 2, size };
    let (members, waiting) = (AtomicUsize::new(0), AtomicUsize::new(0));
    Arc::new(Crew { acceptor, settings, members, waiting, fault: Mutex::new(None) })
}

fn until(what: &str, done: impl Fn() -> bool) {
    let by = Instant::now() + Duration::from_secs(30);
    while !done() {
        assert!(Instant::now() < by, "never: {what}");
        sleep(Duration::from_millis(1));
    }
}

/// Makes a member as `hire` does, but without a thread.
fn member(crew: &Arc<Crew>) -> Member {
    crew.members.fetch_add(1, SeqCst);
    crew.acceptor.core().run.workers.fetch_add(1, SeqCst);
    crew.waiting.fetch_add(1, SeqCst);
    Member { crew: crew.clone(), waits: true, quiet: false }
}

#[test]
fn a_dead_member_is_replaced_and_all_leave_at_the_stop() {
    for size in [Some(3), None] {
        let crew = crew(size);
        let core = crew.acceptor.core().clone();
        let dies = member(&crew);
        let theirs = crew.clone();
        let supervisor = thread::spawn(move || theirs.supervise());
        let whole =
            || [&crew.members, &crew.waiting, &core.run.workers].iter().all(|n| n.load(SeqCst) == size.unwrap_or(1));
        until("it is whole", whole);
        sleep(Duration::from_millis(20)); // so that the supervisor waits
        drop(dies);
        until("it is whole again", whole);
        core.control.request_stop();
        supervisor.join().unwrap().unwrap();
        until("all have left", || core.run.workers.load(SeqCst) == 0);
    }
}

#[test]
fn a_dropped_member_leaves_the_counts_and_wakes_the_supervisor() {
    let crew = crew(Some(1));
    let core = crew.acceptor.core().clone();
    core.control.events.clear();
    drop(member(&crew));
    assert_eq!((crew.members.load(SeqCst), crew.waiting.load(SeqCst), core.run.workers.load(SeqCst)), (0, 0, 0));
    let heard = sys::poll([Some(core.control.events.as_fd())], None, Some(Duration::ZERO)).unwrap();
    assert!(heard.has(0));
}

#[test]
fn the_last_waiting_member_never_retires() {
    let crew = crew(None);
    let (mut a, mut b) = (member(&crew), member(&crew));
    assert!(a.retire_unless_last());
    assert!(!b.retire_unless_last());
    drop((a, b));
    assert_eq!((crew.members.load(SeqCst), crew.waiting.load(SeqCst)), (0, 0));
}

#[test]
fn a_member_that_is_done_waits_again_unless_enough_others_wait() {
    let crew = crew(None);
    let mut members: Vec<_> = (0..3).map(|_| member(&crew)).collect();
    members[0].stop_waiting();
    assert_eq!(crew.waiting.load(SeqCst), 2);
    assert!(!members[0].wait_again(), "two spare ones are enough");
    assert_eq!(crew.waiting.load(SeqCst), 2);
    members[1].stop_waiting();
    assert!(members[1].wait_again());
    assert_eq!(crew.waiting.load(SeqCst), 2);
}

#[test]
fn a_fault_ends_the_crew_with_its_cause() {
    let crew = crew(Some(2));
    let theirs = crew.clone();
    let supervisor = thread::spawn(move || theirs.supervise());
    until("it is whole", || crew.members.load(SeqCst) == 2);
    crew.fail(Error::system("do this")(io::Error::other("first")));
    crew.fail(Error::system("do that")(io::Error::other("second")));
    let fault = supervisor.join().unwrap().unwrap_err();
    assert_eq!(fault.to_string(), "cannot do this: first");
    until("all have left", || crew.members.load(SeqCst) == 0);
}
