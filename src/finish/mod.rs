//! Stage 5: the one place where a connection, or the request of a datagram, ends and is counted.
//!
//! The walk: [`finish`] → [`Conversation::end`] (flush, close) → drop (the socket is closed) →
//! `Monitor::report_end` (counters, log, hook). A client without a handler goes to [`refuse`]. This folder
//! does not decide what a handler's error means: `observe::Outcome` does.

mod close;
pub(crate) mod plan;

use std::io;
use std::sync::Arc;

use crate::admit::Permit;
use crate::config::AtLimit;
use crate::connection::{Connection, Datagram};
use crate::greeting::GreetingError;
use crate::lifecycle::Core;
use crate::net::{Addr, Arrival};
use crate::observe::{Account, ConnectionOutcome, Outcome};
use crate::sources::SourceRefusal;
use crate::tls::{TlsInfo, ALERT_ACCESS_DENIED, ALERT_INTERNAL_ERROR};

/// A connection or a datagram, as its end needs it.
pub(crate) trait Conversation {
    /// Sends the rest of the output, if the outcome allows it, and closes so that no output is lost. Returns
    /// the outcome; a failed send may have changed it.
    fn end(&mut self, core: &Core, outcome: Outcome) -> Outcome;

    fn peer(&self) -> &Addr;

    /// True if the peer was lost before this side has ended.
    fn has_lost_peer(&self) -> bool;

    /// Takes what observers are told.
    fn account(&mut self) -> Account;

    /// Closes the socket in a child that exits next, whose memory needs no care.
    fn close_in_child(self);
}

impl Conversation for Connection {
    fn end(&mut self, core: &Core, outcome: Outcome) -> Outcome {
        let flushed = self.flush_last();
        close::close(core, self, outcome.is_limit());
        outcome.and(flushed)
    }

    fn peer(&self) -> &Addr {
        self.wire().peer()
    }

    fn has_lost_peer(&self) -> bool {
        self.wire().has_lost_peer()
    }

    fn account(&mut self) -> Account {
        self.take_account()
    }

    fn close_in_child(self) {
        self.into_socket().into_iter().for_each(|socket| crate::sys::close(socket.into()));
    }
}

impl Conversation for Datagram {
    /// Sends the reply only after success: a datagram has no half.
    fn end(&mut self, _core: &Core, outcome: Outcome) -> Outcome {
        let sent = if matches!(outcome, Outcome::Served) { self.send_reply() } else { Ok(()) };
        outcome.and(sent)
    }

    fn peer(&self) -> &Addr {
        self.peer_ref()
    }

    fn has_lost_peer(&self) -> bool {
        self.has_lost_peer()
    }

    fn account(&mut self) -> Account {
        self.take_account()
    }

    /// The socket is the server's.
    fn close_in_child(self) {
        std::mem::forget(self);
    }
}

/// Ends the part of a handler. Its connection closes, unless it goes on elsewhere. Last, the permit comes back.
pub(crate) fn finish_connection(core: &Arc<Core>, connection: Connection, outcome: Outcome, permit: Permit) {
    let Some(berth) = connection.berth() else {
        finish(core, connection, outcome);
        return drop(permit);
    };
    // It is counted when it ends. What its handler did is reported all the same.
    core.monitor.report_uncounted_end(connection.wire().peer(), false, &outcome);
    berth.keep(permit);
    crate::panics::forget(outcome);
}

/// Flushes, closes, counts and reports, whatever the handler did.
pub(crate) fn finish(core: &Arc<Core>, mut conversation: impl Conversation, outcome: Outcome) {
    let outcome = conversation.end(core, outcome);
    let (peer, lost) = (conversation.peer().clone(), conversation.has_lost_peer());
    let account = core.monitor.observes().then(|| conversation.account());
    // Closed before the report: the hook may take long, and the peer waits for the end of the stream.
    drop(conversation);
    core.monitor.report_end(&peer, lost, &outcome, core.stop_phase());
    account.into_iter().for_each(|account| core.monitor.tell_end(account, &peer, lost, &outcome));
    // The error is the user's value, and its drop may panic.
    crate::panics::forget(outcome);
}

