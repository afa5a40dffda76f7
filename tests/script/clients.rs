//! A factory of clients that keeps a journal.

use socketserver::event_loop::{ConnectError, ConnectFailure, Factory, Peer};
use socketserver::{Context, Protocol};

use super::{Journal, Script};

type OnFailure = Box<dyn Fn(&mut Context<'_>, &ConnectError)>;

type Build = Box<dyn Fn(&Journal) -> Option<Script>>;

/// Notes `start`, `build`, `failed:why` (with `+1s`, if it is tried again) and `stop`; its protocols are scripts that write
/// into the same journal.
pub struct Client {
    journal: Journal,
    build: Build,
    on_failure: OnFailure,
}

impl Client {
    pub fn new(journal: &Journal) -> Self {
        let journal = journal.clone();
        Self { journal, build: Box::new(|journal| Some(Script::new(journal))), on_failure: Box::new(|_, _| ()) }
    }

    pub fn with(mut self, build: impl Fn(&Journal) -> Option<Script> + 'static) -> Self {
        self.build = Box::new(build);
        self
    }

    pub fn on_failure(mut self, act: impl Fn(&mut Context<'_>, &ConnectError) + 'static) -> Self {
        self.on_failure = Box::new(act);
        self
    }
}

impl Factory for Client {
    fn build_protocol(&self, _: &mut Context<'_>, _: &Peer) -> Option<Box<dyn Protocol>> {
        self.journal.add("build");
        (self.build)(&self.journal).map(|script| Box::new(script) as Box<dyn Protocol>)
    }

    fn start_factory(&self, _: &mut Context<'_>) {
        self.journal.add("start");
    }

    fn stop_factory(&self, _: &mut Context<'_>) {
        self.journal.add("stop");
    }

    fn connection_failed(&self, cx: &mut Context<'_>, error: &ConnectError) {
        let kind = match &error.reason {
            ConnectFailure::Resolve(_) => "resolve",
            ConnectFailure::Refused(_) => "refused",
            ConnectFailure::TimedOut(_) => "timed-out",
            ConnectFailure::Stopped => "stopped",
            _ => "system",
        };
        let retry = error.retry_in.map(|delay| format!("+{}s", delay.as_secs_f64())).unwrap_or_default();
        self.journal.add(format!("failed:{kind}{retry}"));
        (self.on_failure)(cx, error);
    }
}
