//! What else is in the loop of a connection: clients, sockets of datagrams, and their end.

use std::any::Any;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::{mpsc, Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use socketserver::event_loop::{
    ConnId, Connect, ConnectError, DatagramPort, DatagramProtocol, DatagramTransport, Eof, Factory, Peer, RateLimit,
    Reconnect, TimerId,
};
use socketserver::{factory, Addr, Blocking, Context, HandlerResult, Lost, Protocol, ServerBuilder, Transport};

use crate::doer::Journal;
use crate::kit::{connect, expect, ms, read_all, serve, threads_named, uninterrupted, until, Lines, AT_ONCE};
use crate::{all, say, ANY};

fn note(journal: &Journal, entry: impl Into<String>) {
    journal.lock().unwrap().push(entry.into());
}

/// Entries, in the order of the alphabet: of several connections that end together, either may be first.
fn sorted(journal: &Journal) -> Vec<String> {
    let mut entries = std::mem::take(&mut *journal.lock().unwrap());
    entries.sort();
    entries
}

/// One side of a forwarded connection, as the example `port_forward` has them.
struct Side {
    to: String,
    other: Option<ConnId>,
    is_client: bool,
}

enum Word {
    Connected(ConnId),
    End,
}

impl Protocol for Side {
    fn connection_made(&mut self, t: &mut Transport<'_>) -> HandlerResult {
        let id = t.id();
        if let Some(other) = self.other {
            assert_eq!(t.connections(), 2);
            t.link(other);
            t.post(other, Word::Connected(id));
        } else {
            t.pause_reading();
            let build = move |_: &Peer| Side { to: String::new(), other: Some(id), is_client: true };
            t.connect_tcp(self.to.as_str(), factory(build));
        }
        Ok(())
    }

    fn data_received(&mut self, t: &mut Transport<'_>, data: &[u8]) -> HandlerResult {
        assert_eq!(t.connector().is_some(), self.is_client);
        assert!(t.write_to(self.other.unwrap(), data));
        Ok(())
    }

    fn eof_received(&mut self, t: &mut Transport<'_>) -> HandlerResult<Eof> {
        t.post(self.other.unwrap(), Word::End);
        Ok(Eof::KeepOpen)
    }

    fn message(&mut self, t: &mut Transport<'_>, message: Box<dyn Any>) -> HandlerResult {
        match message.downcast_ref() {
            Some(Word::Connected(other)) => {
                self.other = Some(*other);
                t.link(*other);
                t.resume_reading();
            }
            Some(Word::End) => t.shutdown_write(),
            None => {}
        }
        Ok(())
    }

    fn connection_lost(&mut self, cx: &mut Context<'_>, _lost: &Lost) {
        self.other.into_iter().for_each(|other| _ = cx.close_connection(other));
    }
}

#[test]
fn a_protocol_forwards_its_connection() {
    const LINES: usize = 100_000;
    let target = serve(ServerBuilder::new().bind(ANY, Lines).unwrap());
    for (name, strategy) in all() {
        let to = target.addr().to_string();
        let build = factory(move |_peer| Side { to: to.clone(), other: None, is_client: false });
        let server = serve(ServerBuilder::new().strategy(strategy).bind(ANY, Blocking(build)).unwrap());
        let client = server.connect();
        thread::scope(|scope| {
            scope.spawn(|| {
                (&client).write_all("twelve bytes\n".repeat(LINES).as_bytes()).unwrap();
                client.shutdown(Shutdown::Write).unwrap();
            });
            let heard = read_all(&mut &client);
            assert!(heard == "twelve bytes\n".repeat(LINES), "{name}: {} bytes", heard.len());
        });
        drop(client);
        let report = server.stop();
        assert_eq!((report.accepted, report.served), (1, 1), "{name}: what a protocol has connected is not counted");
    }
}

/// Writes much to the server it is connected to, and closes the connection for which it has connected, not its own.
struct Pusher(ConnId, Journal);

impl Protocol for Pusher {
    fn connection_made(&mut self, t: &mut Transport<'_>) -> HandlerResult {
        t.write(&vec![b'x'; MUCH])?;
        t.close_connection(self.0);
        Ok(())
    }

    fn data_received(&mut self, _t: &mut Transport<'_>, _data: &[u8]) -> HandlerResult {
        Ok(())
    }

    fn connection_lost(&mut self, _cx: &mut Context<'_>, lost: &Lost) {
        note(&self.1, format!("pusher: {}", lost.reason));
    }
}

/// More than kernels queue.
const MUCH: usize = 7_000_000;

/// Connects when it is made, and says how it ends.
struct Dialler<F> {
    to: Connect,
    build: F,
    journal: Journal,
}

impl<F: Factory + Clone + 'static> Protocol for Dialler<F> {
    fn connection_made(&mut self, t: &mut Transport<'_>) -> HandlerResult {
        t.connect(self.to.clone(), self.build.clone());
        Ok(())
    }

    fn data_received(&mut self, t: &mut Transport<'_>, _data: &[u8]) -> HandlerResult {
        t.close();
        Ok(())
    }

    fn connection_lost(&mut self, _cx: &mut Context<'_>, lost: &Lost) {
        note(&self.journal, format!("itself: {}", lost.reason));
    }
}

