//! A chat room in one thread: every line goes to all the others. Works by telnet and nc.
//! `cargo run --example chat_room`, then `nc 127.0.0.1 1234` in several terminals.

mod common;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use common::chat::{check_name, printable, HELP};
use common::tls::TLS;
use socketserver::event_loop::{ConnId, Peer};
use socketserver::{factory, lines, Context, EventLoop, Group, HandlerResult};
use socketserver::{LineReceiver, LineTransport, Lost, ServerBuilder};

/// What all members share: they live in one thread, so no lock is needed.
struct Room {
    /// A member that does not read is cut when 8 MiB wait. It costs the others nothing.
    everyone: Group,
    names: RefCell<BTreeMap<ConnId, String>>,
}

struct Member {
    room: Rc<Room>,
    id: ConnId,
    name: Option<String>,
}

impl LineReceiver for Member {
    fn connection_made(&mut self, transport: &mut LineTransport<'_>) -> HandlerResult {
        transport.send_line("What is your name?")
    }

    fn line_received(&mut self, transport: &mut LineTransport<'_>, line: &[u8]) -> HandlerResult {
        let line = printable(&String::from_utf8_lossy(line));
        match (&self.name, line.split_once(' ').unwrap_or((&line, ""))) {
            (None, _) => self.enter(transport, line.trim())?,
            (Some(_), ("/quit", _)) => transport.close(),
            (Some(_), ("/who", _)) => {
                let names: Vec<String> = self.room.names.borrow().values().cloned().collect();
                transport.send_line(names.join(", "))?;
            }
            (Some(_), ("/nick", name)) => self.enter(transport, name.trim())?,
            (Some(_), (command, _)) if command.starts_with('/') => transport.send_line(HELP)?,
            (Some(_), ("", "")) => {}
            (Some(name), _) => self.tell_others(transport, &format!("{name}: {line}")),
        }
        Ok(())
    }

    fn connection_lost(&mut self, cx: &mut Context<'_>, _lost: &Lost) {
        if let Some(name) = self.room.names.borrow_mut().remove(&self.id) {
            self.tell_others(cx, &format!("* {name} has left"));
        }
    }
}

impl Member {
    /// Takes a name, the first or another one, unless somebody has it.
    fn enter(&mut self, transport: &mut LineTransport<'_>, name: &str) -> HandlerResult {
        let taken = {
            let names = self.room.names.borrow();
            let others = names.iter().filter(|(id, _)| **id != self.id).map(|(_, name)| name);
            check_name(name, others)
        };
        if let Err(why) = taken {
            return transport.send_line(why);
        }
        let news = match self.name.replace(name.to_owned()) {
            Some(old) => format!("* {old} is now {name}"),
            None => format!("* {name} has joined"),
        };
        self.room.names.borrow_mut().insert(self.id, name.to_owned());
        transport.join(self.room.everyone);
        self.tell_others(transport, &news);
        Ok(())
    }

    fn tell_others(&self, cx: &mut Context<'_>, text: &str) {
        cx.broadcast_line(self.room.everyone, text, Some(self.id));
    }
}

fn main() -> socketserver::Result<()> {
    let about = format!("A chat room, by telnet or nc. {HELP}");
    let args = common::args(&about, &[common::LIMITS, TLS]);
    let room = Rc::new(Room { everyone: Group::new(), names: RefCell::default() });
    let member = move |peer: &Peer| lines(Member { room: room.clone(), id: peer.id(), name: None });
    let builder = ServerBuilder::new().handle_signals().strategy(EventLoop::new());
    let mut server = args.tls(args.limits(builder)).bind(&args.addr, factory(member))?;
    common::listening(server.local_addr());
    let report = server.serve_forever()?;
    common::report(&report);
    Ok(())
}
