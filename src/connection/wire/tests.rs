use std::io::Write;
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
fn a_broken_wire_stays_broken() {
    let (mut conn, client) = Connection::pair().unwrap();
    drop(client);
    assert!(conn.write_all(b"x").and_then(|()| conn.flush()).is_err());
    assert!(conn.wire().is_broken());
}

#[test]
fn a_connection_stays_small() {
    let size = std::mem::size_of::<super::Wire>();
    assert!(size <= 264, "{size} bytes");
    let size = std::mem::size_of::<Connection>();
    assert!(size <= 416, "{size} bytes");
}
