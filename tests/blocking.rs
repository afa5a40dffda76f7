//! One protocol, any strategy: what an event loop makes of a connection, `Blocking` makes of it on each of the others.

mod kit;

use std::any::Any;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use kit::{connect, expect, ms, read_all, serve, strategies, until, AnyStrategy, Folder, Running};
use socketserver::framing::Netstrings;
use socketserver::{
    factory, handler, lines, strings, Addr, Blocking, BoxError, ConnId, Connection, Context, Engine, Eof, EventLoop,
    Factory, Group, HandlerResult, LineReceiver, LineTransport, LingeringClose, Lost, Peer, Protocol, ReactorHandle,
    Rejected, Request, ServerBuilder, ServingStrategy, StreamRequestHandler, StringReceiver, StringTransport,
    Threading, TimerId, Transport,
};

const ANY: &str = "127.0.0.1:0";

/// As many bytes as no kernel takes at once.
const BIG: usize = 6_000_000;

/// What was called, in order.
type Journal = Arc<Mutex<Vec<String>>>;

/// Does what the data says, and keeps a journal.
struct Doer {
    journal: Journal,
    /// What it has noted last.
    last: String,
    left: usize,
    keeps_open: bool,
}

impl Doer {
    fn new(journal: &Journal) -> Self {
        Self { journal: journal.clone(), last: String::new(), left: 0, keeps_open: false }
    }

    fn note(&mut self, entry: impl Into<String>) {
        self.last = entry.into();
        self.journal.lock().unwrap().push(self.last.clone());
    }

    fn go_on(&mut self, t: &mut Transport<'_>) -> HandlerResult {
        while self.left > 0 && !t.is_writing_paused() {
            let part = self.left.min(65_536);
            t.write(&vec![b'x'; part])?;
            self.left -= part;
            if self.left == 0 {
                t.close();
            }
        }
        Ok(())
    }

    fn act(&mut self, t: &mut Transport<'_>, word: &str) -> HandlerResult {
        let (id, handle) = (t.id(), t.handle());
        match word {
            "quit" => {
                t.write(b"bye")?;
                t.close();
            }
            "fail" => {
                t.write(b"kept")?;
                return Err("asked to fail".into());
            }
            "panic" => {
                t.write(b"kept")?;
                panic!("asked to panic");
            }
            "abort" => t.abort(),
            "timer" => _ = t.set_timer(ms(10)),
            "later" => {
                t.call_later(ms(10), move |cx| assert!(cx.write_to(id, b"later")));
            }
            "post" => assert!(t.post(id, "posted")),
            "thread" => drop(thread::spawn(move || handle.write(id, *b"from a thread"))),
            "half" => self.keeps_open = true,
            "big" => {
                self.left = BIG;
                self.go_on(t)?;
            }
            "flood" => (0..200).try_for_each(|_| t.write(&[b'x'; 65_536]))?,
            "rest" => {
                t.pause_reading();
                t.set_timer(ms(10));
            }
            "hold" => t.pause_reading(),
            "hush" => {
                t.write(b"hushed.")?;
                t.pause_reading();
            }
            "begin" => {
                t.request_begins();
                t.set_timer(ms(300));
            }
            "tick" => _ = t.set_timer(ms(5)),
            "shutdown" => t.server().shutdown(),
            "grace" => t.shutdown(ms(50)),
            "overstay" => {
                t.pause_reading();
                t.shutdown(ms(50));
            }
            "stop" => t.stop(),
            word => t.write(word.as_bytes())?,
        }
        Ok(())
    }
}

impl Protocol for Doer {
    fn connection_made(&mut self, t: &mut Transport<'_>) -> HandlerResult {
        self.note("made");
        assert_eq!(t.connections(), 1);
        Ok(t.write(b">")?)
    }

    fn data_received(&mut self, t: &mut Transport<'_>, data: &[u8]) -> HandlerResult {
        let word = String::from_utf8_lossy(data);
        self.note(&*word);
        self.act(t, &word)
    }

    fn eof_received(&mut self, t: &mut Transport<'_>) -> Result<Eof, BoxError> {
        self.note("eof");
        if self.keeps_open {
            t.set_timer(ms(10));
            return Ok(Eof::KeepOpen);
        }
        Ok(Eof::Close)
    }

