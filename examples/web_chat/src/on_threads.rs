//! The variant with a thread for each connection: handlers that wait. Members write to each other through
//! [`ConnectionWriter`]s.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use socketserver::connection::{ConnectionWriter, Event, SendError};
use socketserver::framing::FrameError;
use socketserver::{Connection, HandlerResult, PeerFault, StreamRequestHandler, TlsConfig};

use crate::http::{self, Answer, Heads};
use crate::numbers;
use crate::ports::{Kind, Ports};
use crate::room::{Room, Seat, FLOOD, STOPPING};
use crate::ws::{self, Next, Socket};

/// One for all connections.
pub struct Chat {
    room: Arc<Room>,
    ports: Arc<Ports>,
    tls: Option<TlsConfig>,
    members: Arc<Members>,
}

/// How a member is written to.
struct Outlet {
    writer: ConnectionWriter,
    /// Members with a browser get frames, members with `nc` get lines.
    takes_frames: bool,
}

/// The members that have joined, each by its number.
#[derive(Default)]
struct Members(Mutex<BTreeMap<u64, Outlet>>);

impl Members {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Outlet>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells a text to all members, or to all but one. A member that does not read is cut when 1 MiB waits.
    fn tell(&self, room: &Room, except: Option<u64>, text: &str) {
        let (frame, line) = (ws::text_frame(text), Arc::<[u8]>::from([text.as_bytes(), b"\n"].concat()));
        let mut reached = 0;
        for (number, outlet) in self.lock().iter() {
            if Some(*number) == except {
                continue;
            }
            match outlet.writer.send(if outlet.takes_frames { frame.clone() } else { line.clone() }) {
                Ok(()) => reached += 1,
                Err(SendError::Full) => outlet.writer.close(),
                Err(_) => {} // has ended just now
            }
        }
        room.delivered.fetch_add(reached, Relaxed);
    }
}

/// A member's place, which is given up however the handler ends.
struct Place<'a> {
    chat: &'a Chat,
    seat: Seat,
    takes_frames: bool,
}

impl Place<'_> {
    /// Does what a message does. False if the member says too much, and must go.
    fn hear(&mut self, writer: &ConnectionWriter, text: &str) -> HandlerResult<bool> {
        let had_joined = self.seat.has_joined();
        let effect = self.seat.hear(text);
        if let Some(news) = effect.news {
            self.chat.members.tell(&self.chat.room, Some(self.seat.number()), &news);
        }
        if let Some(reply) = effect.reply {
            match self.takes_frames {
                true => writer.send(ws::text_frame(&reply))?,
                false => writer.send_line(reply)?,
            }
        }
        if self.seat.has_joined() && !had_joined {
            let outlet = Outlet { writer: writer.clone(), takes_frames: self.takes_frames };
            self.chat.members.lock().insert(self.seat.number(), outlet);
        }
        Ok(!effect.is_flood)
    }
}

impl Place<'_> {
    /// Sends what the member has been told so far, and tells it no more. Nothing may follow a close: a browser would take
    /// it for a fault.
    fn fall_silent(&self, conn: &mut Connection) -> io::Result<()> {
        self.chat.members.lock().remove(&self.seat.number());
        conn.flush()
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.chat.members.lock().remove(&self.seat.number());
        if let Some(news) = self.seat.leave() {
            self.chat.members.tell(&self.chat.room, None, &news);
        }
    }
}

impl StreamRequestHandler for Chat {
    fn handle(&self, conn: &mut Connection) -> HandlerResult {
        if self.ports.kind(&conn.local_addr()?) == Kind::Lines {
            return self.serve_lines(conn);
        }
        if let Some(config) = &self.tls {
            conn.start_tls(config)?;
        }
        self.serve_browser(conn)
    }
}

