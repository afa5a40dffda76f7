//! Stops of servers that serve by `handle_request`: a stop stays until a run has drained.

use std::io::Write;
use std::thread;
use std::time::Duration;

use crate::kit::{connect, expect, read_all, strategies, Lines, LONG};
use socketserver::{datagram_handler, handler, ServerBuilder};

const ANY: &str = "127.0.0.1:0";

/// As Python's documentation has it: single requests until a stop, then a run that drains.
#[test]
fn a_stop_of_single_requests_stays_until_a_run_has_drained() {
    for (name, strategy) in strategies() {
        let mut server = ServerBuilder::new().strategy(strategy).bind(ANY, Lines).unwrap();
        let (addr, handle) = (server.local_addr().socket_addr().unwrap(), server.handle());
        handle.shutdown();
        let mut queued = connect(addr);
        queued.write_all(b"queued\nquit\n").unwrap();
        for _ in 0..2 {
            assert!(!server.handle_request(None).unwrap(), "{name}");
            handle.shutdown(); // a second one is the same stop
        }
        assert!(handle.is_shutting_down());
        assert_eq!(server.serve_forever().unwrap().served, 1, "{name}: the drain serves the queue");
        assert_eq!(read_all(&mut queued), "queued\n", "{name}");
        let mut client = connect(addr);
        client.write_all(b"again\nquit\n").unwrap();
        assert!(server.handle_request(Some(LONG)).unwrap(), "{name}: that run has ended the stop");
        assert_eq!(read_all(&mut client), "again\n", "{name}");
    }
}

#[test]
fn a_run_after_single_requests_drains_what_they_have_begun() {
    let slow = handler(|conn| {
        conn.send_line("here")?;
        conn.flush()?;
        while !conn.server().is_shutting_down() {
            thread::sleep(Duration::from_millis(1));
        }
        conn.send_line("done")
    });
    let mut server = ServerBuilder::new().bind(ANY, slow).unwrap();
    let mut client = connect(server.local_addr().socket_addr().unwrap());
    assert!(server.handle_request(Some(LONG)).unwrap());
    expect(&mut client, "here\n");
    server.handle().shutdown();
    let report = server.serve_forever().unwrap();
    assert_eq!((report.accepted, report.served, report.drained), (0, 1, 1), "{report}");
    assert_eq!(read_all(&mut client), "done\n");
}

#[test]
fn datagrams_have_the_same_stop() {
    let mut server = ServerBuilder::new().bind_udp(ANY, datagram_handler(|_| Ok(()))).unwrap();
    server.handle().shutdown();
    assert!(!server.handle_request(None).unwrap() && !server.handle_request(None).unwrap());
    server.serve_forever().unwrap();
    std::net::UdpSocket::bind(ANY).unwrap().send_to(b"x", server.local_addr().socket_addr().unwrap()).unwrap();
    assert!(server.handle_request(Some(LONG)).unwrap());
}
