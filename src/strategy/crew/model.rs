//! Scenarios of crews whose members die, and whose threads fail to start.

use std::sync::Arc;
use std::time::Duration;

use super::{AtomicUsize, Crew, Member, Mutex, SeqCst, ThreadSettings};
use crate::accept::Acceptor;
use crate::config::ServerSettings;
use crate::lifecycle::{Core, Hooks};
use crate::listen::Listener;
use crate::model::{check, join_all, Door, Stay, Tally, Visit};
use crate::strategy::Sequential;
use crate::sync::model::fail_spawns;
use crate::sync::thread::spawn;
use crate::sys::socket::SockType;

/// The listeners live as long as a server's would.
fn crew(size: Option<usize>, tally: &Arc<Tally>) -> (Arc<Crew>, Door, Arc<Vec<Listener>>) {
    let (door, listener) = Door::open();
    let listeners = Arc::new(vec![Listener::adopt(listener.into(), SockType::Stream).unwrap()]);
    let config = ServerSettings { drain_timeout: Duration::from_secs(1 << 31), ..ServerSettings::default() };
    let core = Core::new(config, Hooks::default(), 2, usize::MAX).unwrap();
    let acceptor = Acceptor::new(&core, &listeners, Arc::new(Visit(tally.clone(), Stay::UntilReleased)));
    let settings =
        ThreadSettings { name: "crew".into(), stack_size: None, keep_alive: Duration::from_secs(1), spare: 2, size };
    let (members, waiting) = (AtomicUsize::new(0), AtomicUsize::new(0));
    (Arc::new(Crew { acceptor, settings, members, waiting, fault: Mutex::new(None) }), door, listeners)
}

/// Makes a member as `hire` does, but without a thread.
fn member(crew: &Arc<Crew>) -> Member {
    crew.members.fetch_add(1, SeqCst);
    crew.acceptor.core().run.workers.fetch_add(1, SeqCst);
    crew.waiting.fetch_add(1, SeqCst);
    Member { crew: crew.clone(), waits: true, quiet: false }
}

/// Two connections stay at the same time. So a crew of three, where one member does nothing, is complete
/// again, and a crew that grows has a waiting member again.
#[test]
fn a_dead_member_is_replaced_though_threads_fail_to_start() {
    for size in [Some(3), None] {
        check(move || {
            let tally = Arc::new(Tally::default());
            let (crew, door, listeners) = crew(size, &tally);
            let core = crew.acceptor.core().clone();
            let dies = member(&crew);
            let stays = size.map(|_| member(&crew));
            fail_spawns(usize::from(size.is_some()) * 2);
            let supervisor = spawn(move || crew.supervise());
            let clients = [(); 2].map(|()| door.clone()).map(|door| spawn(move || door.connect()));
            drop(dies);
            tally.until(|counts| counts.active == 2);
            core.control.request_stop();
            tally.release();
            drop(stays);
            supervisor.join().unwrap().unwrap();
            assert_eq!(crate::server::drain(&core, &Sequential).unwrap(), 0);
            assert_eq!(core.admission.permits.active(), 0);
            drop((join_all(clients.into()), listeners));
        });
    }
}
