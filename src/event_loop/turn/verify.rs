//! Connections that wait for the verdict of `verify_request`, while the loop goes on.
//!
//! The hook may block, so a helper thread calls it. The verdict comes back through the loop's inbox.

use std::io;

use crate::admit::Permit;
use crate::event_loop::state::ports::AcceptedOn;
use crate::event_loop::state::verdicts::PendingVerdict;
use crate::event_loop::state::work::TimerTask;
use crate::event_loop::state::State;
use crate::finish;
use crate::hooks::{self, Verdict};
use crate::net::Accepted;
use crate::panics::forget;

impl State {
    /// Has a helper thread ask the hook. The connection waits aside, with its permit, until `verify_timeout`.
    pub(crate) fn await_verdict(&mut self, accepted_on: AcceptedOn, accepted: Accepted, permit: Permit) {
        let (key, inbox) = (self.verdicts.next, self.loops.inbox.clone());
        self.verdicts.next += 1;
        let tell = move |verdict| {
            // It fails only if the loop is gone, and its connections with it.
            let _ = inbox.send(Box::new(move |cx| cx.state.apply_verdict(key, verdict)));
        };
        match hooks::ask(&self.core, &accepted, tell) {
            Ok(ticket) => {
                let timer =
                    self.time.timers.set(self.time.now, self.core.settings.verify_timeout, TimerTask::Verify(key));
                self.verdicts.all.insert(key, PendingVerdict { accepted_on, accepted, permit, ticket, timer });
            }
            Err(why) => finish::refuse_unverified(&self.core, accepted, &why),
        }
    }

    /// Serves or refuses the connection. A verdict that comes after the time limit finds no connection.
    fn apply_verdict(&mut self, key: u64, verdict: Verdict) {
        let Some(PendingVerdict { accepted_on, accepted, permit, timer, .. }) = self.verdicts.all.remove(&key) else {
            return;
        };
        self.time.timers.cancel(timer);
        match verdict.check() {
            Ok(()) => self.secure(accepted_on, accepted, permit),
            Err(why) => finish::refuse_unverified(&self.core, accepted, &why),
        }
    }

    /// Refuses a connection whose verdict has not come in time.
    pub(crate) fn time_out_verdict(&mut self, key: u64) {
        if let Some(pending) = self.verdicts.all.remove(&key) {
            self.refuse_pending(pending, &hooks::late(&self.core));
        }
    }

    /// Refuses every connection that waits for a verdict, because the loop or the drain ends.
    pub(crate) fn refuse_all_pending(&mut self) {
        for (_, pending) in std::mem::take(&mut self.verdicts.all) {
            self.time.timers.cancel(pending.timer);
            self.refuse_pending(pending, &hooks::server_stops());
        }
    }

    fn refuse_pending(&self, pending: PendingVerdict, why: &io::Error) {
        self.core.verifying.forget(pending.ticket);
        finish::refuse_unverified(&self.core, pending.accepted, why);
        forget(pending.accepted_on);
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;
    use std::rc::Rc;
    use std::sync::mpsc;
    use std::time::Duration;

    use crate::config::ServerSettings;
    use crate::error::HandlerResult;
    use crate::event_loop::primitives::clock::Clock;
    use crate::event_loop::{factory, EventLoop, Peer, Protocol, Reactor, Transport};
    use crate::lifecycle::Hooks;

    /// Ignores its input.
    struct Nothing;

    impl Protocol for Nothing {
        fn data_received(&mut self, _: &mut Transport<'_>, _: &[u8]) -> HandlerResult {
            Ok(())
        }
    }

    #[test]
    fn a_client_that_waits_for_a_verdict_is_served_although_the_port_is_closed() {
        let (release, gate) = mpsc::channel::<()>();
        let gate = parking_lot::Mutex::new(gate);
        let waits = move |_: &_| gate.lock().recv().is_ok();
        let hooks = Hooks { verify_request: Some(Box::new(waits)), ..Hooks::default() };
        let mut reactor =
            Reactor::with_clock(EventLoop::new(), ServerSettings::default(), hooks, Clock::System).unwrap();
        let kept = Rc::new(());
        let holds = kept.clone();
        let serves = factory(move |_: &Peer| {
            let _ = &holds;
            Nothing
        });
        let port = reactor.listen_tcp("127.0.0.1:0", serves).unwrap();
        let _client = TcpStream::connect(port.local_addr().socket_addr().unwrap()).unwrap();
        while reactor.state.verdicts.len() == 0 {
            assert!(reactor.turn(None).unwrap());
        }
        reactor.context().stop_listening(&port);
        let other =
            reactor.listen_tcp("127.0.0.1:0", factory(|_: &Peer| -> Nothing { panic!("not for this one") })).unwrap();
        assert_eq!(other.place.index(), port.place.index(), "another has its place");
        release.send(()).unwrap();
        while reactor.state.verdicts.len() > 0 {
            assert!(reactor.turn(Some(Duration::from_secs(30))).unwrap());
        }
        assert_eq!((reactor.state.conns.len(), Rc::strong_count(&kept)), (1, 1), "and the factory is let go");
    }
}