/// A factory of [`Pusher`]s for the connection with which the loop began.
#[derive(Clone)]
struct Pushers(Journal, Arc<Mutex<Option<ConnId>>>);

impl Factory for Pushers {
    fn build_protocol(&self, _cx: &mut Context<'_>, _peer: &Peer) -> Option<Box<dyn Protocol>> {
        Some(Box::new(Pusher(self.1.lock().unwrap().take()?, self.0.clone())))
    }

    fn start_factory(&self, _cx: &mut Context<'_>) {
        note(&self.0, "started");
    }

    fn stop_factory(&self, _cx: &mut Context<'_>) {
        note(&self.0, "stopped");
    }

    fn connection_failed(&self, _cx: &mut Context<'_>, error: &ConnectError) {
        note(&self.0, format!("failed: {:?}", error.retry_in.is_some()));
    }
}

fn diallers(to: Connect, journal: &Journal) -> Blocking<impl Factory + Send + Sync + 'static> {
    let journal = journal.clone();
    Blocking(factory(move |peer: &Peer| Dialler {
        to: to.clone(),
        build: Pushers(journal.clone(), Arc::new(Mutex::new(Some(peer.id())))),
        journal: journal.clone(),
    }))
}

#[test]
fn what_was_written_to_a_client_is_sent_before_the_loop_ends() {
    for (name, strategy) in all() {
        let (journal, target) = (Journal::default(), TcpListener::bind(ANY).unwrap());
        let dial = diallers(Connect::to(target.local_addr().unwrap()), &journal);
        let server = serve(ServerBuilder::new().strategy(strategy).bind(ANY, dial).unwrap());
        let mut client = server.connect();
        let (mut theirs, _) = target.accept().unwrap();
        until("the connection's own part is done", || !journal.lock().unwrap().is_empty());
        thread::sleep(ms(20)); // it is slow
        let mut got = Vec::new();
        theirs.read_to_end(&mut got).unwrap();
        assert_eq!(got.len(), MUCH, "{name}");
        assert_eq!(read_all(&mut client), "");
        until("it is over", || server.handle.stats().active == 0);
        assert_eq!(sorted(&journal), ["itself: closed", "pusher: the server stops", "started", "stopped"], "{name}");
        assert_eq!(server.stop().served, 1, "{name}");
    }
}

#[test]
fn a_client_whose_peer_takes_nothing_holds_the_loop_no_longer_than_a_drain() {
    for (name, strategy) in all() {
        let (journal, target) = (Journal::default(), TcpListener::bind(ANY).unwrap());
        let dial = diallers(Connect::to(target.local_addr().unwrap()), &journal);
        let builder = ServerBuilder::new().strategy(strategy).drain_timeout(ms(100));
        let server = serve(builder.bind(ANY, dial).unwrap());
        let (mut client, _theirs) = (server.connect(), target.accept().unwrap());
        let began = Instant::now();
        assert_eq!(read_all(&mut client), "");
        until("it is over", || server.handle.stats().active == 0);
        assert!(began.elapsed() < AT_ONCE, "{name}: {:?}", began.elapsed());
        let entries = ["itself: closed", "pusher: drain limit of 100ms exceeded", "started", "stopped"];
        assert_eq!(sorted(&journal), entries, "{name}");
        assert_eq!(server.ask("next"), "", "{name}: nobody else is cut");
        assert_eq!(server.stop().served, 2, "{name}");
    }
}

