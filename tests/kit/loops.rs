//! A server of several loops. The tests know which client is in which loop.

use std::collections::HashMap;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::{mpsc, Arc, Condvar, Mutex};
use std::thread::{self, ThreadId};

use socketserver::event_loop::{ConnId, Factory, Peer, ReactorHandle};
use socketserver::{Context, EventLoops, Group, HandlerResult, Protocol, ServerBuilder, Transport};

use super::{connect, expect, serve, Running, LONG};

/// What all loops know.
#[derive(Default)]
pub struct Known {
    /// A handle for each loop, as they have begun.
    handles: Mutex<Vec<(ThreadId, ReactorHandle)>>,
    clients: Mutex<HashMap<SocketAddr, (ConnId, ThreadId)>>,
    /// How often factories have been told of their end.
    pub stopped: Mutex<usize>,
    stall: Stall,
}

/// Where a loop stands still until the test lets it go on.
#[derive(Default)]
struct Stall {
    stands: Mutex<bool>,
    changed: Condvar,
}

impl Stall {
    fn set(&self, stands: bool) {
        *self.stands.lock().unwrap() = stands;
        self.changed.notify_all();
    }

    /// Waits until a loop stands still, or until none does.
    fn until(&self, stands: bool) {
        let guard = self.stands.lock().unwrap();
        let (guard, _) = self.changed.wait_timeout_while(guard, LONG, |now| *now != stands).unwrap();
        assert_eq!(*guard, stands, "within {LONG:?} the other half of the test did nothing");
    }
}

pub struct Members {
    pub known: Arc<Known>,
    pub room: Group,
}

impl Factory for Members {
    fn build_protocol(&self, _cx: &mut Context<'_>, peer: &Peer) -> Option<Box<dyn Protocol>> {
        let addr = peer.addr().socket_addr()?;
        self.known.clients.lock().unwrap().insert(addr, (peer.id(), thread::current().id()));
        Some(Box::new(Member(self.room, self.known.clone())))
    }

    fn start_factory(&self, cx: &mut Context<'_>) {
        self.known.handles.lock().unwrap().push((thread::current().id(), cx.handle()));
    }

    fn stop_factory(&self, _cx: &mut Context<'_>) {
        *self.known.stopped.lock().unwrap() += 1;
    }
}

/// A member of the room. It repeats what it hears, writes the texts that it is posted, and holds its loop up when asked.
struct Member(Group, Arc<Known>);

impl Protocol for Member {
    fn connection_made(&mut self, t: &mut Transport<'_>) -> HandlerResult {
        t.join(self.0);
        Ok(())
    }

    fn data_received(&mut self, t: &mut Transport<'_>, data: &[u8]) -> HandlerResult {
        if data == b"stall" {
            self.1.stall.set(true);
            self.1.stall.until(false);
        }
        Ok(t.write(data)?)
    }

    fn message(&mut self, t: &mut Transport<'_>, message: Box<dyn std::any::Any>) -> HandlerResult {
        let text = message.downcast::<&str>().map_err(|_| "not a text")?;
        Ok(t.write(text.as_bytes())?)
    }
}

/// A server with loops that the tests can tell apart.
pub struct Rig {
    pub server: Running,
    pub known: Arc<Known>,
    pub room: Group,
}

/// A client, and the connection as the server knows it.
pub struct Client {
    pub socket: TcpStream,
    pub id: ConnId,
    /// The thread of its loop.
    pub place: ThreadId,
}

impl Rig {
    pub fn new(builder: ServerBuilder<EventLoops>) -> Self {
        Self::with(builder, Group::new())
    }

    pub fn with(builder: ServerBuilder<EventLoops>, room: Group) -> Self {
        let known = Arc::<Known>::default();
        let server = builder.bind("127.0.0.1:0", Members { known: known.clone(), room }).unwrap();
        Self { server: serve(server), known, room }
    }

    /// A client that is served.
    pub fn client(&self) -> Client {
        let mut socket = connect(self.server.addr());
        socket.write_all(b"here").unwrap();
        expect(&mut socket, "here");
        let (id, place) = self.known.clients.lock().unwrap()[&socket.local_addr().unwrap()];
        Client { socket, id, place }
    }

    /// A client in each of this number of loops.
    pub fn one_in_each(&self, loops: usize) -> Vec<Client> {
        let mut found: Vec<Client> = Vec::new();
        let mut others = Vec::new(); // they stay, so that another loop's turn comes
        while found.len() < loops {
            let client = self.client();
            if found.iter().any(|other| other.place == client.place) {
                others.push(client);
            } else {
                found.push(client);
            }
            assert!(others.len() < 500, "no client for one of {loops} loops");
        }
        found
    }

    /// The handle of the loop on this thread.
    pub fn handle(&self, place: ThreadId) -> ReactorHandle {
        let handles = self.known.handles.lock().unwrap();
        handles.iter().find(|(thread, _)| *thread == place).expect("a loop").1.clone()
    }

    /// Has the loop of this client stand still, until [`go_on`](Self::go_on).
    pub fn stand_still(&self, client: &mut Client) {
        client.socket.write_all(b"stall").unwrap();
        self.known.stall.until(true);
    }

    pub fn go_on(&self) {
        self.known.stall.set(false);
    }

    pub fn started(&self) -> usize {
        self.known.handles.lock().unwrap().len()
    }

    /// Has the loop on this thread do this, and waits for the result.
    pub fn ask<R: Send + 'static>(
        &self,
        place: ThreadId,
        act: impl FnOnce(&mut Context<'_>) -> R + Send + 'static,
    ) -> R {
        let (send, receive) = mpsc::channel();
        self.handle(place).call_from_thread(move |cx| drop(send.send(act(cx)))).expect("the loop is there");
        receive.recv_timeout(LONG).expect("the loop answers")
    }
}