    fn resume_writing(&mut self, t: &mut Transport<'_>) -> HandlerResult {
        self.go_on(t)
    }

    fn reading_resumed(&mut self, _t: &mut Transport<'_>) -> HandlerResult {
        self.note("resumed");
        Ok(())
    }

    fn timer(&mut self, t: &mut Transport<'_>, _timer: TimerId) -> HandlerResult {
        match self.last.as_str() {
            "tick" => {
                t.set_timer(ms(5)); // for ever
                return Ok(());
            }
            "begin" | "shutting_down" => {
                t.write(b"done")?;
                t.request_ends();
            }
            _ => t.write(b"timer")?,
        }
        self.note("timer");
        if t.is_reading_paused() {
            t.resume_reading();
        } else if self.keeps_open {
            t.close();
        }
        Ok(())
    }

    fn message(&mut self, t: &mut Transport<'_>, message: Box<dyn Any>) -> HandlerResult {
        self.note("message");
        Ok(t.write(message.downcast_ref::<&str>().unwrap().as_bytes())?)
    }

    fn shutting_down(&mut self, _t: &mut Transport<'_>) -> HandlerResult {
        if self.last != "tick" {
            self.note("shutting_down");
        }
        Ok(())
    }

    fn connection_lost(&mut self, _cx: &mut Context<'_>, why: &Lost) {
        self.note(format!("lost: {}", why.reason));
    }
}

/// A strategy of somebody's own.
struct Spawning;

impl ServingStrategy for Spawning {
    fn process_request(&self, request: Request) -> Result<(), Rejected> {
        thread::spawn(move || request.run());
        Ok(())
    }
}

fn all() -> Vec<(&'static str, AnyStrategy)> {
    let mut all = strategies();
    all.push(("Spawning", Box::new(Spawning)));
    all
}

fn doers(journal: &Journal) -> impl Fn(&Peer) -> Doer + Send + Sync + 'static {
    let journal = journal.clone();
    factory(move |_peer| Doer::new(&journal))
}

/// What clients, counters and protocols see of a server that a client talks to; the talk may end it.
fn see<H, S>(
    builder: ServerBuilder<S>,
    journal: &Journal,
    serves: H,
    talk: &dyn Fn(&Running) -> String,
) -> (String, String, String)
where
    H: Send + Sync + 'static,
    S: Engine<H> + Send + 'static,
{
    let server = serve(builder.bind(ANY, serves).unwrap());
    let heard = talk(&server);
    until("the connection has ended", || server.handle.stats().active == 0);
    let report = server.stop().to_string();
    let journal = std::mem::take(&mut *journal.lock().unwrap()).join(" ");
    (heard, journal, report)
}

/// Everything shows in the same way on an event loop and on each blocking strategy; how it shows there.
#[track_caller]
fn the_same_everywhere(
    what: &str,
    set: impl Fn(ServerBuilder<EventLoop>) -> ServerBuilder<EventLoop>,
    set_any: impl Fn(ServerBuilder<AnyStrategy>) -> ServerBuilder<AnyStrategy>,
    talk: impl Fn(&Running) -> String,
) -> (String, String, String) {
    let journal = Journal::default();
    let looped = ServerBuilder::new().strategy(EventLoop::new());
    let expected = see(set(looped), &journal, doers(&journal), &talk);
    for (name, strategy) in all() {
        let builder = ServerBuilder::new().strategy(strategy);
        let seen = see(set_any(builder), &journal, Blocking(doers(&journal)), &talk);
        assert_eq!(seen, expected, "{what} on {name}");
    }
    expected
}

macro_rules! same {
    ($what:expr, |$builder:ident| $set:expr, $talk:expr) => {
        the_same_everywhere($what, |$builder| $set, |$builder| $set, $talk)
    };
    ($what:expr, $talk:expr) => {
        same!($what, |builder| builder, $talk)
    };
}

/// A client that has been greeted.
fn greeted(server: &Running) -> TcpStream {
    let mut client = server.connect();
    expect(&mut client, ">");
    client
}

fn say(mut client: &TcpStream, word: &str) {
    client.write_all(word.as_bytes()).unwrap();
}

/// Says a word, and reads to the end.
fn say_last(server: &Running, word: &str) -> String {
    let mut client = greeted(server);
    say(&client, word);
    read_all(&mut client)
}