#[test]
fn attempts_to_connect_end_with_the_loop() {
    let gone = TcpListener::bind(ANY).unwrap().local_addr().unwrap();
    for (name, strategy) in all() {
        let journal = Journal::default();
        let to = Connect::to(gone).reconnect(Reconnect::new());
        let server = serve(ServerBuilder::new().strategy(strategy).bind(ANY, diallers(to, &journal)).unwrap());
        let mut client = server.connect();
        until("it has failed", || journal.lock().unwrap().len() > 1);
        say(&client, "end");
        assert_eq!(read_all(&mut client), "", "{name}");
        until("it is over", || server.handle.stats().active == 0);
        let entries = sorted(&journal);
        let (failed, rest): (Vec<_>, Vec<_>) = entries.iter().partition(|entry| entry.starts_with("failed"));
        assert!(!failed.is_empty() && failed.iter().all(|entry| *entry == "failed: true"), "{name}: {failed:?}");
        assert_eq!(rest, ["itself: closed", "started", "stopped"], "{name}");
    }
}

/// How long this thread has run.
fn ran() -> Duration {
    let spent = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(spent.split(' ').next().unwrap().parse().unwrap())
}

/// Connects, and when that connection is gone, looks how busy an idle loop is.
struct Watcher(SocketAddr, Duration);

impl Protocol for Watcher {
    fn connection_made(&mut self, t: &mut Transport<'_>) -> HandlerResult {
        let id = t.id();
        t.connect_tcp(self.0, factory(move |_| Gone(id)));
        Ok(())
    }

    fn data_received(&mut self, _t: &mut Transport<'_>, _data: &[u8]) -> HandlerResult {
        Ok(())
    }

    fn message(&mut self, t: &mut Transport<'_>, _message: Box<dyn Any>) -> HandlerResult {
        self.1 = ran();
        t.set_timer(ms(300));
        Ok(())
    }

    fn timer(&mut self, t: &mut Transport<'_>, _timer: TimerId) -> HandlerResult {
        write!(t, "{}", (ran() - self.1).as_millis())?;
        t.close();
        Ok(())
    }
}

struct Gone(ConnId);

impl Protocol for Gone {
    fn data_received(&mut self, _t: &mut Transport<'_>, _data: &[u8]) -> HandlerResult {
        Ok(())
    }

    fn connection_lost(&mut self, cx: &mut Context<'_>, _lost: &Lost) {
        assert!(cx.post(self.0, ()));
    }
}

#[test]
fn a_client_that_is_gone_is_not_watched() {
    for (name, strategy) in all() {
        let target = TcpListener::bind(ANY).unwrap();
        let to = target.local_addr().unwrap();
        let build = Blocking(factory(move |_| Watcher(to, Duration::ZERO)));
        let server = serve(ServerBuilder::new().strategy(strategy).bind(ANY, build).unwrap());
        let mut client = server.connect();
        drop(target.accept().unwrap());
        let busy: u64 = read_all(&mut client).parse().unwrap();
        assert!(busy < 100, "{name}: {busy} ms of 300");
    }
}

/// Tells its connection what has come.
struct Ear(ConnId, Journal);

impl DatagramProtocol for Ear {
    fn datagram_received(&mut self, t: &mut DatagramTransport<'_>, data: &[u8], from: &Addr) -> HandlerResult {
        assert!(t.write_to(self.0, data));
        t.send_to(from, b"heard")?;
        Ok(())
    }

    fn stop_protocol(&mut self, _cx: &mut Context<'_>) {
        note(&self.1, "stopped");
    }
}

/// Tells the peer where datagrams are received.
fn tell_port(t: &mut Transport<'_>, port: &DatagramPort) -> HandlerResult {
    Ok(write!(t, "{:5}", port.local_addr().socket_addr().unwrap().port())?)
}

fn told_port(client: &mut TcpStream) -> u16 {
    let mut port = [0; 5];
    client.read_exact(&mut port).unwrap();
    std::str::from_utf8(&port).unwrap().trim().parse().unwrap()
}

/// Says where it receives datagrams.
struct Post(Journal);

impl Protocol for Post {
    fn connection_made(&mut self, t: &mut Transport<'_>) -> HandlerResult {
        let ear = Ear(t.id(), self.0.clone());
        let port = t.listen_udp(ANY, ear)?;
        tell_port(t, &port)
    }