impl Chat {
    pub fn new(room: Arc<Room>, ports: Arc<Ports>, tls: Option<TlsConfig>) -> Self {
        let members = Arc::new(Members::default());
        let (theirs, members_room) = (members.clone(), Arc::downgrade(&room));
        room.set_tell(move |text| {
            if let Some(room) = members_room.upgrade() {
                theirs.tell(&room, None, &text);
            }
        });
        Self { room, ports, tls, members }
    }

    fn place(&self, takes_frames: bool) -> Place<'_> {
        Place { chat: self, seat: Seat::new(&self.room), takes_frames }
    }

    fn serve_browser(&self, conn: &mut Connection) -> HandlerResult {
        conn.set_idle_timeout(Some(http::IDLE));
        conn.set_request_timeout(Some(http::REQUEST));
        let mut heads = Heads::default();
        while conn.next_request()? {
            match conn.read_frame(&mut heads) {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(e) => return refuse(conn, e),
            }
            let Some(head) = heads.take() else { break };
            match http::answer(&head) {
                Answer::Reply { bytes, keeps_alive } => {
                    conn.write_all(&bytes)?;
                    if !keeps_alive {
                        break;
                    }
                }
                Answer::Events => return self.serve_watcher(conn),
                Answer::Join(accept) => {
                    conn.write_all(accept.as_bytes())?;
                    return self.serve_member(conn);
                }
            }
        }
        Ok(())
    }

    /// A member with a browser.
    fn serve_member(&self, conn: &mut Connection) -> HandlerResult {
        conn.set_idle_timeout(None); // a chat may be silent for hours
        conn.set_request_timeout(None);
        let (mut socket, mut place, writer) = (Socket::new(), self.place(true), conn.writer()?);
        let mut is_stopping = false;
        loop {
            let event = match is_stopping {
                false => Some(conn.wait()?),
                true => conn.wait_timeout(ws::GOODBYE)?,
            };
            if event == Some(Event::Stopping) {
                is_stopping = true;
                place.fall_silent(conn)?;
                socket.go_away(&mut conn.nonblocking());
            }
            loop {
                match socket.next(&mut conn.nonblocking()) {
                    Next::Says(text) => {
                        if !place.hear(&writer, &text)? {
                            place.fall_silent(conn)?;
                            socket.cut(&mut conn.nonblocking());
                            return Err(PeerFault::new(FLOOD).into());
                        }
                    }
                    Next::Waits => break,
                    Next::Leaves => return Ok(()),
                    Next::Errs(why) => return Err(PeerFault::new(why).into()),
                }
            }
            if matches!(event, Some(Event::End) | None) {
                return Ok(());
            }
        }
    }

    /// A member with `nc`.
    fn serve_lines(&self, conn: &mut Connection) -> HandlerResult {
        let (mut place, writer) = (self.place(false), conn.writer()?);
        writer.send_line("What is your name?")?;
        while conn.next_request()? {
            let Some(line) = conn.next_line()? else { break };
            if !place.hear(&writer, &line)? {
                return Err(PeerFault::new(FLOOD).into());
            }
        }
        if conn.is_stopping() {
            writer.send_line(STOPPING)?;
        }
        Ok(())
    }

    /// A browser that watches the numbers, until it goes or the server stops.
    fn serve_watcher(&self, conn: &mut Connection) -> HandlerResult {
        conn.set_idle_timeout(None);
        conn.set_request_timeout(None);
        conn.write_all(http::EVENTS.as_bytes())?;
        loop {
            let stats = conn.server().stats();
            conn.write_all(numbers::event(&stats, &self.room).as_bytes())?;
            if conn.wait_timeout(numbers::EVERY)?.is_some() {
                return Ok(()); // an EventSource says nothing: this is its end, or the stop
            }
        }
    }
}

/// Tells a client what was wrong with its request.
fn refuse(conn: &mut Connection, why: io::Error) -> HandlerResult {
    if let Some(fault) = why.get_ref().and_then(|inner| inner.downcast_ref::<FrameError>()) {
        conn.write_all(http::refusal(fault).as_bytes())?;
    }
    Err(why.into())
}