#[test]
fn callbacks_and_counters_are_those_of_an_event_loop() {
    let (heard, journal, report) = same!("an echo and an end", |server| {
        let mut client = greeted(server);
        say(&client, "hello");
        expect(&mut client, "hello");
        client.shutdown(Shutdown::Write).unwrap();
        read_all(&mut client)
    });
    assert_eq!((heard.as_str(), journal.as_str()), ("", "made hello eof lost: closed by the peer"));
    assert!(report.starts_with("accepted 1, served 1, failed 0"), "{report}");

    let (heard, journal, report) = same!("a close", |server| say_last(server, "quit"));
    assert_eq!((heard.as_str(), journal.as_str()), ("bye", "made quit lost: closed"));
    assert!(report.starts_with("accepted 1, served 1, failed 0"), "{report}");
}

#[test]
fn errors_and_panics_end_their_connection_after_what_was_written() {
    let (heard, journal, report) = same!("an error", |server| say_last(server, "fail"));
    assert_eq!((heard.as_str(), journal.as_str()), ("kept", "made fail lost: failed: asked to fail"));
    assert!(report.contains("failed 1"), "{report}");
    let (heard, journal, report) = same!("a panic", |server| say_last(server, "panic"));
    assert_eq!((heard.as_str(), journal.as_str()), ("kept", "made panic lost: panicked: asked to panic"));
    assert!(report.contains("failed 1") && report.contains("panicked 1"), "{report}");
}

#[test]
fn who_is_cut_reads_a_reset() {
    let reset = |server: &Running, word: &str| {
        let mut client = greeted(server);
        say(&client, word);
        until("the connection has ended", || server.handle.stats().active == 0);
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).map_err(|e| e.kind()).unwrap_err().to_string()
    };
    let (heard, journal, report) =
        same!("an abort", |b| b.lingering_close(LingeringClose::Always), |server| reset(server, "abort"));
    assert_eq!((heard.as_str(), journal.as_str()), ("connection reset", "made abort lost: aborted"));
    assert!(report.contains("served 1"), "{report}");
    let (heard, journal, report) = same!("a queue that is full", |server| reset(server, "flood"));
    assert_eq!(heard, "connection reset");
    assert_eq!(journal, "made flood lost: the output queue would exceed 8388608 bytes");
    assert!(report.contains("failed 1"), "{report}");
}

#[test]
fn timers_calls_and_messages_come_back_to_the_thread_of_the_connection() {
    for (word, answer, entries) in [
        ("timer", "timer", "made timer timer eof"),
        ("later", "later", "made later eof"),
        ("post", "posted", "made post message eof"),
        ("thread", "from a thread", "made thread eof"),
        ("rest", "timer", "made rest timer resumed eof"),
    ] {
        let (_, journal, _) = same!(word, |server| {
            let mut client = greeted(server);
            say(&client, word);
            expect(&mut client, answer);
            client.shutdown(Shutdown::Write).unwrap();
            read_all(&mut client)
        });
        assert_eq!(journal, format!("{entries} lost: closed by the peer"));
    }
}

#[test]
fn a_big_answer_goes_at_the_peer_s_pace() {
    let (heard, journal, _) = same!("a big answer", |server| {
        let mut client = greeted(server);
        say(&client, "big");
        thread::sleep(ms(20)); // the client's slowness is what is tested
        read_all(&mut client).len().to_string()
    });
    assert_eq!((heard.as_str(), journal.as_str()), (BIG.to_string().as_str(), "made big lost: closed"));
}

#[test]
fn a_half_closed_connection_may_still_be_answered() {
    let (heard, journal, _) = same!("a half-close", |server| {
        let mut client = greeted(server);
        say(&client, "half");
        client.shutdown(Shutdown::Write).unwrap();
        read_all(&mut client)
    });
    assert_eq!((heard.as_str(), journal.as_str()), ("timer", "made half eof timer lost: closed"));
}

#[test]
fn a_peer_that_resets_is_no_failure() {
    let (_, journal, report) = same!("a reset", |server| {
        let mut client = greeted(server);
        say(&client, "big");
        client.read_exact(&mut [0]).unwrap(); // the rest stays unread: the close sends a reset
        String::new()
    });
    assert!(journal.starts_with("made big lost: broken:"), "{journal}");
    assert!(report.contains("failed 0, disconnected 1"), "{report}");

    let (_, journal, report) = same!("a reset that nobody reads", |server| {
        let mut client = greeted(server);
        say(&client, "hush");
        expect(&mut client, "hushed"); // and a byte is left
        String::new()
    });
    assert!(journal.starts_with("made hush lost: broken:"), "{journal}");
    assert!(report.contains("failed 0, disconnected 1"), "{report}");
}

