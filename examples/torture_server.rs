//! A line protocol that lets a client make trouble, to see what each strategy survives.
//! `cargo run --example torture_server -- --strategy threading`, then `nc 127.0.0.1 1234` and `HELP`.

mod common;

use std::io::{self, Write};
use std::thread::sleep;

use common::any::{STRATEGY, WORKERS};
use common::tls::TLS;
use common::trouble::{answer, Answer, Facts};
use socketserver::event_loop::{Eof, TimerId, WriteError};
use socketserver::{
    factory, lines, per_request, Connection, HandlerResult, LineReceiver, LineTransport, Next, PeerFault,
};
use socketserver::{ServerBuilder, StreamRequestHandler, Transport};

/// For most strategies.
struct Torture {
    master: u32,
}

impl StreamRequestHandler for Torture {
    fn handle(&self, conn: &mut Connection) -> HandlerResult {
        while conn.next_request()? && serve(conn, self.master)? == Next::Request {}
        Ok(())
    }
}

/// Serves one request.
fn serve(conn: &mut Connection, master: u32) -> HandlerResult<Next> {
    let Some(line) = conn.next_line()? else { return Ok(Next::Close) };
    let facts = Facts { master, peer: conn.peer_addr(), stats: conn.server().stats() };
    match answer(&line, &facts)? {
        Answer::Line(text) => conn.send_line(text)?,
        Answer::Sleep(time) => {
            sleep(time);
            conn.send_line("slept")?;
        }
        Answer::Big { bytes, closes } => {
            big(conn, bytes)?;
            if closes {
                return Ok(Next::Close);
            }
        }
        Answer::Close => return Ok(Next::Close),
        Answer::Shutdown => conn.server().shutdown(),
    }
    Ok(Next::Request)
}

const CHUNK: &[u8] = &[b'x'; 65536];

fn big(conn: &mut Connection, mut left: usize) -> io::Result<()> {
    while left > 0 {
        let part = left.min(CHUNK.len());
        conn.write_all(&CHUNK[..part])?;
        left -= part;
    }
    conn.write_all(b"\n")
}

/// The same for an event loop: nothing waits, and while something is under way no line is read.
struct TortureProtocol {
    master: u32,
    /// The rest of a big answer, and whether the connection is closed after it.
    big: Option<(usize, bool)>,
}

impl LineReceiver for TortureProtocol {
    fn line_received(&mut self, transport: &mut LineTransport<'_>, line: &[u8]) -> HandlerResult {
        let stats = transport.server().stats();
        let facts = Facts { master: self.master, peer: transport.peer_addr(), stats };
        match answer(std::str::from_utf8(line).map_err(PeerFault::new)?, &facts)? {
            Answer::Line(text) => transport.send_line(&text)?,
            Answer::Sleep(time) => {
                transport.pause_reading();
                transport.set_timer(time);
            }
            Answer::Big { bytes, closes } => {
                transport.pause_reading();
                self.big = Some((bytes, closes));
                self.go_on(transport)?;
            }
            Answer::Close => transport.close(),
            Answer::Shutdown => transport.server().shutdown(),
        }
        Ok(())
    }

    fn eof_received(&mut self, _transport: &mut LineTransport<'_>, partial: &[u8]) -> HandlerResult<Eof> {
        match partial {
            [] => Ok(Eof::Close),
            _ => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()), // half a line is no request
        }
    }

    fn timer(&mut self, transport: &mut LineTransport<'_>, _timer: TimerId) -> HandlerResult {
        transport.send_line("slept")?;
        transport.resume_reading();
        Ok(())
    }

    fn resume_writing(&mut self, transport: &mut LineTransport<'_>) -> HandlerResult {
        Ok(self.go_on(transport)?)
    }
}

impl TortureProtocol {
    /// Writes of a big answer what the peer keeps up with.
    fn go_on(&mut self, transport: &mut Transport<'_>) -> Result<(), WriteError> {
        let Some((mut left, closes)) = self.big.take() else { return Ok(()) };
        while left > 0 && !transport.is_writing_paused() {
            let part = left.min(CHUNK.len());
            transport.write(&CHUNK[..part])?;
            left -= part;
        }
        if left > 0 {
            self.big = Some((left, closes));
            return Ok(());
        }
        transport.write(b"\n")?;
        if closes {
            transport.close();
        } else {
            transport.resume_reading();
        }
        Ok(())
    }
}

fn main() -> socketserver::Result<()> {
    let verify = &[
        ("verify-delay MS", "how long a hook that lets everybody in takes for it [no hook]"),
        ("verify-timeout MS", "how long it may take [10000]"),
    ];
    let about = "Does what its clients ask, harmful or not.";
    let args = common::args(about, &[STRATEGY, WORKERS, common::LIMITS, TLS, verify]);
    let master = std::process::id();
    let protocol = factory(move |_peer| lines(TortureProtocol { master, big: None }));
    let mut builder = args.tls(args.limits(ServerBuilder::new().handle_signals()));
    if let Some(delay) = args.millis("verify-delay") {
        builder = builder.verify_request(move |_| {
            sleep(delay);
            true
        });
    }
    if let Some(limit) = args.millis("verify-timeout") {
        builder = builder.verify_timeout(limit);
    }
    let mut server = match args.serves_requests() {
        true => args.bind(builder, per_request(move |conn| serve(conn, master)), protocol)?,
        false => args.bind(builder, Torture { master }, protocol)?,
    };
    common::listening(server.local_addr());
    let report = server.serve_forever()?;
    common::report(&report);
    Ok(())
}
