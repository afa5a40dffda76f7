//! Connections that are greeted, while the loop goes on with the others.
//!
//! They are no connections of the loop yet: no protocol, no buffer, no id that a callback could learn. So
//! `connection_made` comes after the greeting, by the order of the calls and without a rule of its own.

use crate::admit::Permit;
use crate::event_loop::primitives::slab::Place;
use crate::event_loop::primitives::token;
use crate::event_loop::state::greetings::{GreetingStep, PendingGreeting};
use crate::event_loop::state::ports::AcceptedOn;
use crate::event_loop::state::work::TimerTask;
use crate::event_loop::state::State;
use crate::finish;
use crate::greeting::{apply_header, expect_proxy, GreetingError, Progress, Step, TlsStep};
use crate::net::Accepted;
use crate::observe::GreetingFailure;
use crate::panics::forget;
use crate::proxy::ProxyProtocol;
use crate::sys::Readiness;

impl State {
    /// Begins to read the header of a proxy.
    pub(crate) fn expect_header(
        &mut self,
        proxies: &ProxyProtocol,
        accepted_on: AcceptedOn,
        accepted: Accepted,
        permit: Permit,
    ) {
        match expect_proxy(proxies, &accepted.peer) {
            // Most proxies send the header at once: then nothing is watched at all.
            Ok(Some(step)) => self.begin_greeting(accepted_on, accepted, permit, GreetingStep::Header(step)),
            Ok(None) => self.verify(accepted_on, accepted, permit),
            Err(why) => finish::refuse_ungreeted(&self.core, accepted, &why),
        }
    }

    /// Begins the handshake of TLS, or serves a connection without.
    pub(crate) fn secure(&mut self, accepted_on: AcceptedOn, accepted: Accepted, permit: Permit) {
        let Some(config) = &self.core.settings.tls else { return self.serve(accepted_on, accepted, permit) };
        match TlsStep::new(config) {
            Ok(step) => self.begin_greeting(accepted_on, accepted, permit, GreetingStep::Tls(step)),
            Err(why) => finish::refuse_ungreeted(&self.core, accepted, &why),
        }
    }

    fn begin_greeting(&mut self, accepted_on: AcceptedOn, accepted: Accepted, permit: Permit, step: GreetingStep) {
        let since = self.time.now;
        let pending = PendingGreeting { accepted_on, accepted, permit, step, since, writes: false, timer: None };
        let place = self.greetings.insert(pending);
        self.advance_greeting(place);
    }

    /// Handles the event of a socket that is greeted.
    pub(crate) fn hear_greeting(&mut self, token: u64) {
        self.advance_greeting(self.greetings.id(token & !token::GREETINGS));
    }

    /// Goes on with a greeting, as far as its bytes have come.
    fn advance_greeting(&mut self, place: Place) {
        let Some(pending) = self.greetings.get_mut(place) else { return };
        let progress = match &mut pending.step {
            GreetingStep::Header(step) => step.advance(&pending.accepted.socket),
            GreetingStep::Tls(step) => step.advance(&pending.accepted.socket),
        };
        match progress {
            Ok(Progress::Done) => self.end_greeting(place),
            Ok(progress) => {
                if let Err(why) = self.watch_greeting(place, progress == Progress::WantsWrite) {
                    self.refuse_greeting(place, &why);
                }
            }
            Err(why) => self.refuse_greeting(place, &why),
        }
    }

    /// Watches the socket of a greeting, from its first wait on. A stop ends the wait.
    fn watch_greeting(&mut self, place: Place, writes: bool) -> Result<(), GreetingError> {
        if self.stop.drain.is_some() && !self.core.spares_newcomers() {
            return Err(GreetingError::stopped());
        }
        let Some(pending) = self.greetings.get_mut(place) else { return Ok(()) };
        let (socket, token) = (&pending.accepted.socket, token::GREETINGS | place.token());
        let wanted = Readiness { read: !writes, write: writes, ..Readiness::default() };
        let watched = match pending.timer {
            None => self.poller.add(socket, wanted, token),
            Some(_) if writes != pending.writes => self.poller.modify(socket, wanted, token),
            Some(_) => return Ok(()),
        };
        watched.map_err(|e| GreetingError::new(GreetingFailure::System, e))?;
        pending.writes = writes;
        let limit = self.core.settings.handshake_timeout.saturating_sub(pending.accepted.waited());
        let timers = &mut self.time.timers;
        pending.timer.get_or_insert_with(|| timers.set(self.time.now, limit, TimerTask::Greeting(place)));
        Ok(())
    }

    /// Goes on with a connection whose step is done.
    fn end_greeting(&mut self, place: Place) {
        let Some(pending) = self.take_greeting(place) else { return };
        let PendingGreeting { accepted_on, mut accepted, permit, step, since, .. } = pending;
        match step {
            GreetingStep::Header(mut step) => {
                let waited = self.time.now.saturating_duration_since(since);
                step.take().into_iter().for_each(|header| apply_header(&self.core, &mut accepted, header, waited));
                self.verify(accepted_on, accepted, permit);
            }
            GreetingStep::Tls(step) => {
                accepted.tls = step.into_session();
                self.serve(accepted_on, accepted, permit);
            }
        }
    }

    /// Takes a greeting out. Its socket is watched no more: the next part of the loop watches it anew.
    fn take_greeting(&mut self, place: Place) -> Option<PendingGreeting> {
        let pending = self.greetings.remove(place)?;
        if let Some(timer) = pending.timer {
            self.time.timers.cancel(timer);
            self.poller.remove(&pending.accepted.socket);
        }
        Some(pending)
    }

    fn refuse_greeting(&mut self, place: Place, why: &GreetingError) {
        let Some(PendingGreeting { accepted_on, accepted, permit, .. }) = self.take_greeting(place) else { return };
        finish::refuse_ungreeted(&self.core, accepted, why);
        drop(permit);
        forget(accepted_on);
    }

    /// Refuses a connection that has taken too long to begin.
    pub(crate) fn time_out_greeting(&mut self, place: Place) {
        self.refuse_greeting(place, &GreetingError::timed_out(&self.core));
    }

    /// Ends the waits of all greetings at a stop, after a last look at each. A worker that ends alone spares them.
    pub(crate) fn end_greetings_at_stop(&mut self) {
        self.greetings.ids().into_iter().for_each(|place| self.advance_greeting(place));
    }

    /// Refuses every connection that is greeted, because the loop or the drain ends.
    pub(crate) fn refuse_all_greetings(&mut self) {
        let ids = self.greetings.ids();
        ids.into_iter().for_each(|place| self.refuse_greeting(place, &GreetingError::stopped()));
    }
}
