//! Writing to a connection from other threads.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::sync::{mpsc, Arc};
use std::thread;
use std::time::Instant;

use crate::kit::{expect, ms, read_all, serve, strategies, until, LONG};
use socketserver::connection::SendError;
use socketserver::{handler, Connection, ServerBuilder};

#[test]
fn messages_wake_a_reader_that_waits() {
    for (name, strategy) in strategies() {
        let (lend, lent) = mpsc::channel();
        let listen = handler(move |conn| {
            lend.send(conn.writer()?)?;
            while let Some(line) = conn.next_line()? {
                writeln!(conn, "you said {line}")?;
            }
            Ok(())
        });
        let server = serve(ServerBuilder::new().strategy(strategy).bind_tcp("127.0.0.1:0", listen).unwrap());
        let mut client = server.connect();
        let writer = lent.recv_timeout(LONG).unwrap();
        for n in 0..100 {
            writer.send(format!("news {n}\n").into_bytes()).unwrap();
            expect(&mut client, &format!("news {n}\n"));
        }
        client.write_all(b"thanks\n").unwrap();
        expect(&mut client, "you said thanks\n");
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_all(&mut client), "", "{name}");
    }
}

#[test]
fn each_thread_s_messages_keep_their_order() {
    let (mut conn, client) = Connection::pair().unwrap();
    let writer = conn.writer().unwrap();
    let serving = thread::spawn(move || conn.read(&mut [0]).map(drop));
    let senders = ["a", "b", "c", "d"].map(|name| {
        let writer = writer.clone();
        thread::spawn(move || (0..500).for_each(|n| writer.send(format!("{name} {n}\n").into_bytes()).unwrap()))
    });
    let mut next = std::collections::HashMap::new();
    for line in BufReader::new(&client).lines().take(2000) {
        let line = line.unwrap();
        let (name, n) = line.split_once(' ').unwrap();
        let due = next.entry(name.to_owned()).or_insert(0);
        assert_eq!(n.parse(), Ok(*due), "{name}");
        *due += 1;
    }
    senders.into_iter().for_each(|sender| sender.join().unwrap());
    drop(client);
    serving.join().unwrap().unwrap();
}

/// Over TCP, where a socket may take a part of a message.
#[test]
fn messages_arrive_whole_at_a_peer_that_reads_slowly() {
    const EACH: usize = 200;
    let (lend, lent) = mpsc::channel();
    let listen = handler(move |conn| {
        lend.send(conn.writer()?)?;
        while conn.next_line()?.is_some() {
            conn.send_line("an answer between them")?;
        }
        Ok(())
    });
    let server = serve(ServerBuilder::new().bind_tcp("127.0.0.1:0", listen).unwrap());
    let mut client = server.connect();
    let writer = lent.recv_timeout(LONG).unwrap();
    let senders = ["a", "b"].map(|name| {
        let writer = writer.clone();
        let message = move |n: usize| format!("{name} {n} {}\n", "x".repeat(16_000 - n)).into_bytes();
        thread::spawn(move || (0..EACH).for_each(|n| writer.send_timeout(message(n), LONG).unwrap()))
    });
    (0..20).for_each(|_| client.write_all(b"a question\n").unwrap());
    let (mut next, mut answers) = (std::collections::HashMap::new(), 0);
    for line in BufReader::with_capacity(1000, client).lines().take(2 * EACH + 20) {
        let line = line.unwrap();
        let [name, n, text] = line.splitn(3, ' ').collect::<Vec<_>>()[..] else { panic!("{line:.50}") };
        if line == "an answer between them" {
            answers += 1;
            continue;
        }
        let due: &mut usize = next.entry(name.to_owned()).or_default();
        assert_eq!((n.parse(), text.len()), (Ok(*due), 16_000 - *due), "{name}");
        *due += 1;
    }
    senders.into_iter().for_each(|sender| sender.join().unwrap());
    assert_eq!((next["a"], next["b"], answers), (EACH, EACH, 20));
}

#[test]
fn a_message_never_lands_within_what_the_handler_writes() {
    let (mut conn, mut client) = Connection::pair().unwrap();
    let writer = conn.writer().unwrap();
    conn.write_all(b"half ").unwrap();
    writer.send(*b"news\n").unwrap();
    conn.write_all(b"and half\n").unwrap();
    conn.flush().unwrap();
    expect(&mut client, "half and half\nnews\n");
}

#[test]
fn what_is_queued_at_the_end_is_sent() {
    let (conn, mut client) = Connection::pair().unwrap();
    let writer = conn.writer().unwrap();
    (0..10).for_each(|_| writer.send(*b"good bye\n").unwrap());
    drop(conn);
    assert_eq!(read_all(&mut client), "good bye\n".repeat(10));
}

#[test]
fn a_writer_of_an_ended_connection_is_told() {
    let (conn, client) = Connection::pair().unwrap();
    let writer = conn.writer().unwrap();
    drop(client);
    drop(conn);
    assert_eq!(writer.send(*b"anyone?"), Err(SendError::Closed));
    assert_eq!(writer.queued(), 0);
}

#[test]
fn a_writer_of_a_served_connection_is_told_when_it_is_over() {
    let (lend, lent) = mpsc::channel();
    let once = handler(move |conn| Ok(lend.send(conn.writer()?)?));
    let server = serve(ServerBuilder::new().bind_tcp("127.0.0.1:0", once).unwrap());
    assert_eq!(read_all(&mut server.connect()), "");
    let writer = lent.recv_timeout(LONG).unwrap();
    until("the writer is closed", || writer.send(*b"x") == Err(SendError::Closed));
}

