//! One protocol, any strategy: what an event loop makes of a connection, `Blocking` makes of it on each of the others.

#[path = "../kit/mod.rs"]
mod kit;

macro_rules! same {
    ($what:expr, |$builder:ident| $set:expr, $talk:expr) => {
        crate::the_same_everywhere($what, |$builder| $set, |$builder| $set, $talk)
    };
    ($what:expr, $talk:expr) => {
        same!($what, |builder| builder, $talk)
    };
}

mod adapter;
mod callbacks;
mod doer;
mod neighbours;
mod stops;

use std::io::Write;
use std::net::TcpStream;
use std::thread;

use doer::{Doer, Journal};
use kit::{expect, read_all, serve, strategies, until, AnyStrategy, Running};
use socketserver::event_loop::Peer;
use socketserver::server::Engine;
use socketserver::strategy::{Rejected, Request, ServingStrategy};
use socketserver::{factory, Blocking, EventLoop, ServerBuilder};

const ANY: &str = "127.0.0.1:0";

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

/// A client that has been greeted.
fn greeted(server: &Running) -> TcpStream {
    let mut client = server.connect();
    expect(&mut client, ">");
    client
}

fn say(mut client: &TcpStream, word: &str) {
    client.write_all(word.as_bytes()).unwrap();
}

/// Says a word that the protocol answers by a dot: it is at it now.
fn taken(client: &mut TcpStream, word: &str) {
    say(client, word);
    expect(client, ".");
}

/// Says a word, and reads to the end.
fn say_last(server: &Running, word: &str) -> String {
    let mut client = greeted(server);
    say(&client, word);
    read_all(&mut client)
}