/// Flushes and closes in a forked child. `judge` makes the verdict for the parent, which counts and reports.
pub(crate) fn finish_in_child<T>(
    core: &Arc<Core>,
    mut conversation: impl Conversation,
    outcome: Outcome,
    judge: impl FnOnce(&Outcome, bool, Option<TlsInfo>) -> T,
) -> T {
    let outcome = conversation.end(core, outcome);
    let lost = conversation.has_lost_peer();
    let tls = core.monitor.measures().then(|| conversation.account()).and_then(|account| account.tls);
    let judged = judge(&outcome, lost, tls);
    std::mem::forget(outcome);
    conversation.close_in_child();
    judged
}

/// Flushes and closes without a server: nothing is counted or reported.
#[cfg(feature = "testing")]
pub(crate) fn finish_apart(core: &Core, mut connection: Connection, outcome: Outcome) -> Outcome {
    connection.end(core, outcome)
}

/// Closes without a handler, after the user's message if there is one. It never waits for the client, because
/// the accepting thread calls it.
pub(crate) fn refuse(core: &Arc<Core>, mut arrived: impl Arrival, why: &io::Error) {
    *arrived.birth() = core.note_accepted(arrived.peer(), || arrived.local_addr());
    refuse_admitted(core, arrived, why);
}

/// As [`refuse`], for a client that has been counted as accepted.
pub(crate) fn refuse_admitted(core: &Arc<Core>, arrived: impl Arrival, why: &io::Error) {
    let peer = arrived.peer().clone();
    match &core.settings.at_limit {
        // It waits for a record of TLS, and would take a text for a wrong version.
        _ if core.settings.tls.is_some() => arrived.say(&ALERT_INTERNAL_ERROR),
        AtLimit::Refuse(message) if !message.is_empty() => arrived.say(message),
        _ => {}
    }
    let account = account_of(arrived);
    core.monitor.report_refused(&peer, why);
    core.monitor.tell_closed(account, &peer, ConnectionOutcome::Refused, || Some(why));
}

/// Closes a client whose greeting has failed. It sends no message: the client does not listen yet.
pub(crate) fn refuse_ungreeted(core: &Core, arrived: impl Arrival, why: &GreetingError) {
    let peer = arrived.peer().clone();
    let account = account_of(arrived);
    core.monitor.report_not_greeted(&peer, why.reason, &why.error);
    core.monitor.tell_closed(account, &peer, why.reason.into(), || Some(&why.error));
}

/// Closes a client that `verify_request` has refused. It sends no message: the message is for the limit. A client
/// of TLS reads an alert.
pub(crate) fn refuse_unverified(core: &Core, arrived: impl Arrival, why: &io::Error) {
    let peer = arrived.peer().clone();
    if core.settings.tls.is_some() {
        arrived.say(&ALERT_ACCESS_DENIED);
    }
    let account = account_of(arrived);
    core.monitor.report_unverified(&peer, why);
    core.monitor.tell_closed(account, &peer, ConnectionOutcome::Refused, || Some(why));
}

/// Closes a client without a handler, and returns what observers are told.
fn account_of(mut arrived: impl Arrival) -> Account {
    let proxy = arrived.proxy_header().cloned();
    Account { birth: std::mem::take(arrived.birth()), proxy, ..Account::default() }
}

/// Closes a client that was refused for its source, without a message. A client of TLS reads an alert.
pub(crate) fn refuse_source(core: &Core, arrived: impl Arrival, why: SourceRefusal) {
    let peer = arrived.peer().clone();
    if core.settings.tls.is_some() {
        arrived.say(&ALERT_ACCESS_DENIED);
    }
    let account = account_of(arrived);
    core.monitor.report_source(&peer, why);
    core.monitor.tell_closed(account, &peer, ConnectionOutcome::Refused, || Some(why));
}
