//! Waiting for whatever comes first: input, a waker, the stop, the end.

use std::cell::{Cell, OnceCell, RefCell};
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Instant;

use super::{Deadline, Wire};
use crate::config::Limit;
use crate::connection::detached::Berth;
use crate::connection::event::{ConnectionWaker, Event};
use crate::connection::output::Output;
use crate::mailbox::Bell;
use crate::tls::Session;

/// What few connections have: what their waits remember, and that they have left their handler.
#[derive(Debug, Default)]
pub(super) struct Waits {
    /// Made at the first call of `waker`: only then do waits pay for it.
    bell: OnceCell<Arc<Bell>>,
    /// The start of the first wait after the last input. The idle limit counts from here: a client that is told
    /// much has still said nothing.
    silent_since: Cell<Option<Instant>>,
    /// True if the last event was a wake-up. Then input goes first, so that neither starves the other.
    was_woken: Cell<bool>,
    /// True if the handler was told of the stop.
    knows_stop: Cell<bool>,
    /// Set once the connection has left its handler.
    berth: OnceCell<Arc<Berth>>,
}

/// What the read buffer has, as a wait begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::connection) enum Buffered {
    Nothing,
    /// Input that the handler has not looked at.
    News,
    /// A part of a line or a frame, which more input must complete.
    Part,
}

impl Wire {
    pub(in crate::connection) fn waker(&self) -> io::Result<ConnectionWaker> {
        let bell = &self.waits().bell;
        if bell.get().is_none() {
            let _ = bell.set(Arc::new(Bell::new()?));
        }
        let bell = bell.get().ok_or_else(|| io::Error::other("no bell"))?;
        Ok(ConnectionWaker::new(bell.clone()))
    }

    /// Makes the place for the permit of a connection that leaves its handler.
    pub(in crate::connection) fn make_berth(&self) -> &Arc<Berth> {
        self.waits().berth.get_or_init(Arc::default)
    }

    /// Returns the place for the permit, if the connection has left its handler.
    pub(in crate::connection) fn berth(&self) -> Option<&Arc<Berth>> {
        self.waits.get()?.berth.get()
    }

    fn waits(&self) -> &Waits {
        self.waits.get_or_init(Box::default)
    }

    /// Waits for the next event; `None` if `until` comes first. `read` reads once without a wait, into the buffer.
    ///
    /// The wait ends the request, but not within a line or a frame. The next one begins with its input.
    pub(in crate::connection) fn next_event(
        &self,
        output: &RefCell<Output>,
        buffered: Buffered,
        until: Option<Instant>,
        read: impl FnMut() -> io::Result<Option<usize>>,
    ) -> io::Result<Option<Event>> {
        if self.socket.is_none() {
            return Err(io::ErrorKind::NotConnected.into()); // there would be nothing to wait for
        }
        let waits = self.waits();
        let idle = buffered != Buffered::Part;
        if idle {
            self.between_requests();
        }
        let by = self.silence_ends(waits, idle);
        let flushed = self.flush(&mut output.borrow_mut());
        let event = flushed.and_then(|()| self.event(output, buffered, by, until, read));
        if !matches!(event, Ok(None | Some(Event::Woken | Event::Stopping))) {
            waits.silent_since.set(None);
            if idle {
                self.request_begins();
            }
        }
        event
    }

    fn event(
        &self,
        output: &RefCell<Output>,
        buffered: Buffered,
        by: Option<Deadline>,
        until: Option<Instant>,
        mut read: impl FnMut() -> io::Result<Option<usize>>,
    ) -> io::Result<Option<Event>> {
        let waits = self.waits();
        let mut readable = self.tls.get().is_some_and(Session::holds_input);
        loop {
            if self.is_stopping_idle(true) && !waits.knows_stop.replace(true) {
                self.note(|p| p.stopped = true);
                return Ok(Some(Event::Stopping));
            }
            let is_woken = waits.bell.get().is_some_and(|bell| bell.is_woken());
            if is_woken && !waits.was_woken.get() {
                return Ok(Some(waits.woken()));
            }
            let look = readable || is_woken;
            if let Some(event) = self.arrived(output, buffered, look, &mut read)? {
                waits.was_woken.set(false);
                return Ok(Some(event));
            }
            if look {
                self.check(by)?;
            }
            if is_woken {
                return Ok(Some(waits.woken()));
            }
            if look && until.is_some_and(|at| at <= Instant::now()) {
                return Ok(None);
            }
            readable = self.shared(output, || self.wait_for_news(waits, by, until))?;
        }
    }

    /// Returns what the peer, or a writer, has done. It reads only if `look` is true.
    fn arrived(
        &self,
        output: &RefCell<Output>,
        buffered: Buffered,
        look: bool,
        read: &mut impl FnMut() -> io::Result<Option<usize>>,
    ) -> io::Result<Option<Event>> {
        // Messages of other threads go out before each wait.
        self.flush_mailbox(&mut output.borrow_mut())?;
        if self.is_ended_by_writer() {
            // Once more: the last messages may have come in between.
            return self.flush_mailbox(&mut output.borrow_mut()).map(|()| Some(Event::End));
        }
        if buffered == Buffered::News {
            return Ok(Some(Event::Input));
        }
        if self.has_ended() {
            return Ok(Some(Event::End));
        }
        let arrived = if look { read()? } else { None };
        Ok(arrived.map(|n| if n == 0 { Event::End } else { Event::Input }))
    }

    /// Waits for anything. True if a read may bring input or the end, and after any wait that ended for nothing else.
    fn wait_for_news(&self, waits: &Waits, by: Option<Deadline>, until: Option<Instant>) -> io::Result<bool> {
        let bell = waits.bell.get();
        let by = by.map(|d| d.at).into_iter().chain(until).min();
        // A handler that knows of the stop has something to finish.
        let idle = !waits.knows_stop.get();
        let ready = self.wait_for(idle, [Some(self.as_fd()), bell.map(|bell| bell.as_fd())], None, by)?;
        if ready.has(1) {
            bell.into_iter().for_each(|bell| bell.clear_late());
        }
        Ok(ready.has(0) || ready.none())
    }

    /// Returns the end of the wait for input. An idle one counts over all waits since the last input.
    fn silence_ends(&self, waits: &Waits, idle: bool) -> Option<Deadline> {
        let limits = self.limits();
        if !idle {
            return self.deadline(Limit::Read, limits.read);
        }
        let (limit, after) = limits.of_idle_wait();
        let after = after?;
        let since = waits.silent_since.get().unwrap_or_else(Instant::now);
        waits.silent_since.set(Some(since));
        Deadline::new(since, limit, after)
    }
}

impl Waits {
    fn woken(&self) -> Event {
        self.bell.get().into_iter().for_each(|bell| bell.clear());
        self.was_woken.set(true);
        Event::Woken
    }
}
