//! The mailbox: no message stays without a wake-up, and no wake-up stays without a message.

use std::io::Read;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use super::{check, join_all};
use crate::connection::Event;
use crate::mailbox::{Bell, Mailbox};
use crate::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use crate::sync::thread::{spawn, JoinHandle};
use crate::sys::{self, model::act};
use crate::Connection;

const SENDERS: usize = 2;
const EACH: usize = 2;

fn senders(mailbox: &Arc<Mailbox<usize>>) -> Vec<JoinHandle<()>> {
    let start = |_| {
        let mailbox = mailbox.clone();
        spawn(move || (0..EACH).for_each(|n| mailbox.send(n).unwrap()))
    };
    (0..SENDERS).map(start).collect()
}

/// Without a limit, so that a wake-up that is lost is a deadlock.
fn wait(mailbox: &Mailbox<usize>) {
    sys::poll([Some(mailbox.as_fd())], None, None).unwrap();
}

fn is_readable(mailbox: &Mailbox<usize>) -> bool {
    !sys::poll([Some(mailbox.as_fd())], None, Some(Duration::ZERO)).unwrap().none()
}

/// As an event loop does: it sleeps, and takes all that is there.
#[test]
fn no_message_is_left_behind_a_sleeping_owner() {
    check(|| {
        let mailbox = Arc::new(Mailbox::new().unwrap());
        let senders = senders(&mailbox);
        let (mut taken, mut sleeps) = (0, 0);
        while taken < SENDERS * EACH {
            wait(&mailbox);
            sleeps += 1;
            taken += mailbox.take_all().len();
        }
        join_all(senders);
        assert!(sleeps <= 2 * SENDERS * EACH, "{sleeps} wake-ups for {taken} messages");
    });
}

/// As a connection does: it looks in passing, and sleeps when it has nothing else to do.
#[test]
fn no_message_is_left_behind_an_owner_that_looks_in_passing() {
    check(|| {
        let mailbox = Arc::new(Mailbox::new().unwrap());
        let senders = senders(&mailbox);
        let mut sleeps = 0;
        let mut taken = Vec::new();
        loop {
            mailbox.clear_if_woken();
            taken.extend(std::iter::from_fn(|| mailbox.take()));
            if taken.len() == SENDERS * EACH {
                break;
            }
            wait(&mailbox);
            sleeps += 1;
            mailbox.clear();
        }
        join_all(senders);
        mailbox.clear();
        assert!(!is_readable(&mailbox), "an owner that has cleared it sleeps");
        assert!(sleeps <= 2 * SENDERS * EACH, "{sleeps} wake-ups for {taken:?}");
    });
}

/// What a handler does that waits for its peer and a queue: it looks at the mark, sleeps, and clears what came late.
#[test]
fn no_call_is_left_behind_a_handler_that_waits() {
    check(|| {
        let (bell, sent) = (Arc::new(Bell::new().unwrap()), Arc::new(AtomicUsize::new(0)));
        let senders: Vec<_> = (0..SENDERS)
            .map(|_| {
                let (bell, sent) = (bell.clone(), sent.clone());
                spawn(move || {
                    for _ in 0..EACH {
                        sent.fetch_add(1, SeqCst);
                        bell.ring();
                    }
                })
            })
            .collect();
        let mut sleeps = 0;
        loop {
            if bell.take() && sent.load(SeqCst) == SENDERS * EACH {
                break;
            }
            if bell.is_woken() {
                continue;
            }
            sys::poll([Some(bell.as_fd())], None, None).unwrap();
            sleeps += 1;
            bell.clear_late();
        }
        join_all(senders);
        assert!(sleeps <= 2 * SENDERS * EACH, "{sleeps} wake-ups");
    });
}

/// A thread waits for its peer while two others send: past the queue, or into it.
#[test]
fn messages_to_a_connection_that_waits_arrive_in_order() {
    check(|| {
        let (mut conn, mut client) = Connection::pair().unwrap();
        let writer = conn.writer().unwrap();
        let serving = spawn(move || while conn.wait().unwrap() != Event::End {});
        let send = |name| {
            let writer = writer.clone();
            spawn(move || (0..EACH).for_each(|n| writer.send(format!("{name}{n} ").into_bytes()).unwrap()))
        };
        join_all(vec![send('a'), send('b')]);
        act(|| client.shutdown(Shutdown::Write).unwrap());
        serving.join().unwrap();
        let mut heard = String::new();
        client.read_to_string(&mut heard).unwrap();
        for name in ['a', 'b'] {
            let of_one: Vec<_> = heard.split_whitespace().filter(|word| word.starts_with(name)).collect();
            assert_eq!(of_one, (0..EACH).map(|n| format!("{name}{n}")).collect::<Vec<_>>(), "{heard}");
        }
    });
}

#[test]
fn no_more_bytes_wait_than_the_limit() {
    const LIMIT: usize = 2;
    check(|| {
        let mailbox = Arc::new(Mailbox::new().unwrap());
        let senders: Vec<_> = (0..3)
            .map(|n| {
                let mailbox = mailbox.clone();
                spawn(move || {
                    let fits = mailbox.reserve(1, LIMIT);
                    fits.then(|| mailbox.send(n).unwrap()).is_some()
                })
            })
            .collect();
        let mut taken = 0;
        while taken < LIMIT {
            wait(&mailbox);
            for _ in mailbox.take_all() {
                assert!(mailbox.reserved() <= LIMIT);
                mailbox.release(1);
                taken += 1;
            }
        }
        let sent = join_all(senders).into_iter().filter(|sent| *sent).count();
        assert!(sent >= LIMIT, "{sent} of 3 fit");
        assert_eq!(mailbox.reserved(), sent - taken);
    });
}
