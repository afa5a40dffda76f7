//! What a handler can count on from its connection: buffering, order, the end, addresses.

use crate::kit;
use std::io::{self, BufRead, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use crate::kit::{connect, expect, has_ipv6, read_all, serve, strategies, Folder, AT_ONCE, LONG};
use socketserver::{handler, Addr, Connection, Sequential, ServerBuilder};

/// What has come in, without waiting for more.
fn arrived(client: &mut UnixStream) -> String {
    client.set_nonblocking(true).unwrap();
    let mut got = Vec::new();
    let end = client.read_to_end(&mut got);
    client.set_nonblocking(false).unwrap();
    assert!(end.is_ok() || end.is_err_and(|e| e.kind() == ErrorKind::WouldBlock));
    String::from_utf8(got).unwrap()
}

#[test]
fn output_waits_for_a_flush() {
    let (mut conn, mut client) = Connection::pair().unwrap();
    conn.write_all(b"hello").unwrap();
    assert_eq!(arrived(&mut client), "");
    conn.flush().unwrap();
    assert_eq!(arrived(&mut client), "hello");
}

#[test]
fn output_is_sent_when_the_connection_is_dropped() {
    let (mut conn, mut client) = Connection::pair().unwrap();
    conn.write_all(b"good bye").unwrap();
    assert_eq!(arrived(&mut client), "");
    drop(conn);
    assert_eq!(read_all(&mut client), "good bye");
}

#[test]
fn a_dialogue_needs_no_flush() {
    let (mut conn, mut client) = Connection::pair().unwrap();
    let asked = thread::spawn(move || {
        conn.write_all(b"your name? ").unwrap();
        let name = conn.next_line().unwrap().unwrap();
        write!(conn, "{name}, your age? ").unwrap();
        (name, conn.next_line().unwrap().unwrap())
    });
    expect(&mut client, "your name? ");
    client.write_all(b"Ada\n").unwrap();
    expect(&mut client, "Ada, your age? ");
    client.write_all(b"36\n").unwrap();
    assert_eq!(asked.join().unwrap(), ("Ada".to_owned(), "36".to_owned()));
}

#[test]
fn a_read_that_need_not_wait_sends_nothing() {
    let (mut conn, mut client) = Connection::pair().unwrap();
    client.write_all(b"one\ntwo\n").unwrap();
    assert_eq!(conn.next_line().unwrap().as_deref(), Some("one"));
    conn.write_all(b"1 ").unwrap();
    assert_eq!(conn.next_line().unwrap().as_deref(), Some("two"));
    assert_eq!(arrived(&mut client), "");
    conn.write_all(b"2 ").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(conn.next_line().unwrap(), None);
    assert_eq!(arrived(&mut client), "1 2 ");
}

#[test]
fn output_is_sent_when_its_buffer_is_full() {
    let (mut conn, mut client) = Connection::pair().unwrap();
    for _ in 0..8191 {
        conn.write_all(b"x").unwrap();
    }
    assert_eq!(arrived(&mut client).len(), 0);
    conn.write_all(b"y").unwrap();
    assert_eq!(arrived(&mut client).len(), 8192);
}

#[test]
fn a_large_write_goes_through_whole_and_in_order() {
    let (mut conn, mut client) = Connection::pair().unwrap();
    let large: Vec<u8> = (0..8_u32 << 20).map(|n| (n / 7) as u8).collect();
    let expected = large.clone();
    let writes = thread::spawn(move || {
        conn.write_all(b"first ").unwrap();
        assert_eq!(conn.write(&large).unwrap(), large.len());
        conn.write_all(b" last").unwrap();
    });
    expect(&mut client, "first ");
    let mut got = vec![0; expected.len()];
    client.read_exact(&mut got).unwrap();
    assert!(got == expected);
    assert_eq!(read_all(&mut client), " last");
    writes.join().unwrap();
}

#[test]
fn a_large_read_bypasses_no_buffered_byte() {
    let (mut conn, mut client) = Connection::pair().unwrap();
    client.write_all(b"head\nbody").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(conn.next_line().unwrap().as_deref(), Some("head"));
    let mut body = vec![0; 1 << 20];
    assert_eq!(conn.read(&mut body).unwrap(), 4);
    assert_eq!(&body[..4], b"body");
    assert_eq!(conn.read(&mut body).unwrap(), 0);
    assert_eq!(conn.read(&mut body).unwrap(), 0, "the end of the stream stays");
}

#[test]
fn one_half_is_written_while_the_other_is_iterated() {
    let (mut conn, mut client) = Connection::pair().unwrap();
    client.write_all(b"Ada\nGrace\n").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let (rfile, mut wfile) = conn.halves();
    for name in rfile.lines() {
        writeln!(wfile, "hello {}", name.unwrap()).unwrap();
    }
    drop(conn);
    assert_eq!(read_all(&mut client), "hello Ada\nhello Grace\n");
}

#[test]
fn a_read_through_one_half_flushes_the_other() {
    let (mut conn, mut client) = Connection::pair().unwrap();
    let asked = thread::spawn(move || {
        let (mut rfile, mut wfile) = conn.halves();
        wfile.write_all(b"name? ").unwrap();
        rfile.next_line().unwrap()
    });
    expect(&mut client, "name? ");
    client.write_all(b"Ada\n").unwrap();
    assert_eq!(asked.join().unwrap().as_deref(), Some("Ada"));
}

#[test]
fn next_request_flushes_before_it_waits_and_consumes_nothing() {
    let (mut conn, mut client) = Connection::pair().unwrap();
    client.write_all(b"a\nb\n").unwrap();
    assert!(conn.next_request().unwrap());
    assert_eq!(conn.next_line().unwrap().as_deref(), Some("a"));
    conn.write_all(b"A").unwrap();
    assert!(conn.next_request().unwrap(), "the second request is there already");
    assert_eq!(arrived(&mut client), "", "both answers go out together");
    assert_eq!(conn.next_line().unwrap().as_deref(), Some("b"));
    conn.write_all(b"B").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert!(!conn.next_request().unwrap());
    assert_eq!(arrived(&mut client), "AB");
}

#[test]
fn next_request_is_false_at_the_end_of_the_stream() {
    let (mut conn, client) = Connection::pair().unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert!(!conn.next_request().unwrap());
    assert!(!conn.next_request().unwrap());
}

#[test]
fn next_request_is_false_once_the_server_drains() {
    let (mut conn, mut client) = Connection::pair().unwrap();
    client.write_all(b"last\n").unwrap();
    conn.server().shutdown();
    assert!(conn.next_request().unwrap(), "what has arrived is served");
    assert_eq!(conn.next_line().unwrap().as_deref(), Some("last"));
    assert!(!conn.next_request().unwrap());
}

#[test]
fn a_write_to_a_vanished_peer_is_an_error_and_stays_one() {
    let (mut conn, client) = Connection::pair().unwrap();
    drop(client);
    let error = conn.write_all(b"anyone?").and_then(|()| conn.flush()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    conn.write_all(b"still?").unwrap();
    assert_eq!(conn.flush().unwrap_err().kind(), ErrorKind::BrokenPipe);
}

#[test]
fn a_reset_by_the_peer_is_an_error_of_the_read() {
    let server = serve(
        ServerBuilder::new()
            .handle_error(|_| {})
            .bind_tcp(
                "127.0.0.1:0",
                handler(|conn| {
                    conn.write_all(&[b'x'; 100])?;
                    conn.flush()?;
                    io::copy(conn, &mut io::sink())?;
                    Ok(())
                }),
            )
            .unwrap(),
    );
    let client = server.connect();
    kit::uninterrupted(|| client.peek(&mut [0])).unwrap();
    drop(client); // with unread input: the kernel sends a reset
    kit::until("the connection ended", || server.handle.stats().disconnected == 1);
}

#[test]
fn the_descriptor_is_the_socket() {
    let (conn, mut client) = Connection::pair().unwrap();
    let mut socket = UnixStream::from(conn.as_fd().try_clone_to_owned().unwrap());
    socket.write_all(b"direct").unwrap();
    expect(&mut client, "direct");
}

#[test]
fn a_connection_may_move_to_another_thread() {
    let (mut conn, mut client) = Connection::pair().unwrap();
    conn.write_all(b"here ").unwrap();
    thread::spawn(move || conn.write_all(b"and there")).join().unwrap().unwrap();
    assert_eq!(read_all(&mut client), "here and there");
}

#[test]
fn tcp_addresses_are_those_of_the_client() {
    let hosts = ["127.0.0.1:0", "[::1]:0"];
    for host in hosts.into_iter().take(1 + usize::from(has_ipv6())) {
        for (name, strategy) in strategies() {
            let (tell, told) = mpsc::channel();
            let report = handler(move |conn| Ok(tell.send((conn.peer_addr(), conn.local_addr()?))?));
            let server = serve(ServerBuilder::new().strategy(strategy).bind(host, report).unwrap());
            let client = connect(server.addr());
            let (peer, local) = told.recv_timeout(kit::LONG).unwrap();
            assert_eq!(peer, Addr::Ip(client.local_addr().unwrap()), "{name}");
            assert_eq!(local, Addr::Ip(client.peer_addr().unwrap()), "{name}");
        }
    }
}

#[test]
fn a_unix_connection_knows_its_path_and_an_unnamed_peer() {
    let folder = Folder::new();
    let path = folder.path("s");
    let report = handler(|conn| Ok(write!(conn, "{} {}", conn.peer_addr(), conn.local_addr()?)?));
    let server = serve(ServerBuilder::new().strategy(Sequential).bind_unix(&path, report).unwrap());
    let mut client = UnixStream::connect(&path).unwrap();
    assert_eq!(read_all(&mut client), format!("unix: unix:{}", path.display()));
    drop(server);
}

#[test]
fn an_ipv4_client_of_an_ipv6_socket_is_told_in_ipv4() {
    if !has_ipv6() {
        return;
    }
    let report = handler(|conn| Ok(write!(conn, "{}", conn.peer_addr().ip().ok_or("no address")?)?));
    let server = serve(ServerBuilder::new().only_v6(false).bind("[::]:0", report).unwrap());
    let mut client = connect(([127, 0, 0, 1], server.addr().port()).into());
    assert_eq!(read_all(&mut client), "127.0.0.1");
}

#[test]
fn a_stop_does_not_wait_for_a_peer_that_has_reset() {
    for (name, strategy) in strategies() {
        let (tell, told) = mpsc::channel();
        let serves = handler(move |conn: &mut Connection| {
            conn.write_all(&[b'x'; 300_000])?; // more than a peer takes that does not read
            conn.flush()?;
            tell.send(())?;
            assert!(!conn.next_request()?, "the stop ends it");
            Ok(tell.send(())?)
        });
        let builder = ServerBuilder::new().drain_timeout(2 * LONG).strategy(strategy);
        let server = serve(builder.bind_tcp("127.0.0.1:0", serves).unwrap());
        let client = server.connect();
        told.recv_timeout(LONG).unwrap();
        server.handle.shutdown();
        told.recv_timeout(LONG).unwrap();
        let since = Instant::now();
        drop(client); // with unread input, so its kernel sends a reset
        server.join();
        assert!(since.elapsed() < AT_ONCE, "{name}: nobody will acknowledge the rest");
    }
}
