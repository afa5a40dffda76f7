//! What is the adapter's own: receivers, handlers that begin, factories, handles, addresses.

use std::io::{BufRead, BufReader, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::Duration;

use socketserver::event_loop::{strings, ConnId, Eof, Factory, FramedTransport, Peer, ReactorHandle, StringReceiver};
use socketserver::framing::{Encoder, Netstrings};
use socketserver::{
    factory, handler, lines, Addr, Blocking, Connection, Context, Group, HandlerResult, LineReceiver, Protocol,
    ServerBuilder, StreamRequestHandler, Threading, Transport,
};

use crate::doer::{Doer, Journal};
use crate::kit::{connect, expect, ms, read_all, serve, until, Folder};
use crate::{all, doers, say, say_last, ANY};

struct Shout;

impl LineReceiver for Shout {
    fn line_received(&mut self, t: &mut FramedTransport<'_>, line: &[u8]) -> HandlerResult {
        t.send_line(line.to_ascii_uppercase())
    }
}

impl StringReceiver for Shout {
    fn string_received(&mut self, t: &mut FramedTransport<'_, dyn Encoder>, string: &[u8]) -> HandlerResult {
        t.send_string(string.to_ascii_uppercase())
    }
}

#[test]
fn lines_and_strings_are_whole() {
    for (name, strategy) in all() {
        let server = ServerBuilder::new().strategy(strategy).max_line_length(10);
        let server = serve(server.bind(ANY, Blocking(factory(|_| lines(Shout)))).unwrap());
        let mut client = server.connect();
        for piece in ["he", "llo\nwo", "rld\r\n"] {
            say(&client, piece);
            thread::sleep(ms(2)); // so that it arrives in pieces
        }
        expect(&mut client, "HELLO\nWORLD\n");
        say(&client, "longer than ten\n");
        assert_eq!(read_all(&mut client), "");
        assert_eq!(server.stop().failed, 1, "{name}");
    }
    for (name, strategy) in all() {
        let server = ServerBuilder::new().strategy(strategy).read_buffer(3);
        let server = serve(server.bind(ANY, Blocking(factory(|_| strings(Netstrings::new(), Shout)))).unwrap());
        assert_eq!(server.ask("5:hello,0:,3:you,"), "5:HELLO,0:,3:YOU,", "{name}");
    }
}

/// Answers one line, and closes.
struct Once;

impl LineReceiver for Once {
    fn line_received(&mut self, t: &mut FramedTransport<'_>, line: &[u8]) -> HandlerResult {
        t.send_line(line)?;
        t.close();
        Ok(())
    }
}

/// Lines that a protocol has left unread are as good as those in the kernel: the client may send on without a reset.
#[test]
fn a_close_lingers_for_what_was_read_and_not_used() {
    for (name, strategy) in all() {
        let server = ServerBuilder::new().strategy(strategy);
        let server = serve(server.bind(ANY, Blocking(factory(|_| lines(Once)))).unwrap());
        let mut client = server.connect();
        say(&client, "first\nsecond\n"); // in one segment
        assert_eq!(read_all(&mut client), "first\n", "{name}");
        for _ in 0..2 {
            client.write_all(b"third\n").unwrap_or_else(|e| panic!("{name}: {e}"));
            thread::sleep(ms(20)); // for the reset, if there is one
        }
        drop(client);
        assert_eq!(server.stop().served, 1, "{name}");
    }
}

/// A handler that has read a part of the stream, such as a proxy's line, may hand on the rest.
#[test]
fn a_handler_may_begin_and_a_protocol_go_on() {
    let journal = Journal::default();
    for (name, strategy) in all() {
        let doers = Blocking(doers(&journal));
        let begins = handler(move |conn| {
            let first = conn.next_line()?.unwrap_or_default();
            writeln!(conn, "for {first}")?;
            conn.set_idle_timeout(Some(ms(50)));
            doers.handle(conn)
        });
        let server = serve(ServerBuilder::new().strategy(strategy).bind(ANY, begins).unwrap());
        let mut client = server.connect();
        say(&client, "Ada\nhello");
        expect(&mut client, "for Ada\n>hello");
        say(&client, "and more");
        expect(&mut client, "and more");
        assert_eq!(read_all(&mut client), "", "the limit that was set holds");
        assert_eq!(server.stop().failed, 1, "{name}");
        let journal = std::mem::take(&mut *journal.lock().unwrap()).join(" ");
        assert_eq!(journal, "made hello and more lost: idle limit of 50ms exceeded", "{name}");
    }
}

/// No protocol for the first, a panic for the second, and then as always.
struct Choosy(Mutex<usize>, Journal);

impl Factory for Choosy {
    fn build_protocol(&self, _cx: &mut Context<'_>, _peer: &Peer) -> Option<Box<dyn Protocol>> {
        let mut n = self.0.lock().unwrap_or_else(|e| e.into_inner());
        *n += 1;
        match *n {
            1 => None,
            2 => panic!("asked to panic"),
            _ => Some(Box::new(Doer::new(&self.1))),
        }
    }

    fn start_factory(&self, _cx: &mut Context<'_>) {
        self.1.lock().unwrap().push("started".to_owned());
    }
}

#[test]
fn a_factory_may_refuse_and_fail() {
    for (name, strategy) in all() {
        let journal = Journal::default();
        let choosy = Blocking(Choosy(Mutex::new(0), journal.clone()));
        let server = serve(ServerBuilder::new().strategy(strategy).bind(ANY, choosy).unwrap());
        assert_eq!(server.ask(""), "", "{name}");
        until("it was refused", || server.handle.stats().refused == 1);
        assert_eq!(server.ask(""), "", "{name}");
        until("it has panicked", || server.handle.stats().panicked == 1);
        assert_eq!(say_last(&server, "quit"), "bye", "{name}");
        let report = server.stop();
        assert_eq!((report.accepted, report.served, report.failed, report.refused), (3, 1, 1, 1), "{name}");
        assert!(!journal.lock().unwrap().contains(&"started".to_owned()), "{name}: no listener is the loop's");
    }
}

/// Where connections have loops of their own, they reach each other by handles.
#[derive(Clone, Default)]
struct Room(Arc<Mutex<Vec<(ReactorHandle, ConnId)>>>);

struct Member(Room, Group);

impl LineReceiver for Member {
    fn connection_made(&mut self, t: &mut FramedTransport<'_>) -> HandlerResult {
        t.join(self.1);
        self.0 .0.lock().unwrap().push((t.handle(), t.id()));
        Ok(())
    }

    fn line_received(&mut self, t: &mut FramedTransport<'_>, line: &[u8]) -> HandlerResult {
        assert_eq!((t.connections(), t.members(self.1)), (1, 1), "the loop is this connection's");
        let text = [line, b"\n"].concat();
        for (handle, id) in self.0 .0.lock().unwrap().iter() {
            let _ = handle.write(*id, text.clone());
        }
        Ok(())
    }
}

#[test]
fn connections_talk_to_each_other_by_handles() {
    let (room, group) = (Room::default(), Group::new());
    let members = room.clone();
    let build = factory(move |_peer| lines(Member(members.clone(), group)));
    let server = serve(ServerBuilder::new().strategy(Threading::new()).bind(ANY, Blocking(build)).unwrap());
    let clients: Vec<_> = (0..8).map(|_| server.connect()).collect();
    until("all are in", || room.0.lock().unwrap().len() == 8);
    thread::scope(|scope| {
        for (n, client) in clients.iter().enumerate() {
            scope.spawn(move || (0..50).for_each(|i| say(client, &format!("{n} {i}\n"))));
        }
    });
    for client in &clients {
        let mut next = [0; 8];
        for line in BufReader::new(client).lines().take(8 * 50) {
            let line = line.unwrap();
            let (n, i) = line.split_once(' ').unwrap();
            let next = &mut next[n.parse::<usize>().unwrap()];
            assert_eq!(i.parse(), Ok(*next), "each member's lines arrive in order");
            *next += 1;
        }
        assert_eq!(next, [50; 8]);
    }
    drop(clients);
    until("all have left", || server.handle.stats().active == 0);
    let gone = room.0.lock().unwrap().iter().filter(|(handle, _)| handle.stop().is_err()).count();
    assert_eq!(gone, 8, "a handle outlives its loop, and says so");
}

/// A call wakes the loop of an idle connection at once, and many of them come in order.
#[test]
fn calls_from_threads_arrive_in_order() {
    for (name, strategy) in all() {
        let room = Room::default();
        let members = room.clone();
        let build = factory(move |_peer| lines(Member(members.clone(), Group::new())));
        let server = serve(ServerBuilder::new().strategy(strategy).bind(ANY, Blocking(build)).unwrap());
        let client = server.connect();
        until("it is in", || !room.0.lock().unwrap().is_empty());
        let (handle, id) = room.0.lock().unwrap()[0].clone();
        (0..1000).for_each(|i| handle.write(id, format!("{i}\n")).unwrap());
        let lines: Vec<String> = BufReader::new(&client).lines().take(1000).map(Result::unwrap).collect();
        assert!(lines.iter().enumerate().all(|(i, line)| *line == i.to_string()), "{name}");
        handle.shutdown(ms(5000)).unwrap();
        drop(client);
        server.join();
    }
}

/// Says which peer it talks to.
struct Facts;

impl Protocol for Facts {
    fn data_received(&mut self, t: &mut Transport<'_>, _data: &[u8]) -> HandlerResult {
        let pid = t.peer_credentials()?.map(|peer| peer.pid);
        write!(t, "{} {:?}", t.local_addr(), pid)?;
        t.close();
        Ok(())
    }
}

#[test]
fn unix_peers_and_addresses_are_known() {
    for (name, strategy) in all() {
        let folder = Folder::new();
        let path = folder.path("socket");
        let server = ServerBuilder::new().strategy(strategy).bind_unix(&path, Blocking(factory(|_| Facts))).unwrap();
        let addr = server.local_addr().clone();
        let server = serve(server);
        let mut client = UnixStream::connect(&path).unwrap();
        client.write_all(b"?").unwrap();
        let me = std::process::id();
        assert_eq!(read_all(&mut client), format!("{addr} Some({me})"), "{name}");
        assert!(matches!(addr, Addr::Unix(_)));
        server.stop();
    }
    let server = serve(ServerBuilder::new().bind(ANY, Blocking(factory(|_| Facts))).unwrap());
    let mut client = connect(server.addr());
    say(&client, "?");
    assert_eq!(read_all(&mut client), format!("{} None", server.addr()));
}

/// A unit test of a protocol, over a real socket and without a server.
#[test]
fn it_is_a_handler_like_any_other() {
    let (mut conn, mut client) = Connection::pair().unwrap();
    client.write_all(b"hello\nyou\n").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    Blocking(factory(|_| lines(Shout))).handle(&mut conn).unwrap();
    drop(conn);
    assert_eq!(read_all(&mut client), "HELLO\nYOU\n");

    let (mut conn, client) = Connection::pair().unwrap();
    say_to(&client, b"half a line");
    drop(client);
    let failed = Blocking(factory(|_| lines(Whole))).handle(&mut conn).unwrap_err();
    assert_eq!(failed.to_string(), "half a line");
}

fn say_to(mut client: &UnixStream, text: &[u8]) {
    client.write_all(text).unwrap();
}

/// Wants whole lines.
struct Whole;

impl LineReceiver for Whole {
    fn line_received(&mut self, _t: &mut FramedTransport<'_>, _line: &[u8]) -> HandlerResult {
        Ok(())
    }

    fn eof_received(&mut self, _t: &mut FramedTransport<'_>, partial: &[u8]) -> HandlerResult<Eof> {
        Err(String::from_utf8_lossy(partial).into())
    }
}

/// Some wait in their callbacks: the others do not.
#[test]
fn a_callback_may_wait() {
    struct Sleepy(Arc<Barrier>);
    impl Protocol for Sleepy {
        fn data_received(&mut self, t: &mut Transport<'_>, data: &[u8]) -> HandlerResult {
            self.0.wait(); // for all the others: one after the other, they would wait for ever
            thread::sleep(Duration::from_millis(200)); // beyond what a loop reports
            Ok(t.write(data)?)
        }
    }
    let (stalls, all) = (Arc::new(Mutex::new(0)), Arc::new(Barrier::new(10)));
    let told = stalls.clone();
    let server = ServerBuilder::new().handle_error(move |failure| {
        *told.lock().unwrap() += usize::from(matches!(failure, socketserver::Failure::Stalled { .. }));
    });
    let server = serve(server.bind(ANY, Blocking(factory(move |_| Sleepy(all.clone())))).unwrap());
    let mut clients: Vec<_> = (0..10).map(|_| server.connect()).collect();
    clients.iter().for_each(|client| say(client, "x"));
    clients.iter_mut().for_each(|client| expect(client, "x"));
    assert_eq!(*stalls.lock().unwrap(), 0);
}