#[test]
fn the_queue_is_bounded_in_bytes() {
    let (tell, told) = mpsc::channel();
    let full = handler(move |conn| {
        let writer = conn.writer()?;
        let results = ["x".repeat(75), "12345".into(), "12345".into(), "6".into()].map(|m| writer.send(m.into_bytes()));
        let queued = writer.queued();
        conn.flush()?;
        Ok(tell.send((results, queued, writer.queued(), writer.send(*b"0123456789")))?)
    });
    let server = serve(ServerBuilder::new().writer_capacity(10 + 2 * 64).bind_tcp("127.0.0.1:0", full).unwrap());
    assert_eq!(read_all(&mut server.connect()), "12345123450123456789");
    let (results, before, after, then) = told.recv_timeout(LONG).unwrap();
    assert_eq!(results, [Err(SendError::Full), Ok(()), Ok(()), Err(SendError::Full)]);
    assert_eq!((before, after, then), (10 + 2 * 64, 0, Ok(())), "a message costs 64 bytes besides its own");
}

#[test]
fn the_default_queue_takes_a_mebibyte() {
    let (conn, _client) = Connection::pair().unwrap();
    let writer = conn.writer().unwrap();
    let message: Arc<[u8]> = vec![0; (1 << 20) - 64].into();
    assert_eq!(writer.send(message.clone()), Ok(()));
    assert_eq!(writer.send(*b"x"), Err(SendError::Full));
    drop(_client); // so that nothing waits for a reader at the end
}

#[test]
fn a_writer_ends_its_connection_after_what_is_queued() {
    for (name, strategy) in strategies() {
        let (tell, told) = mpsc::channel();
        let lines = handler(move |conn| {
            conn.fill_buf()?; // its client's first bytes are here
            tell.send(conn.writer()?)?;
            while conn.next_line()?.is_some() {}
            conn.send_line("bye")
        });
        let server = serve(ServerBuilder::new().strategy(strategy).bind_tcp("127.0.0.1:0", lines).unwrap());
        let mut client = server.connect();
        client.write_all(b"line\n").unwrap();
        let writer = told.recv_timeout(LONG).unwrap();
        writer.send_line("you are out").unwrap();
        writer.close();
        assert_eq!(writer.send_line("too late"), Err(SendError::Closed), "{name}");
        assert_eq!(read_all(&mut client), "you are out\nbye\n", "{name}");
        writer.close();
        until("its end is counted", || server.handle.stats().active == 0);

        // In the middle of a line, the end is none of the handler's faults.
        let mut client = server.connect();
        client.write_all(b"half").unwrap();
        told.recv_timeout(LONG).unwrap().close();
        assert_eq!(read_all(&mut client), "", "{name}");
        until("its end is counted", || server.handle.stats().active == 0);
        let report = server.stop();
        assert_eq!((report.served, report.disconnected, report.failed), (1, 1, 0), "{name}: {report}");
    }
}

#[test]
fn a_reader_that_is_slow_misses_nothing_of_a_writer_that_waits() {
    for (name, strategy) in strategies() {
        let (tell, told) = mpsc::channel();
        let waits = handler(move |conn| {
            tell.send(conn.writer()?)?;
            while conn.next_line()?.is_some() {}
            Ok(())
        });
        let server = ServerBuilder::new().strategy(strategy).writer_capacity(10_000);
        let server = serve(server.bind_tcp("127.0.0.1:0", waits).unwrap());
        let mut client = server.connect();
        let writer = told.recv_timeout(LONG).unwrap();
        let message: Arc<[u8]> = vec![b'x'; 8000].into();
        let sender = thread::spawn(move || {
            // More than the kernel keeps, and a queue with room for one.
            for _ in 0..1000 {
                writer.send_timeout(message.clone(), LONG).unwrap();
            }
            writer.close();
        });
        assert_eq!(read_all(&mut client).len(), 8_000_000, "{name}");
        sender.join().unwrap();
        assert_eq!(server.stop().served, 1, "{name}");
    }
}

#[test]
fn a_wait_for_room_ends_in_time_and_with_the_connection() {
    let (conn, _client) = Connection::pair().unwrap();
    let writer = conn.writer().unwrap();
    let most = vec![0; (1 << 20) - 64];
    assert_eq!(writer.send_timeout(vec![0; most.len() + 1], LONG), Err(SendError::Full), "at once: it never fits");
    writer.send_timeout(most, LONG).unwrap();
    let began = Instant::now();
    assert_eq!(writer.send_timeout(&b"x"[..], ms(50)), Err(SendError::Full));
    assert!(began.elapsed() >= ms(50));
    let late = thread::spawn(move || writer.send_timeout(&b"x"[..], LONG));
    conn.writer().unwrap().close();
    assert_eq!(late.join().unwrap(), Err(SendError::Closed));
    drop(_client); // so that nobody waits for what is queued
}

#[test]
fn a_handler_can_tell_a_stop_from_the_end_of_the_stream() {
    for (name, strategy) in strategies() {
        let (tell, told) = mpsc::channel();
        let lines = handler(move |conn| {
            while conn.next_line()?.is_some() {}
            Ok(tell.send(conn.is_stopping())?)
        });
        let server = serve(ServerBuilder::new().strategy(strategy).bind_tcp("127.0.0.1:0", lines).unwrap());
        drop(server.connect());
        assert_eq!(told.recv_timeout(LONG), Ok(false), "{name}: the client has ended");
        let mut client = server.connect();
        client.write_all(b"line\n").unwrap();
        until("it is served", || server.handle.stats().active == 1);
        server.handle.shutdown();
        assert_eq!(told.recv_timeout(LONG), Ok(true), "{name}: the server stops");
        assert_eq!(server.join().served, 2, "{name}");
    }
}
