//! Stage 5: the one place where a connection or a datagram's request ends, and where it is accounted for.

mod close;

use std::io;
use std::sync::Arc;

use crate::config::AtLimit;
use crate::connection::{Connection, Datagram};
use crate::lifecycle::Core;
use crate::net::{Addr, Arrival};
use crate::observe::Outcome;

/// What a handler has talked through, as its end needs it.
pub(crate) trait Conversation {
    /// Sends what is left, as the outcome says, and lets go of the peer with care; what that makes of the outcome.
    fn end(&mut self, core: &Core, outcome: Outcome) -> Outcome;

    fn peer(&self) -> &Addr;

    /// Whether the peer has met its end before ours.
    fn has_lost_peer(&self) -> bool;
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
}

impl Conversation for Datagram {
    /// There is no half of a reply: it goes after success only.
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
}

/// Sends what is left, closes, counts and reports: whatever the handler did.
pub(crate) fn finish(core: &Arc<Core>, mut conversation: impl Conversation, outcome: Outcome) {
    let outcome = conversation.end(core, outcome);
    let (peer, lost) = (conversation.peer().clone(), conversation.has_lost_peer());
    drop(conversation); // before the hook, which may take its time
    core.monitor.report_end(&peer, lost, &outcome, core.stop_phase());
    crate::panics::forget(outcome);
}

/// The same in a forked child, whose parent counts and reports: what `judge` makes of it.
pub(crate) fn finish_in_child<T>(
    core: &Arc<Core>,
    mut conversation: impl Conversation,
    outcome: Outcome,
    judge: impl FnOnce(&Outcome, bool) -> T,
) -> T {
    let outcome = conversation.end(core, outcome);
    let judged = judge(&outcome, conversation.has_lost_peer());
    std::mem::forget(outcome);
    judged
}

/// The same without a server: nothing is counted or reported.
#[cfg(feature = "testing")]
pub(crate) fn finish_apart(core: &Core, mut connection: Connection, outcome: Outcome) -> Outcome {
    connection.end(core, outcome)
}

/// Closes without a handler, after the user's message if there is one. Never waits: the accepting thread calls it.
pub(crate) fn refuse(core: &Arc<Core>, arrived: impl Arrival, why: &io::Error) {
    core.note_accepted(arrived.peer());
    refuse_admitted(core, arrived, why);
}

/// As [`refuse`], for what has been counted as accepted.
pub(crate) fn refuse_admitted(core: &Arc<Core>, arrived: impl Arrival, why: &io::Error) {
    let peer = arrived.peer().clone();
    if let AtLimit::Refuse(message) = &core.settings.at_limit {
        if !message.is_empty() {
            arrived.say(message);
        }
    }
    drop(arrived);
    core.monitor.report_refused(&peer, why);
}

/// Closes what `verify_request` does not let in. No message: that is for the limit.
pub(crate) fn refuse_unverified(core: &Core, arrived: impl Arrival, why: &io::Error) {
    let peer = arrived.peer().clone();
    drop(arrived);
    core.monitor.report_unverified(&peer, why);
}
