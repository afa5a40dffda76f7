//! Where handlers run.

use std::collections::HashSet;

use crate::support::{Client, Server};
use crate::Traits;

pub(crate) fn runs_handlers_where_it_says(of: &Traits) {
    let server = of.start(&[]);
    let master = server.pid().to_string();
    assert_eq!(server.ask("MASTER"), master);

    let places = places_side_by_side(&server, if of.concurrent { 4 } else { 1 });
    let processes: HashSet<&str> = places.iter().map(|(pid, _)| pid.as_str()).collect();
    let threads: HashSet<&str> = places.iter().map(|(_, tid)| tid.as_str()).collect();
    if of.same_process {
        assert_eq!(processes, HashSet::from([master.as_str()]));
    } else {
        assert!(!processes.contains(master.as_str()), "{places:?} in the master {master}");
    }
    if of.thread_each {
        assert_eq!(threads.len(), places.len(), "{places:?}: not a thread each");
    } else if of.same_process {
        assert!(threads.len() <= of.idle_threads, "{places:?}: more threads serve than there should be");
    }
}

/// The process and the thread of this number of connections that are open at once.
fn places_side_by_side(server: &Server, clients: usize) -> Vec<(String, String)> {
    let mut clients: Vec<Client> = (0..clients).map(|_| server.connect()).collect();
    let place = |client: &mut Client| {
        let answer = client.ask("PID");
        let (pid, tid) = answer.split_once(' ').unwrap_or_else(|| panic!("PID was answered with {answer:?}"));
        (pid.to_owned(), tid.to_owned())
    };
    clients.iter_mut().map(place).collect()
}
