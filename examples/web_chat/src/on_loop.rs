//! The variant on one thread: an event loop. A connection is a [`Protocol`] that takes over from another: HTTP first,
//! then a member or a watcher.

use std::io::Write;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::Arc;
use std::time::Duration;

use socketserver::event_loop::{ConnId, Factory, FramedTransport, Peer, TimerId};
use socketserver::framing::FrameBuffer;
use socketserver::{
    lines, Context, Group, HandlerResult, LineReceiver, Lost, PeerFault, Protocol, TlsConfig, Transport,
};

use crate::http::{self, Answer, Heads, LONGEST_HEAD};
use crate::numbers;
use crate::ports::{Kind, Ports};
use crate::room::{Effect, Room, Seat, FLOOD, STOPPING};
use crate::ws::{self, Next, Socket};

/// What all connections share. A clone is a handful of pointers.
#[derive(Clone)]
pub struct Chat {
    pub room: Arc<Room>,
    pub ports: Arc<Ports>,
    pub tls: Option<TlsConfig>,
    /// Members with a browser get frames, members with `nc` get lines. A member that does not read is cut.
    pub frames: Group,
    pub lines: Group,
}

impl Factory for Chat {
    fn build_protocol(&self, _cx: &mut Context<'_>, _peer: &Peer) -> Option<Box<dyn Protocol>> {
        Some(Box::new(Arrival(self.clone())))
    }

    fn start_factory(&self, cx: &mut Context<'_>) {
        let (handle, frames, lines, room) = (cx.handle(), self.frames, self.lines, self.room.clone());
        self.room.clone().set_tell(move |text| {
            let room = room.clone();
            // Fails when the loop has ended, and nobody is there.
            let _ = handle.call_from_thread(move |cx| tell(cx, &room, frames, lines, None, &text));
        });
    }
}

/// Tells a text to all members, or to all but one.
fn tell(cx: &mut Context<'_>, room: &Room, frames: Group, lines: Group, except: Option<ConnId>, text: &str) {
    let reached = cx.broadcast(frames, &ws::text_frame(text), except) + cx.broadcast_line(lines, text, except);
    room.delivered.fetch_add(reached as u64, Relaxed);
}

impl Chat {
    /// Does what a member's message does. Returns what the member is told.
    fn apply(&self, t: &mut Transport<'_>, seat: &Seat, group: Group, effect: Effect) -> Option<String> {
        if let Some(news) = effect.news {
            let id = t.id();
            tell(t, &self.room, self.frames, self.lines, Some(id), &news);
        }
        if seat.has_joined() {
            t.join(group);
        }
        effect.reply
    }

    fn leave(&self, cx: &mut Context<'_>, seat: &mut Seat) {
        if let Some(news) = seat.leave() {
            tell(cx, &self.room, self.frames, self.lines, None, &news);
        }
    }
}

/// A connection, until its port is known.
struct Arrival(Chat);

impl Protocol for Arrival {
    fn connection_made(&mut self, t: &mut Transport<'_>) -> HandlerResult {
        let chat = self.0.clone();
        if chat.ports.kind(&t.local_addr()) == Kind::Lines {
            let seat = Seat::new(&chat.room);
            t.switch_protocol(lines(Liner { chat, seat }), b"");
            return Ok(());
        }
        if let Some(config) = &chat.tls {
            t.start_tls(config, b"")?;
        }
        let unread = FrameBuffer::new(2 * LONGEST_HEAD);
        t.switch_protocol(Browser { chat, unread, heads: Heads::default() }, b"");
        Ok(())
    }

    fn data_received(&mut self, _t: &mut Transport<'_>, _data: &[u8]) -> HandlerResult {
        Ok(())
    }
}

/// A browser that asks for pages.
struct Browser {
    chat: Chat,
    unread: FrameBuffer,
    heads: Heads,
}

impl Protocol for Browser {
    fn connection_made(&mut self, t: &mut Transport<'_>) -> HandlerResult {
        t.set_idle_timeout(Some(http::IDLE));
        t.set_request_timeout(Some(http::REQUEST));
        Ok(())
    }

