use std::io::{Read, Write};
use std::thread;
use std::time::{Duration, Instant};

use crate::connection::Connection;

/// A writer's thread may be held up between queuing its message and waking the connection.
#[test]
fn a_wake_up_that_comes_late_is_cleared() {
    let (conn, _client) = Connection::pair().unwrap();
    let _writer = conn.writer().unwrap();
    let wire = conn.wire();
    let mailbox = wire.mailbox.get().unwrap();
    mailbox.wake_late(); // the message has been taken already
    wire.flush_mailbox(&mut conn.output.borrow_mut()).unwrap();
    let deadline = || {
        let why = crate::config::LimitExceeded { limit: super::Limit::Idle, after: Duration::from_millis(20) };
        Some(super::Deadline { at: Instant::now() + why.after, why })
    };
    wire.wait(false, None, None, deadline()).unwrap();
    let by = deadline();
    wire.wait(false, None, None, by).unwrap();
    assert!(wire.check(by).is_err(), "the second wait waits");
}

#[test]
fn a_message_to_a_connection_that_waits_wakes_no_thread() {
    let waits: [fn(&mut Connection); 2] = [|conn| drop(conn.next_line()), |conn| drop(conn.wait())];
    for wait in waits {
        let (mut conn, mut client) = Connection::pair().unwrap();
        let writer = conn.writer().unwrap();
        let messages = conn.wire().mailbox.get().unwrap().clone();
        let waiting = thread::spawn(move || {
            wait(&mut conn);
            conn
        });
        while !messages.shortcut.is_open() {
            thread::yield_now();
        }
        writer.send(*b"news").unwrap();
        let mut news = [0; 4];
        client.read_exact(&mut news).unwrap();
        assert!(news == *b"news" && !messages.is_woken() && writer.queued() == 0);
        client.write_all(b"bye\n").unwrap();
        let conn = waiting.join().unwrap();
        assert_eq!(conn.wire().moved.get().written, 4);
        assert!(!messages.shortcut.is_open());
    }
}

#[test]
fn a_broken_wire_stays_broken() {
    let (mut conn, client) = Connection::pair().unwrap();
    drop(client);
    assert!(conn.write_all(b"x").and_then(|()| conn.flush()).is_err());
    assert!(conn.wire().is_broken());
}

#[test]
fn a_connection_stays_small() {
    let size = std::mem::size_of::<super::Wire>();
    assert!(size <= 232, "{size} bytes");
    let size = std::mem::size_of::<Connection>();
    assert!(size <= 384, "{size} bytes");
}

#[test]
fn a_thread_gives_its_read_buffer_to_its_next_connection() {
    let (mut first, _client) = Connection::pair().unwrap();
    let (place, size) = (first.scratch().0.as_ptr(), first.scratch().0.len());
    drop(first);
    // It would be here, if it had been given back.
    let other = vec![0_u8; size];
    let (mut second, _client) = Connection::pair().unwrap();
    assert_eq!(second.scratch().0.as_ptr(), place);
    assert_ne!(other.as_ptr(), place);
}

/// A line is a request of its own. The limit of a request that is under way does not begin anew.
#[test]
fn a_request_lasts_from_the_first_byte_of_a_line_until_the_next_line_is_asked_for() {
    let (mut conn, mut client) = Connection::pair().unwrap();
    conn.set_request_timeout(Some(Duration::from_secs(3600)));
    conn.set_read_timeout(Some(Duration::from_millis(1)));
    client.write_all(b"first\nsecond\nhalf").unwrap();
    let mut next = || {
        let line = conn.next_line();
        (line.ok().flatten(), conn.wire().request_since.get().unwrap())
    };
    let (first, second) = (next(), next());
    assert_eq!((first.0.as_deref(), second.0.as_deref()), (Some("first"), Some("second")));
    let (half, again) = (next(), next());
    assert!(first.1 < second.1 && second.1 < half.1, "a line that is buffered already begins when it is asked for");
    assert!(half == again && half.0.is_none(), "after a time limit, the request is still the same");
    client.write_all(b"!\n").unwrap();
    assert_eq!(next(), (Some("half!".to_owned()), half.1));
}

#[test]
fn between_two_requests_no_request_limit_runs() {
    let (mut conn, client) = Connection::pair().unwrap();
    conn.set_request_timeout(Some(Duration::from_millis(1)));
    conn.set_idle_timeout(Some(Duration::from_millis(20)));
    let limit = |result: std::io::Result<Option<String>>| result.err().as_ref().and_then(super::Limit::of);
    assert_eq!(limit(conn.next_line()), Some(super::Limit::Idle));
    assert_eq!(limit(conn.next_line()), Some(super::Limit::Idle));
    assert_eq!(limit(conn.next_request().map(|_| None)), Some(super::Limit::Idle));
    assert_eq!(limit(conn.next_line()), Some(super::Limit::Request), "the handler has said that a request has begun");
    drop(client);
}
