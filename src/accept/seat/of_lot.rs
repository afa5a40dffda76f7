//! A turn of the accept loop where connections are parked: one set for all threads.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{AcceptEvent, Seat};
use crate::accept::failed_to_wait;
use crate::accept::failure::{after_failure, NextStep};
use crate::accept::lot::{Event, Lot};
use crate::accept::request::{Accepting, Request};
use crate::admit::Permit;
use crate::error::Result;
use crate::listen::{Listener, REST};
use crate::sync::{left, now};
use crate::sys;

impl Seat<'_> {
    /// As [`next`](Self::next). A connection that was parked, and has a request now, comes as a [`Request`] too.
    pub(super) fn next_of(&mut self, lot: &Arc<Lot>, deadline: Option<Instant>) -> Result<AcceptEvent> {
        loop {
            let mut until = deadline;
            if self.core().control.stopping() {
                if let Some(event) = self.next_at_stop_of(lot)? {
                    return Ok(event);
                }
                until = deadline.into_iter().chain(self.look_again_at_stop()).min();
            }
            if self.watched.is_some() && !self.wait_beside(lot, left(until))? {
                return Ok(AcceptEvent::Watched);
            }
            let patience = if self.watched.is_some() { Some(Duration::ZERO) } else { left(until) };
            match lot.wait(patience, &self.listeners).map_err(failed_to_wait)? {
                Event::Visit(visit) => return Ok(AcceptEvent::Request(Request::again(visit, lot))),
                Event::Listener(index) => {
                    if let Some(request) = self.accept_for(lot, index)? {
                        return Ok(AcceptEvent::Request(request));
                    }
                }
                Event::Other => {}
            }
            if left(deadline) == Some(Duration::ZERO) {
                return Ok(AcceptEvent::Timeout);
            }
        }
    }

    /// Waits for the lot and for the watched descriptor. False if the latter is readable.
    fn wait_beside(&self, lot: &Lot, patience: Option<Duration>) -> Result<bool> {
        let wait = [Some(std::os::fd::AsFd::as_fd(lot)), self.watched];
        Ok(!sys::poll(wait, None, patience).map_err(failed_to_wait)?.has(1))
    }

    /// Accepts one connection. The listener is watched again afterwards.
    fn accept_for(&mut self, lot: &Arc<Lot>, index: usize) -> Result<Option<Request>> {
        let core = self.core().clone();
        // What the queue holds at a stop is counted, and taken without an event.
        if core.control.stopping() {
            return Ok(None);
        }
        let permit = if core.control.paused() { None } else { Permit::reserve(&core) };
        if permit.is_none() && (core.control.paused() || !self.refuses_at_limit()) {
            lot.listen_later(&self.listeners, index, None);
            return Ok(None);
        }
        match (self.take(index), permit) {
            (Ok(work), Some(mut permit)) => {
                core.backoff.is_over();
                permit.engage();
                lot.listen(&self.listeners, index);
                return Ok(Request::admit(work, permit).map(|request| request.with_lot(lot)));
            }
            (Ok(work), None) => {
                lot.listen(&self.listeners, index);
                super::refuse_at_limit(&core, work);
            }
            (Err(e), permit) => {
                permit.into_iter().for_each(Permit::give_back_unused);
                self.listen_after(lot, index, e)?;
            }
        }
        Ok(None)
    }

    /// Watches a listener again after a failed accept. The thread does not rest meanwhile: it serves.
    fn listen_after(&self, lot: &Lot, index: usize, e: std::io::Error) -> Result<()> {
        match after_failure(self.core(), &self.listeners[index], e) {
            NextStep::GoOn => lot.listen(&self.listeners, index),
            NextStep::Rest(time) => lot.listen_later(&self.listeners, index, Some(time.as_millis() as u64)),
            // The server goes on while one listener is left.
            NextStep::Lost(error) if self.listeners.iter().all(Listener::is_lost) => return Err(error),
            NextStep::Lost(_) => {}
        }
        Ok(())
    }

    /// Ends what is idle, then takes what the kernel's queue held at the stop. `None`: wait, for parked connections that
    /// are still served, or for a permit.
    fn next_at_stop_of(&mut self, lot: &Arc<Lot>) -> Result<Option<AcceptEvent>> {
        let (core, drains) = (self.core().clone(), Accepting::is_here());
        lot.begin_stop(drains);
        core.wake_idle();
        lot.end_idle();
        // On the thread that drains, nobody else is there to cut.
        if drains && core.drain_deadline().is_some_and(|at| at <= now()) {
            core.control.cut();
        }
        if core.control.is_cut() {
            lot.cut();
        } else if let Some(request) = self.next_queued(lot)? {
            return Ok(Some(AcceptEvent::Request(request)));
        }
        let permits = &core.admission.permits;
        let is_left = || match drains {
            // A request that runs elsewhere may park its connection once more.
            true => permits.active() == 0,
            false => permits.parked() == 0,
        };
        Ok(lot.is_left(|| !self.queue_waits() && is_left()).then_some(AcceptEvent::Stopped))
    }

    /// Accepts a connection that was queued at the stop, if a permit is free.
    fn next_queued(&mut self, lot: &Arc<Lot>) -> Result<Option<Request>> {
        let core = self.core().clone();
        self.acceptor.shared.queued.count(&self.listeners, core.settings.backlog);
        // A permit that comes back from here on wakes a thread.
        lot.await_gate();
        if !self.queue_waits() {
            return Ok(None);
        }
        let Some(permit) = Permit::reserve(&core) else { return Ok(None) };
        Ok(self.accept_queued(permit)?.map(|request| request.with_lot(lot)))
    }

    /// True if connections were queued at the stop, and are not served yet. A paused server serves none.
    fn queue_waits(&self) -> bool {
        !self.core().control.paused() && !self.acceptor.shared.queued.is_empty()
    }

    /// Returns when a thread must look again at a stop, whatever comes.
    fn look_again_at_stop(&self) -> Option<Instant> {
        let again = self.queue_waits().then(|| now() + REST);
        let drain = self.core().drain_deadline().filter(|_| Accepting::is_here());
        again.into_iter().chain(drain).min()
    }
}