    fn data_received(&mut self, t: &mut Transport<'_>, data: &[u8]) -> HandlerResult {
        self.unread.push(data)?;
        loop {
            match self.unread.next(&mut self.heads) {
                Ok(Some(_)) => {}
                Ok(None) => return Ok(()),
                Err(e) => {
                    t.write(http::refusal(&e).as_bytes())?;
                    return Err(e.into());
                }
            }
            let Some(head) = self.heads.take() else { return Ok(()) };
            match http::answer(&head) {
                Answer::Reply { bytes, keeps_alive } => {
                    t.write(&bytes)?;
                    if !keeps_alive {
                        t.close();
                        return Ok(());
                    }
                }
                Answer::Events => {
                    t.write(http::EVENTS.as_bytes())?;
                    t.switch_protocol(Watcher(self.chat.room.clone()), b"");
                    return Ok(());
                }
                Answer::Join(accept) => {
                    t.write(accept.as_bytes())?;
                    let (chat, seat) = (self.chat.clone(), Seat::new(&self.chat.room));
                    t.switch_protocol(Member { chat, seat, socket: Socket::new() }, self.unread.unread());
                    return Ok(());
                }
            }
        }
    }
}

/// A member with a browser.
struct Member {
    chat: Chat,
    seat: Seat,
    socket: Socket,
}

impl Protocol for Member {
    fn connection_made(&mut self, t: &mut Transport<'_>) -> HandlerResult {
        t.set_idle_timeout(None); // a chat may be silent for hours
        t.set_request_timeout(None);
        Ok(())
    }

    fn data_received(&mut self, t: &mut Transport<'_>, data: &[u8]) -> HandlerResult {
        let mut stream = t.stream(data);
        loop {
            match self.socket.next(&mut stream) {
                Next::Says(text) => {
                    let effect = self.seat.hear(&text);
                    let is_flood = effect.is_flood;
                    let reply = self.chat.apply(stream.transport(), &self.seat, self.chat.frames, effect);
                    if let Some(reply) = reply {
                        stream.write_all(&ws::text_frame(&reply))?;
                    }
                    if is_flood {
                        stream.transport().leave(self.chat.frames); // nothing may follow the close
                        self.socket.cut(&mut stream);
                        return Err(PeerFault::new(FLOOD).into());
                    }
                }
                Next::Waits => return Ok(()),
                Next::Leaves => {
                    t.close();
                    return Ok(());
                }
                Next::Errs(why) => return Err(PeerFault::new(why).into()),
            }
        }
    }

    fn shutting_down(&mut self, t: &mut Transport<'_>) -> HandlerResult {
        t.leave(self.chat.frames); // nothing may follow the close: a browser would take it for a fault
        self.socket.go_away(&mut t.stream(b""));
        t.request_begins(); // not idle until the member has answered: an idle connection is closed at once
        t.set_timer(ws::GOODBYE);
        Ok(())
    }

    fn timer(&mut self, t: &mut Transport<'_>, _timer: TimerId) -> HandlerResult {
        t.close();
        Ok(())
    }

    fn connection_lost(&mut self, cx: &mut Context<'_>, _why: &Lost) {
        self.chat.leave(cx, &mut self.seat);
    }
}

/// A member with `nc`.
struct Liner {
    chat: Chat,
    seat: Seat,
}

impl LineReceiver for Liner {
    fn connection_made(&mut self, t: &mut FramedTransport<'_>) -> HandlerResult {
        t.send_line("What is your name?")
    }

    fn line_received(&mut self, t: &mut FramedTransport<'_>, line: &[u8]) -> HandlerResult {
        let effect = self.seat.hear(&String::from_utf8_lossy(line));
        let is_flood = effect.is_flood;
        if let Some(reply) = self.chat.apply(t, &self.seat, self.chat.lines, effect) {
            t.send_line(reply)?;
        }
        match is_flood {
            true => Err(PeerFault::new(FLOOD).into()),
            false => Ok(()),
        }
    }

    fn shutting_down(&mut self, t: &mut FramedTransport<'_>) -> HandlerResult {
        t.send_line(STOPPING)
    }

    fn connection_lost(&mut self, cx: &mut Context<'_>, _why: &Lost) {
        self.chat.leave(cx, &mut self.seat);
    }
}

/// A browser that watches the numbers.
struct Watcher(Arc<Room>);

impl Protocol for Watcher {
    fn connection_made(&mut self, t: &mut Transport<'_>) -> HandlerResult {
        t.set_idle_timeout(None);
        t.set_request_timeout(None);
        t.set_timer(Duration::ZERO);
        Ok(())
    }

    fn data_received(&mut self, _t: &mut Transport<'_>, _data: &[u8]) -> HandlerResult {
        Ok(()) // an EventSource says nothing
    }

    fn timer(&mut self, t: &mut Transport<'_>, _timer: TimerId) -> HandlerResult {
        let stats = t.server().stats();
        t.write(numbers::event(&stats, &self.0).as_bytes())?;
        t.set_timer(numbers::EVERY);
        Ok(())
    }
}