#[test]
fn each_limit_ends_its_connection_and_is_counted() {
    let (heard, journal, report) = same!("idle", |b| b.idle_timeout(ms(50)), |server| read_all(&mut greeted(server)));
    assert_eq!((heard.as_str(), journal.as_str()), ("", "made lost: idle limit of 50ms exceeded"));
    assert!(report.contains("failed 1"), "{report}");

    let (heard, journal, _) = same!("request", |b| b.request_timeout(ms(50)), |server| say_last(server, "hold"));
    assert_eq!((heard.as_str(), journal.as_str()), ("", "made hold lost: request limit of 50ms exceeded"));

    let (_, journal, report) = same!("write", |b| b.write_timeout(ms(50)), |server| {
        let client = greeted(server);
        say(&client, "big");
        until("the connection has ended", || server.handle.stats().active == 0);
        server.handle.stats().timed_out.to_string()
    });
    assert_eq!(journal, "made big lost: write limit of 50ms exceeded");
    assert!(report.contains("failed 1"), "{report}");
}

#[test]
fn a_stop_ends_idle_connections_at_once() {
    let (heard, journal, report) = same!("a stop", |server| {
        let mut client = greeted(server);
        let began = Instant::now();
        server.handle.shutdown();
        let rest = read_all(&mut client);
        assert!(began.elapsed() < ms(2000), "{:?}", began.elapsed());
        rest
    });
    assert_eq!((heard.as_str(), journal.as_str()), ("", "made shutting_down lost: the server stops"));
    assert!(report.contains("served 1") && report.contains("drained 1, forced 0"), "{report}");

    // A timer that is set for ever again is no request.
    let (_, journal, report) = same!("a stop among ticks", |server| {
        let mut client = greeted(server);
        say(&client, "tick");
        thread::sleep(ms(20)); // a few of them
        server.handle.shutdown();
        read_all(&mut client)
    });
    assert_eq!(journal, "made tick lost: the server stops");
    assert!(report.contains("drained 1, forced 0"), "{report}");
}

#[test]
fn a_stop_lets_a_request_finish() {
    let (heard, journal, report) = same!("a stop within a request", |server| {
        let mut client = greeted(server);
        say(&client, "begin");
        thread::sleep(ms(50)); // well within the 300 ms that it takes
        server.handle.shutdown();
        read_all(&mut client)
    });
    assert_eq!((heard.as_str(), journal.as_str()), ("done", "made begin shutting_down timer lost: the server stops"));
    assert!(report.contains("served 1") && report.contains("drained 1, forced 0"), "{report}");

    let (heard, journal, report) = same!("a stop from within", |server| say_last(server, "shutdown"));
    assert_eq!((heard.as_str(), journal.as_str()), ("", "made shutdown shutting_down lost: the server stops"));
    assert!(report.contains("drained 1, forced 0"), "{report}");
}

#[test]
fn the_drain_limit_cuts_what_is_left() {
    let (heard, journal, report) = same!("the drain limit", |b| b.drain_timeout(ms(100)), |server| {
        let mut client = greeted(server);
        say(&client, "hold");
        thread::sleep(ms(20));
        server.handle.shutdown();
        read_all(&mut client)
    });
    assert_eq!((heard.as_str(), journal.as_str()), ("", "made hold shutting_down lost: drain limit of 100ms exceeded"));
    assert!(report.contains("failed 1") && report.contains("drained 0, forced 1, abandoned 0"), "{report}");
}

#[test]
fn a_stop_may_be_hastened() {
    let (_, journal, report) = same!("shutdown_now", |server| {
        let mut client = greeted(server);
        say(&client, "hold");
        thread::sleep(ms(20));
        server.handle.shutdown();
        thread::sleep(ms(20));
        let began = Instant::now();
        server.handle.shutdown_now();
        let rest = read_all(&mut client);
        assert!(began.elapsed() < ms(2000), "{:?}", began.elapsed());
        rest
    });
    assert_eq!(journal, "made hold shutting_down lost: drain limit of 10s exceeded");
    assert!(report.contains("drained 0, forced 1, abandoned 0"), "{report}");
}

