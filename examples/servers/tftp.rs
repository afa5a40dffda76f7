//! Gives out the files of a folder by TFTP (RFC 1350): `tftp -m binary 127.0.0.1 1234 -c get README.md`. One reactor, with a socket
//! and a protocol of its own for each transfer. A timer sends again what was lost.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use common::AnyError;
use socketserver::event_loop::{DatagramProtocol, DatagramTransport, TimerId};
use socketserver::{Addr, HandlerResult, Reactor};

/// Bytes of a file in a packet. A shorter one is the last.
const BLOCK: usize = 512;

/// How often a packet is sent again.
const TRIES: u32 = 5;

/// Most transfers at once.
const TRANSFERS: usize = 100;

/// Takes the requests.
struct Server {
    folder: PathBuf,
    silence: Duration,
    /// Each transfer has a clone.
    transfers: Rc<()>,
}

impl DatagramProtocol for Server {
    fn datagram_received(&mut self, t: &mut DatagramTransport<'_>, data: &[u8], from: &Addr) -> HandlerResult {
        let refused = match data {
            [0, 1, rest @ ..] => match self.open(rest) {
                Ok(file) => {
                    let any = if matches!(from, Addr::Ip(addr) if addr.is_ipv6()) { "[::]:0" } else { "0.0.0.0:0" };
                    let (to, silence, _count) = (from.clone(), self.silence, self.transfers.clone());
                    t.listen_udp(any, Transfer { file, to, silence, block: 1, tries: 0, timer: None, _count })?;
                    return Ok(());
                }
                Err(refused) => refused,
            },
            [0, 2, ..] => (2, "files are not written"),
            _ => (4, "a transfer begins with a request"),
        };
        t.send_to(from, &error(refused))?;
        Ok(())
    }
}

fn error((code, text): (u8, &str)) -> Vec<u8> {
    [&[0, 5, 0, code], text.as_bytes(), &[0]].concat()
}

impl Server {
    /// The file of a request, which names it and a mode, each with a zero after it.
    fn open(&self, request: &[u8]) -> Result<File, (u8, &'static str)> {
        let mut words = request.split(|byte| *byte == 0);
        let (name, mode) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let name = std::str::from_utf8(name).map_err(|_| (1, "there is no such file"))?;
        if name.is_empty() || name.contains('/') || name.starts_with('.') {
            return Err((2, "a name of a file in the folder, please"));
        }
        if !mode.eq_ignore_ascii_case(b"octet") {
            return Err((4, "the mode is octet (binary), please"));
        }
        if Rc::strong_count(&self.transfers) > TRANSFERS {
            return Err((0, "too many transfers"));
        }
        let path = self.folder.join(name);
        match path.metadata() {
            Ok(about) if about.is_file() => File::open(path).map_err(|_| (2, "the file cannot be read")),
            _ => Err((1, "there is no such file")),
        }
    }
}

struct Transfer {
    file: File,
    to: Addr,
    /// After so long without an answer, the block is sent again.
    silence: Duration,
    /// The number of the block that was sent last, from 1 on. Its packet has the lower 16 bits.
    block: u64,
    tries: u32,
    timer: Option<TimerId>,
    _count: Rc<()>,
}

impl Transfer {
    fn block(&self) -> std::io::Result<Vec<u8>> {
        let mut data = vec![0; BLOCK];
        let len = self.file.read_at(&mut data, (self.block - 1) * BLOCK as u64)?;
        data.truncate(len);
        Ok(data)
    }

    fn send(&mut self, t: &mut DatagramTransport<'_>) -> HandlerResult {
        let [high, low] = (self.block as u16).to_be_bytes();
        let packet = [&[0, 3, high, low], self.block()?.as_slice()].concat();
        t.send_to(&self.to, &packet)?;
        if let Some(old) = self.timer.replace(t.set_timer(self.silence)) {
            t.cancel(old);
        }
        Ok(())
    }
}

impl DatagramProtocol for Transfer {
    fn start_protocol(&mut self, t: &mut DatagramTransport<'_>) -> HandlerResult {
        self.send(t)
    }

    fn datagram_received(&mut self, t: &mut DatagramTransport<'_>, data: &[u8], from: &Addr) -> HandlerResult {
        if *from != self.to {
            t.send_to(from, &error((5, "this transfer is another's")))?;
            return Ok(());
        }
        match data {
            [0, 4, high, low] if [*high, *low] == (self.block as u16).to_be_bytes() => {
                if self.block()?.len() < BLOCK {
                    t.stop_listening();
                    return Ok(());
                }
                (self.block, self.tries) = (self.block + 1, 0);
                self.send(t)
            }
            [0, 5, ..] => {
                t.stop_listening(); // the client has given up
                Ok(())
            }
            _ => Ok(()), // an acknowledgement that has come before: to answer it would double all that follows
        }
    }

    fn timer(&mut self, t: &mut DatagramTransport<'_>, _: TimerId) -> HandlerResult {
        self.tries += 1;
        if self.tries > TRIES {
            t.stop_listening();
            return Ok(());
        }
        self.send(t)
    }
}

fn main() -> Result<(), AnyError> {
    let options = [
        ("folder DIR", "whose files are given out [.]"),
        ("silence MS", "after how long a packet is sent again, five times at most [1000]"),
    ];
    let args = common::args("Gives out the files of a folder by TFTP.", &[&options]);
    let silence = args.millis("silence").unwrap_or(Duration::from_secs(1));
    let server = Server { folder: args.choice("folder", ".").into(), silence, transfers: Rc::new(()) };
    if !server.folder.is_dir() {
        common::fail(format!("--folder {}: there is no such folder", server.folder.display()));
    }
    let mut reactor = Reactor::new()?;
    reactor.handle_signals()?;
    let port = reactor.listen_udp(&args.addr, server)?;
    common::listening(port.local_addr());
    common::report(&reactor.run()?);
    Ok(())
}
