//! A protocol of closures that writes down what it is called for, and a reactor on a thread of its own.
#![allow(dead_code)] // each test file uses a part

pub mod clients;
pub mod teller;

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use socketserver::event_loop::{ConnId, Eof, ListeningPort, RateLimit, ReactorHandle, TimerId};
use socketserver::testing::TestLoop;
use socketserver::{Context, EventLoop, HandlerResult, Lost, Protocol, Reactor, Report, Transport};

/// What was called, in order.
#[derive(Debug, Clone, Default)]
pub struct Journal(Rc<RefCell<Vec<String>>>);

impl Journal {
    pub fn add(&self, entry: impl Into<String>) {
        self.0.borrow_mut().push(entry.into());
    }

    /// What has been written since the last call, with blanks between.
    pub fn take(&self) -> String {
        self.0.take().join(" ")
    }

    pub fn count(&self, entry: &str) -> usize {
        self.0.borrow().iter().filter(|e| e.starts_with(entry)).count()
    }
}

type Act = Box<dyn FnMut(&mut Transport<'_>, &[u8]) -> HandlerResult>;
type AtLoss = Box<dyn FnMut(&mut Context<'_>, &Lost)>;

/// The callbacks that have a transport, as `on` and the journal name them.
pub const CALLBACKS: [&str; 10] =
    ["made", "data", "eof", "pause", "resume", "transfer", "reading", "timer", "message", "shutting_down"];

/// Notes each callback as `name`, data as `data:...`, and the end as `lost:reason`; then does what the test says.
pub struct Script {
    journal: Journal,
    acts: HashMap<&'static str, Act>,
    at_loss: Option<AtLoss>,
    at_drop: Option<Box<dyn FnOnce()>>,
    at_eof: Eof,
    inside: Rc<Cell<bool>>,
}

impl Script {
    pub fn new(journal: &Journal) -> Self {
        let (journal, inside) = (journal.clone(), Rc::default());
        Self { journal, acts: HashMap::new(), at_loss: None, at_drop: None, at_eof: Eof::Close, inside }
    }

    pub fn on(
        mut self,
        callback: &'static str,
        act: impl FnMut(&mut Transport<'_>, &[u8]) -> HandlerResult + 'static,
    ) -> Self {
        assert!(CALLBACKS.contains(&callback), "{callback}");
        self.acts.insert(callback, Box::new(act));
        self
    }

    pub fn at_loss(mut self, act: impl FnMut(&mut Context<'_>, &Lost) + 'static) -> Self {
        self.at_loss = Some(Box::new(act));
        self
    }

    pub fn at_drop(mut self, act: impl FnOnce() + 'static) -> Self {
        self.at_drop = Some(Box::new(act));
        self
    }

    pub fn keep_open(mut self) -> Self {
        self.at_eof = Eof::KeepOpen;
        self
    }

    /// All scripts with this flag: no callback of one runs within another's.
    pub fn never_inside(mut self, inside: &Rc<Cell<bool>>) -> Self {
        self.inside = inside.clone();
        self
    }

    fn call(&mut self, callback: &'static str, transport: &mut Transport<'_>, data: &[u8]) -> HandlerResult {
        let text = if callback == "data" { format!(":{}", String::from_utf8_lossy(data)) } else { String::new() };
        self.journal.add(format!("{callback}{text}"));
        let _inside = Inside::of(&self.inside, callback);
        self.acts.get_mut(callback).map_or(Ok(()), |act| act(transport, data))
    }
}

/// While it lives, a callback runs.
struct Inside(Rc<Cell<bool>>);

impl Inside {
    fn of(flag: &Rc<Cell<bool>>, callback: &str) -> Self {
        assert!(!flag.replace(true), "{callback} within a callback");
        Self(flag.clone())
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

impl Protocol for Script {
    fn connection_made(&mut self, transport: &mut Transport<'_>) -> HandlerResult {
        self.call("made", transport, b"")
    }

    fn data_received(&mut self, transport: &mut Transport<'_>, data: &[u8]) -> HandlerResult {
        self.call("data", transport, data)
    }

    fn eof_received(&mut self, transport: &mut Transport<'_>) -> HandlerResult<Eof> {
        self.call("eof", transport, b"").map(|()| self.at_eof)
    }

    fn pause_writing(&mut self, transport: &mut Transport<'_>) -> HandlerResult {
        self.call("pause", transport, b"")
    }

    fn resume_writing(&mut self, transport: &mut Transport<'_>) -> HandlerResult {
        self.call("resume", transport, b"")
    }

    fn transfer_complete(&mut self, transport: &mut Transport<'_>) -> HandlerResult {
        self.call("transfer", transport, b"")
    }

    fn reading_resumed(&mut self, transport: &mut Transport<'_>) -> HandlerResult {
        self.call("reading", transport, b"")
    }

    fn timer(&mut self, transport: &mut Transport<'_>, _timer: TimerId) -> HandlerResult {
        self.call("timer", transport, b"")
    }

    fn message(&mut self, transport: &mut Transport<'_>, message: Box<dyn Any>) -> HandlerResult {
        let text = message.downcast_ref::<&str>().map_or("", |text| text);
        self.call("message", transport, text.as_bytes())
    }

    fn shutting_down(&mut self, transport: &mut Transport<'_>) -> HandlerResult {
        self.call("shutting_down", transport, b"")
    }

    fn connection_lost(&mut self, cx: &mut Context<'_>, why: &Lost) {
        self.journal.add(format!("lost:{why}"));
        let _inside = Inside::of(&self.inside, "connection_lost");
        if let Some(act) = &mut self.at_loss {
            act(cx, why);
        }
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        if let Some(act) = self.at_drop.take() {
            act();
        }
    }
}

/// Repeats what it hears.
pub struct Echo;

impl Protocol for Echo {
    fn data_received(&mut self, transport: &mut Transport<'_>, data: &[u8]) -> HandlerResult {
        Ok(transport.write(data)?)
    }
}

/// A reactor that runs on a thread of its own; dropped, it is shut down and joined.
pub struct Looped {
    pub addr: SocketAddr,
    pub handle: ReactorHandle,
    thread: Option<JoinHandle<Report>>,
}

/// Runs a reactor that is set up by this.
pub fn run(setup: impl FnOnce(&mut Reactor) -> ListeningPort + Send + 'static) -> Looped {
    run_with(EventLoop::new(), setup)
}

pub fn run_with(settings: EventLoop, setup: impl FnOnce(&mut Reactor) -> ListeningPort + Send + 'static) -> Looped {
    let (send, receive) = mpsc::channel();
    let thread = thread::spawn(move || {
        let mut reactor = Reactor::with(settings).expect("make a reactor");
        let port = setup(&mut reactor);
        send.send((port.local_addr().socket_addr().expect("a TCP port"), reactor.handle())).expect("the test waits");
        reactor.run().expect("the reactor runs")
    });
    let (addr, handle) = receive.recv().expect("the reactor listens");
    Looped { addr, handle, thread: Some(thread) }
}

impl Looped {
    /// Has the loop do this, and waits for the result.
    pub fn ask<R: Send + 'static>(&self, act: impl FnOnce(&mut Context<'_>) -> R + Send + 'static) -> R {
        let (send, receive) = mpsc::channel();
        self.handle.call_from_thread(move |cx| drop(send.send(act(cx)))).expect("the reactor is there");
        receive.recv_timeout(Duration::from_secs(30)).expect("the loop answers")
    }

    /// Shuts down with this grace; what the run returns.
    pub fn shutdown(self, grace: Duration) -> Report {
        self.handle.shutdown(grace).expect("the reactor is there");
        self.join()
    }

    pub fn has_ended(&self) -> bool {
        self.thread.as_ref().is_some_and(JoinHandle::is_finished)
    }

    pub fn join(mut self) -> Report {
        let by = Instant::now() + Duration::from_secs(30);
        while !self.has_ended() {
            assert!(Instant::now() < by, "the reactor does not return");
            thread::sleep(Duration::from_millis(1));
        }
        self.thread.take().expect("joined once").join().expect("the reactor's thread does not panic")
    }
}

impl Drop for Looped {
    fn drop(&mut self) {
        self.handle.server().shutdown_now();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A connection in memory that does this with what it hears.
pub fn with(act: impl FnMut(&mut Transport<'_>, &[u8]) -> HandlerResult + 'static) -> (TestLoop, ConnId, Journal) {
    let (mut test, journal) = (TestLoop::new().unwrap(), Journal::default());
    let id = test.connect(Script::new(&journal).on("data", act));
    journal.take();
    (test, id, journal)
}

/// A connection whose reading has this limit, with the number of bytes that it has been given.
pub fn limited_reader(test: &mut TestLoop, limit: &RateLimit) -> (ConnId, Rc<Cell<usize>>) {
    let (limit, got) = (limit.clone(), Rc::new(Cell::new(0)));
    let heard = got.clone();
    let script = Script::new(&Journal::default()).on("made", move |t, _| {
        t.limit_reading(&limit);
        Ok(())
    });
    let id = test.connect(script.on("data", move |_, data| {
        heard.set(heard.get() + data.len());
        Ok(())
    }));
    (id, got)
}
