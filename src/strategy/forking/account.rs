//! What the end of a child means: for the counters, the log, the observers, and the permit.

use std::io;
use std::time::Instant;

use super::children::{Child, Children};
use super::slots::Verdict;
use crate::observe::{Account, ChildEnd, GreetingFailure, StopPhase};
use crate::sys::process::Status;

impl Children {
    /// Counts and reports how a child has ended, and gives its permit back.
    pub(super) fn account_for(&mut self, mut child: Child, status: Status) {
        // Its last wish may not have been heard yet.
        self.fulfil(&child);
        child.meet(&self.core);
        let end = match child.refused {
            Some(why) => ChildEnd::NotAdmitted(why),
            None => end_of(&child, status),
        };
        self.core.monitor.report_child_end(&child.peer, &end, self.phase_of(&end));
        let was_handled = !matches!(end, ChildEnd::Refused(..) | ChildEnd::NotGreeted(..) | ChildEnd::NotAdmitted(_));
        let (birth, moved, tls) = (child.birth, child.slot.moved(), child.slot.tls());
        let account = Account { birth, moved, proxy: child.proxy, was_handled, tls };
        self.core.monitor.tell_child_end(account, &child.peer, &end);
        // Last: when nothing is in progress, everything is counted.
        drop(child.permit);
    }

    /// Returns how far a stop has come for this child. A child cuts itself at the drain limit, a moment before the
    /// parent does.
    fn phase_of(&self, end: &ChildEnd) -> StopPhase {
        let is_over = || self.core.drain_deadline().is_some_and(|at| at <= Instant::now());
        match self.core.stop_phase() {
            StopPhase::Draining if matches!(end, ChildEnd::TimedOut(_)) && is_over() => StopPhase::Cut,
            phase => phase,
        }
    }
}

/// Returns how a child has ended, by its status and its own words.
fn end_of(child: &Child, status: Status) -> ChildEnd {
    let reason = child.slot.reason();
    let limit = child.ending.map(|(limit, _)| limit);
    match (status, child.slot.verdict()) {
        (Status::Killed(signal), _) => ChildEnd::Killed { signal, limit },
        // A verdict counts only with its own exit code. Another code means that something has called
        // `exit`.
        (Status::Exited(code), Some((verdict, text))) if code == verdict.exit_code() => end_by(verdict, text, reason),
        // The handler has become a program. For the program, 0 is success.
        (Status::Exited(0), None) if child.slot.told.executes() => ChildEnd::Served,
        (Status::Exited(code), _) => ChildEnd::Exited(code),
        // Nobody can know the exit code. The child's own words are left.
        (Status::Gone, Some((verdict, text))) => end_by(verdict, text, reason),
        (Status::Gone, None) => {
            ChildEnd::Failed("its process ended without a report, and other code waited for it first".to_owned())
        }
    }
}

fn end_by(verdict: Verdict, text: String, reason: GreetingFailure) -> ChildEnd {
    match verdict {
        Verdict::Served => ChildEnd::Served,
        Verdict::Failed | Verdict::Unbound => ChildEnd::Failed(text),
        Verdict::TimedOut => ChildEnd::TimedOut(text),
        Verdict::Disconnected => ChildEnd::Disconnected(text),
        Verdict::AtFault => ChildEnd::AtFault(text),
        Verdict::Panicked => ChildEnd::Panicked(text),
        Verdict::Refused => ChildEnd::Refused(io::ErrorKind::PermissionDenied, text),
        Verdict::Unanswered => ChildEnd::Refused(io::ErrorKind::TimedOut, text),
        Verdict::Unasked => ChildEnd::Refused(io::ErrorKind::Other, text),
        Verdict::NotGreeted => ChildEnd::NotGreeted(reason, text),
        // The parent knows that it has refused the client, and why.
        Verdict::NotAdmitted => ChildEnd::Failed(text),
    }
}