#[test]
fn a_protocol_may_end_its_loop_or_the_server() {
    for (name, strategy) in all() {
        let journal = Journal::default();
        let server = serve(ServerBuilder::new().strategy(strategy).bind(ANY, Blocking(doers(&journal))).unwrap());
        assert_eq!(say_last(&server, "stop"), "", "{name}");
        assert_eq!(say_last(&server, "quit"), "bye", "{name}: the server goes on");
        let mut client = greeted(&server);
        say(&client, "grace");
        assert_eq!(read_all(&mut client), "", "{name}");
        let report = server.join(); // it was stopped as a whole
        assert_eq!((report.served, report.failed, report.forced), (3, 0, 0), "{name}");
        let journal = journal.lock().unwrap().join(" ");
        assert!(journal.starts_with("made stop lost: the server stops made quit lost: closed"), "{name}: {journal}");
        assert!(journal.ends_with("made grace shutting_down lost: the server stops"), "{name}: {journal}");
    }
}

/// The time that a protocol gives itself at a stop is its own: others have the server's.
#[test]
fn an_own_grace_cuts_nobody_else() {
    let journal = Journal::default();
    let server = serve(ServerBuilder::new().bind(ANY, Blocking(doers(&journal))).unwrap());
    let mut slow = greeted(&server);
    say(&slow, "begin"); // 300 ms
    assert_eq!(say_last(&server, "overstay"), "");
    assert_eq!(read_all(&mut slow), "done");
    let report = server.join();
    assert_eq!((report.served, report.timed_out, report.drained, report.forced), (1, 1, 2, 0));
    let journal = journal.lock().unwrap().join(" ");
    assert!(journal.contains("lost: drain limit of 50ms exceeded"), "{journal}");
}

struct Shout;

impl LineReceiver for Shout {
    fn line_received(&mut self, t: &mut LineTransport<'_>, line: &[u8]) -> HandlerResult {
        t.send_line(line.to_ascii_uppercase())
    }
}

impl StringReceiver for Shout {
    fn string_received(&mut self, t: &mut StringTransport<'_>, string: &[u8]) -> HandlerResult {
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
    fn line_received(&mut self, t: &mut LineTransport<'_>, line: &[u8]) -> HandlerResult {
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

/// Whoever has read a part of the stream already, as a proxy's line, may hand on the rest.
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
    fn connection_made(&mut self, t: &mut LineTransport<'_>) -> HandlerResult {
        t.join(self.1);
        self.0 .0.lock().unwrap().push((t.handle(), t.id()));
        Ok(())
    }

    fn line_received(&mut self, t: &mut LineTransport<'_>, line: &[u8]) -> HandlerResult {
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

/// Says who it talks to.
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
    fn line_received(&mut self, _t: &mut LineTransport<'_>, _line: &[u8]) -> HandlerResult {
        Ok(())
    }

    fn eof_received(&mut self, _t: &mut LineTransport<'_>, partial: &[u8]) -> Result<Eof, BoxError> {
        Err(String::from_utf8_lossy(partial).into())
    }
}

/// Some wait in their callbacks: the others do not.
#[test]
fn a_callback_may_wait() {
    struct Sleepy;
    impl Protocol for Sleepy {
        fn data_received(&mut self, t: &mut Transport<'_>, data: &[u8]) -> HandlerResult {
            thread::sleep(Duration::from_millis(200)); // beyond what a loop reports
            Ok(t.write(data)?)
        }
    }
    let stalls = Arc::new(Mutex::new(0));
    let told = stalls.clone();
    let server = ServerBuilder::new().handle_error(move |failure| {
        *told.lock().unwrap() += usize::from(matches!(failure, socketserver::Failure::Stalled { .. }));
    });
    let server = serve(server.bind(ANY, Blocking(factory(|_| Sleepy))).unwrap());
    let mut clients: Vec<_> = (0..10).map(|_| server.connect()).collect();
    let began = Instant::now();
    clients.iter().for_each(|client| say(client, "x"));
    clients.iter_mut().for_each(|client| expect(client, "x"));
    assert!(began.elapsed() < ms(2000), "{:?}: one after the other", began.elapsed());
    assert_eq!(*stalls.lock().unwrap(), 0);
}
