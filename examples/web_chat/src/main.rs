//! A chat room for browsers and for `nc`, on one thread or on many. Start it with `cargo run`, then open
//! http://127.0.0.1:1234 in a browser. `nc 127.0.0.1 PORT` talks to the second port. README.md says in which order to
//! read.

mod allowance;
mod broker;
#[path = "../../common/mod.rs"]
mod common;
mod http;
mod numbers;
mod on_loop;
mod on_threads;
mod ports;
mod room;
mod ws;

use std::sync::Arc;

use allowance::Allowance;
use broker::Broker;
use common::{fail, Args, Usage};
use ports::{Kind, Ports};
use room::Room;
use socketserver::server::Engine;
use socketserver::{EventLoop, Group, Report, Result, ServerBuilder, Threading};

const ABOUT: &str = "A chat room for browsers at ADDR, and for nc at a second port. /stats has the server's numbers.";

const OPTIONS: &[Usage] = &[
    ("lines ADDR", "where the chat by lines listens [127.0.0.1:0]"),
    ("strategy S", "event-loop: one thread for all; threading: a thread for each connection [event-loop]"),
    ("broker URL", "redis://HOST[:PORT]: share the room with the servers on other machines"),
    ("room NAME", "which of the rooms that the broker has [lobby]"),
    ("most-said N", "messages of one member in a second; one more, and the member is cut [20]"),
    ("tls-cert FILE", "serve the pages by TLS with this certificate, in PEM"),
    ("tls-key FILE", "its private key, in PEM"),
];

/// Bytes that may wait for a member that does not read.
const MOST_WAITING: usize = 1 << 20;

fn main() -> Result<()> {
    let args = common::args(ABOUT, &[OPTIONS, common::LIMITS]);
    let most_said = args.get("most-said").unwrap_or(Allowance::PER_SECOND);
    let (room, ports, tls) = (Arc::new(Room::new(most_said)), Arc::new(Ports::default()), args.tls_config());
    if let Some(url) = args.get::<String>("broker") {
        let started = Broker::start(&url, args.choice("room", "lobby"), &room);
        started.unwrap_or_else(|e| fail(format!("--broker {url}: {e}")));
    }
    let builder = args.limits(ServerBuilder::new().handle_signals().raise_descriptor_limit());
    let builder = builder.listen(args.choice("lines", "127.0.0.1:0"));
    let report = match args.choice("strategy", "event-loop") {
        "event-loop" => {
            let builder = builder.strategy(EventLoop::new().max_queued(MOST_WAITING));
            let (frames, lines) = (Group::new(), Group::new());
            let chat = on_loop::Chat { room: room.clone(), ports: ports.clone(), tls, frames, lines };
            serve(builder, &args, &ports, chat)?
        }
        "threading" => {
            // Half of the buffers by default: a message is short, and a page is written past the buffer.
            let builder = builder.read_buffer(4 << 10).write_buffer(4 << 10).writer_capacity(MOST_WAITING);
            let builder = builder.strategy(Threading::new());
            let chat = on_threads::Chat::new(room.clone(), ports.clone(), tls);
            serve(builder, &args, &ports, chat)?
        }
        other => fail(format!("--strategy {other}: it is event-loop or threading")),
    };
    room.finish();
    common::report(&report);
    Ok(())
}

fn serve<H, S: Engine<H>>(builder: ServerBuilder<S>, args: &Args, ports: &Ports, chat: H) -> Result<Report> {
    let mut server = builder.bind(&args.addr, chat)?;
    let addrs: Vec<_> = server.local_addrs().cloned().collect();
    ports.set_page(&addrs[0]);
    let lines = addrs.iter().find(|addr| ports.kind(addr) == Kind::Lines);
    let lines = lines.unwrap_or_else(|| fail("--lines wants a port that is not the page's"));
    [&addrs[0], lines].into_iter().for_each(common::listening);
    server.serve_forever()
}