    fn data_received(&mut self, t: &mut Transport<'_>, _data: &[u8]) -> HandlerResult {
        t.close();
        Ok(())
    }
}

#[test]
fn a_connection_may_receive_datagrams() {
    for (name, strategy) in all() {
        let journal = Journal::default();
        let theirs = journal.clone();
        let build = Blocking(factory(move |_peer| Post(theirs.clone())));
        let server = serve(ServerBuilder::new().strategy(strategy).bind(ANY, build).unwrap());
        let mut client: TcpStream = connect(server.addr());
        let port = told_port(&mut client);
        let socket = UdpSocket::bind(ANY).unwrap();
        socket.set_read_timeout(Some(crate::kit::LONG)).unwrap();
        let mut buffer = [0; 16];
        for word in ["hello", "paused"] {
            socket.send_to(word.as_bytes(), ("127.0.0.1", port)).unwrap();
            expect(&mut client, word);
            assert_eq!(uninterrupted(|| socket.recv(&mut buffer)).unwrap(), 5, "{name}");
            server.handle.pause(); // connections that are being served go on
        }
        say(&client, "end");
        assert_eq!(read_all(&mut client), "");
        until("it is over", || server.handle.stats().active == 0);
        assert_eq!(*journal.lock().unwrap(), ["stopped"], "{name}");
        assert_eq!(server.stop().served, 3, "{name}: the connection, and each datagram");
    }
}

/// Reads no faster than a limit, and receives datagrams; repeats both.
struct Limited(RateLimit);

impl Protocol for Limited {
    fn connection_made(&mut self, t: &mut Transport<'_>) -> HandlerResult {
        t.limit_reading(&self.0);
        let length = Length(t.id());
        let port = t.listen_udp(ANY, length)?;
        tell_port(t, &port)
    }

    fn data_received(&mut self, t: &mut Transport<'_>, data: &[u8]) -> HandlerResult {
        Ok(t.write(data)?)
    }
}

/// Tells its connection how long a datagram is.
struct Length(ConnId);

impl DatagramProtocol for Length {
    fn datagram_received(&mut self, t: &mut DatagramTransport<'_>, data: &[u8], _from: &Addr) -> HandlerResult {
        t.write_to(self.0, format!("{:5}", data.len()).as_bytes());
        Ok(())
    }
}

/// However much the connection's own buffer takes at once.
#[test]
fn a_rate_limit_and_long_datagrams_are_for_loops_of_small_buffers_too() {
    for size in [1, 8 << 10] {
        let limit = RateLimit::new(1 << 30);
        let build = Blocking(factory(move |_peer| Limited(limit.clone())));
        let server = serve(ServerBuilder::new().read_buffer(size).bind(ANY, build).unwrap());
        let mut client: TcpStream = connect(server.addr());
        let port = told_port(&mut client);
        say(&client, "hello");
        expect(&mut client, "hello");
        UdpSocket::bind(ANY).unwrap().send_to(&[0; 20_000], ("127.0.0.1", port)).unwrap();
        expect(&mut client, "20000");
    }
}

/// Has work done that waits for a word, and leaves at once.
struct Hurried(Arc<Mutex<mpsc::Receiver<()>>>);

impl Protocol for Hurried {
    fn connection_made(&mut self, t: &mut Transport<'_>) -> HandlerResult {
        let word = self.0.clone();
        t.blocking(move || word.lock().unwrap().recv().is_ok(), |_, _| ());
        t.close();
        Ok(())
    }

    fn data_received(&mut self, _t: &mut Transport<'_>, _data: &[u8]) -> HandlerResult {
        Ok(())
    }
}

/// They were each connection's own, so that with peers that came and went a server of two connections started hundreds.
#[test]
fn the_threads_of_blocking_work_are_few_for_all_connections_together() {
    let (words, wait) = mpsc::channel();
    let wait = Arc::new(Mutex::new(wait));
    let build = Blocking(factory(move |_peer| Hurried(wait.clone())));
    let server = serve(ServerBuilder::new().max_connections(2).bind(ANY, build).unwrap());
    for _ in 0..40 {
        assert_eq!(read_all(&mut connect(server.addr())), "");
    }
    let threads = threads_named("blocking");
    assert!((1..=30).contains(&threads), "{threads}"); // 10, and those of tests beside this one
    drop(words);
    server.stop();
    until("the threads end", || threads_named("blocking") == 0);
}
