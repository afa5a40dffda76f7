//! Observers in the process of the test: what they are told, on which connection, and that they harm nobody.

use std::io::{Read, Write};
use std::net::{Shutdown, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::kit::{connect, read_all, serve, until, LONG};
use socketserver::{
    datagram_handler, factory, handler, AtLimit, Closed, ConnectionOutcome, EventLoop, EventLoops, HandlerResult,
    Observer, Opened, Protocol, Sequential, ServerBuilder, Threading, Times, Transport, UdpServer,
};

/// What was told, as text, in order.
#[derive(Clone, Default)]
struct Notes(Arc<Mutex<Vec<String>>>);

impl Notes {
    fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    fn note(&self, text: String) {
        self.0.lock().unwrap().push(text);
    }
}

/// Notes the number and the outcome of each connection, with a name in front.
struct Noting(&'static str, Notes);

impl Observer for Noting {
    fn opened(&self, opened: &Opened<'_>) {
        self.1.note(format!("{}: {} opens", self.0, opened.id));
    }

    fn closed(&self, closed: &Closed<'_>) {
        let reason = closed.reason.unwrap_or("-");
        self.1.note(format!("{}: {} {} {reason}", self.0, closed.id, closed.outcome));
    }
}

/// Panics whenever it is called.
struct Panicking;

impl Observer for Panicking {
    fn opened(&self, _: &Opened<'_>) {
        panic!("not at the beginning");
    }

    fn closed(&self, _: &Closed<'_>) {
        panic!("not at the end");
    }
}

/// An error that shows what a client has sent, and one whose text panics.
#[derive(Debug)]
struct Shows(&'static str);

impl std::fmt::Display for Shows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        assert!(!self.0.is_empty(), "no text");
        f.write_str(self.0)
    }
}

impl std::error::Error for Shows {}

#[test]
fn observers_are_told_in_order_and_a_panic_of_one_harms_nobody() {
    let (notes, failures) = (Notes::default(), Notes::default());
    let told = failures.clone();
    let mut server = ServerBuilder::new()
        .handle_error(move |failure| told.note(failure.to_string()))
        .observer(Noting("first", notes.clone()))
        .observer(Panicking)
        .observer(Arc::new(Noting("last", notes.clone())))
        .strategy(Sequential)
        .bind_tcp("127.0.0.1:0", handler(|conn| conn.send_line("hello")))
        .unwrap();
    let mut client = connect(server.local_addr().socket_addr().unwrap());
    assert!(server.handle_request(None).unwrap());
    assert_eq!(read_all(&mut client), "hello\n");
    assert_eq!(notes.all(), ["first: 1 opens", "last: 1 opens", "first: 1 served -", "last: 1 served -"]);
    assert_eq!(failures.all(), ["observer panicked: not at the beginning", "observer panicked: not at the end"]);
}

#[test]
fn a_reason_is_one_line_and_a_text_that_panics_is_told_as_such() {
    let notes = Notes::default();
    let faulty = handler(|conn| match conn.next_line()?.as_deref() {
        Some("forge") => Err(Shows("a\r\nforged line\u{1b}[2J").into()),
        _ => Err(Shows("").into()),
    });
    let builder = ServerBuilder::new().observer(Noting("log", notes.clone())).strategy(Sequential);
    let mut server = builder.bind_tcp("127.0.0.1:0", faulty).unwrap();
    for line in ["forge\n", "other\n"] {
        let mut client = connect(server.local_addr().socket_addr().unwrap());
        client.write_all(line.as_bytes()).unwrap();
        assert!(server.handle_request(None).unwrap());
    }
    let closed: Vec<_> = notes.all().into_iter().filter(|note| !note.ends_with("opens")).collect();
    assert_eq!(closed, ["log: 1 failed a\\r\\nforged line\\u{1b}[2J", "log: 2 failed (an error whose text panics)"]);
}

#[test]
fn a_client_that_is_refused_at_the_limit_is_opened_and_closed_too() {
    let notes = Notes::default();
    let holds = handler(|conn| conn.next_line().map(drop).map_err(Into::into));
    let builder = ServerBuilder::new().max_connections(1).at_limit(AtLimit::Refuse(b"busy\n".to_vec()));
    let server = serve(builder.observer(Noting("log", notes.clone())).bind_tcp("127.0.0.1:0", holds).unwrap());
    let first = server.connect();
    until("the first is served", || server.handle.stats().active == 1);
    assert_eq!(read_all(&mut server.connect()), "busy\n");
    first.shutdown(Shutdown::Both).unwrap();
    let report = server.stop();
    assert_eq!((report.accepted, report.refused), (2, 1));
    let mut notes = notes.all();
    notes.sort();
    let refused = "log: 2 refused the connection limit is reached";
    assert_eq!(notes, ["log: 1 opens", "log: 1 served -", "log: 2 opens", refused]);
}

#[test]
fn a_handler_knows_its_number_its_age_and_what_it_has_moved() {
    let server = ServerBuilder::new().observer(()).strategy(Sequential);
    let tells = handler(|conn| {
        let began = conn.started().expect("there is an observer");
        assert!(began <= Instant::now() && (conn.bytes_read(), conn.bytes_written()) == (0, 0));
        assert_eq!(conn.next_line()?.as_deref(), Some("hello"));
        assert_eq!((conn.bytes_read(), conn.bytes_written()), (9, 0), "what is read ahead is read");
        conn.write_all(b"world")?;
        assert_eq!(conn.bytes_written(), 0, "it is in the buffer");
        conn.flush()?;
        assert_eq!(conn.bytes_written(), 5);
        conn.send_line(conn.id().to_string())
    });
    let mut server = server.bind_tcp("127.0.0.1:0", tells).unwrap();
    for id in ["1", "2"] {
        let mut client = connect(server.local_addr().socket_addr().unwrap());
        client.write_all(b"hello\nxyz").unwrap();
        assert!(server.handle_request(None).unwrap());
        let mut answer = String::new();
        let _ = client.read_to_string(&mut answer); // input is left unread
        assert_eq!(answer, format!("world{id}\n"));
    }
    assert_eq!(server.handle().stats().times.count, 2);
}

#[test]
fn without_an_observer_no_time_is_measured() {
    let builder = ServerBuilder::new().strategy(Sequential);
    let tells = handler(|conn| conn.send_line(format!("{} {:?}", conn.id(), conn.started())));
    let mut server = builder.bind_tcp("127.0.0.1:0", tells).unwrap();
    let mut client = connect(server.local_addr().socket_addr().unwrap());
    assert!(server.handle_request(None).unwrap());
    assert_eq!(read_all(&mut client), "1 None\n");
    assert_eq!(server.handle().stats().times, Times::default());
}

/// Answers with its number, and counts what it has moved.
struct Counting;

impl Protocol for Counting {
    fn data_received(&mut self, transport: &mut Transport<'_>, data: &[u8]) -> HandlerResult {
        assert_eq!(transport.bytes_read(), data.len() as u64);
        assert!(transport.started().is_some_and(|began| began.elapsed() < LONG));
        transport.send_line(transport.connection_id().to_string())?;
        assert_eq!(transport.bytes_written(), 0, "it is queued");
        transport.close();
        Ok(())
    }
}

#[test]
fn a_protocol_knows_the_number_that_the_observer_is_told() {
    for loops in [1, 3] {
        let notes = Notes::default();
        let builder = ServerBuilder::new().observer(Noting("log", notes.clone()));
        let server = match loops {
            1 => serve(builder.strategy(EventLoop::new()).bind_tcp("127.0.0.1:0", factory(|_| Counting)).unwrap()),
            n => serve(builder.strategy(EventLoops::new(n)).bind_tcp("127.0.0.1:0", factory(|_| Counting)).unwrap()),
        };
        let mut ids: Vec<String> = (0..20).map(|_| server.ask("x").trim().to_owned()).collect();
        assert_eq!(server.stop().served, 20);
        let notes = notes.all();
        assert!(ids.iter().all(|id| notes.contains(&format!("log: {id} served -"))), "{ids:?} {notes:?}");
        ids.sort_unstable();
        ids.dedup();
        assert_eq!((ids.len(), notes.len()), (20, 40), "{loops} loops: {notes:?}");
    }
}

/// The own ends of connections.
#[derive(Default)]
struct Locals(Mutex<Vec<String>>);

impl Observer for Locals {
    fn closed(&self, closed: &Closed<'_>) {
        self.0.lock().unwrap().push(closed.local.to_string());
    }
}

/// One listener, one on all addresses, and two.
#[test]
fn an_observer_is_told_the_address_that_a_client_has_connected_to() {
    for (address, more) in [("127.0.0.1:0", None), ("0.0.0.0:0", None), ("127.0.0.1:0", Some("127.0.0.2:0"))] {
        let locals = Arc::new(Locals::default());
        let builder = ServerBuilder::new().observer(locals.clone()).strategy(Sequential);
        let builder = more.into_iter().fold(builder, ServerBuilder::listen);
        let mut server = builder.bind_tcp(address, handler(|conn| conn.send_line("hello"))).unwrap();
        let listening: Vec<_> = server.local_addrs().map(|addr| addr.socket_addr().unwrap()).collect();
        let mut expected = Vec::new();
        for mut to in listening {
            if to.ip().is_unspecified() {
                to.set_ip("127.0.0.3".parse().unwrap());
            }
            let mut client = connect(to);
            assert!(server.handle_request(None).unwrap());
            assert_eq!(read_all(&mut client), "hello\n");
            expected.push(to.to_string());
        }
        assert_eq!(*locals.0.lock().unwrap(), expected);
    }
}

/// The sizes of datagrams, and how they ended.
struct Sizes(Mutex<Vec<(u64, u64, ConnectionOutcome)>>);

impl Observer for Sizes {
    fn closed(&self, closed: &Closed<'_>) {
        self.0.lock().unwrap().push((closed.bytes_read, closed.bytes_written, closed.outcome));
    }
}

#[test]
fn a_datagram_counts_as_a_connection() {
    let sizes = Arc::new(Sizes(Mutex::default()));
    let echo = datagram_handler(|datagram| {
        let data = datagram.data().to_vec();
        Ok(datagram.write_all(&data)?)
    });
    let builder = ServerBuilder::new().observer(sizes.clone()).strategy(Sequential);
    let mut server: UdpServer<_, _> = builder.bind_udp("127.0.0.1:0", echo).unwrap();
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.send_to(b"hello", server.local_addr().socket_addr().unwrap()).unwrap();
    assert!(server.handle_request(None).unwrap());
    assert_eq!(*sizes.0.lock().unwrap(), [(5, 5, ConnectionOutcome::Served)]);
}

/// Counts the connections that are open.
#[derive(Default)]
struct Gauge(AtomicU64);

impl Observer for Gauge {
    fn opened(&self, _: &Opened<'_>) {
        self.0.fetch_add(1, SeqCst);
    }

    fn closed(&self, _: &Closed<'_>) {
        self.0.fetch_sub(1, SeqCst);
    }
}

/// Whatever ends a connection, a count that was taken is given back: served, failed, panicked, cut, refused, gone.
#[test]
fn a_count_comes_out_even_after_every_kind_of_end() {
    let gauge = Arc::new(Gauge::default());
    let lines = handler(|conn| {
        while let Some(line) = conn.next_line()? {
            match line.as_str() {
                "fail" => return Err("asked to".into()),
                "panic" => panic!("asked to"),
                _ => conn.send_line("served")?,
            }
        }
        Ok(())
    });
    let builder = ServerBuilder::new().idle_timeout(Duration::from_millis(20)).drain_timeout(Duration::from_millis(50));
    let builder = builder.verify_request(|incoming| incoming.server().stats().accepted % 3 != 0);
    let server =
        serve(builder.observer(gauge.clone()).strategy(Threading::new()).bind_tcp("127.0.0.1:0", lines).unwrap());
    for said in ["served\n", "fail\n", "panic\n", "half", ""].iter().cycle().take(50) {
        let mut client = server.connect();
        let _ = client.write_all(said.as_bytes());
        if said.is_empty() {
            let _ = client.read(&mut [0]); // until the idle limit
        }
    }
    let report = server.stop();
    assert_eq!((report.accepted, gauge.0.load(SeqCst)), (50, 0), "{report}");
}
