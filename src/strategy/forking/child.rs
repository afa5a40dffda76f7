//! The child: it lets go of what is the parent's, serves, and says how that went.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use super::slots::{Answer, ChildSlot, Verdict};
use super::Forking;
use crate::accept::Request;
use crate::config::LAST_LOOK;
use crate::greeting::GreetingError;
use crate::lifecycle::Core;
use crate::observe::{Cause, GreetingFailure, Outcome};
use crate::panics::caught;
use crate::sys::limits::restore_descriptors;
use crate::sys::process;
use crate::sys::shared::{let_go, SharedRef};

/// The first pause of a child that waits for its parent's answer. The parent usually answers before that.
const FIRST_PAUSE: Duration = Duration::from_micros(50);

/// Serves the connection. Returns the exit code.
///
/// Nothing unwinds out of here. Nothing that is the parent's is dropped, the request with its permit least of
/// all: the caller exits.
pub(super) fn run(request: &mut Option<Request>, slot: &SharedRef<ChildSlot>, strategy: &Forking, parent: i32) -> i32 {
    let verdict = caught(|| serve(request, slot, strategy, parent)).unwrap_or_else(|message| {
        slot.set_verdict(Verdict::Panicked, &format!("outside of the handler: {message}"));
        Verdict::Panicked
    });
    verdict.exit_code()
}

fn serve(request: &mut Option<Request>, slot: &SharedRef<ChildSlot>, strategy: &Forking, parent: i32) -> Verdict {
    let Some(core) = request.as_ref().and_then(Request::core).cloned() else { return Verdict::Failed };

    // Let go of memory and descriptors, before any code of the user's runs. The reply to a datagram
    // leaves from the server's socket, so that socket stays.
    if let Err(e) = let_go(&[slot.on_pages()]) {
        slot.set_verdict(Verdict::Unbound, &format!("the memory of the parent could not be let go: {e}"));
        return Verdict::Unbound;
    }
    let shared = request.as_ref().and_then(Request::shared_socket);
    core.monitor.become_child();
    core.control.become_child(&slot.map(|slot| &slot.wishes), shared.as_ref().map(AsFd::as_fd));

    // The server may have raised its limit on descriptors for its own sake. The child gets back what the
    // process was started with, and what it executes is not surprised.
    let restored = if strategy.bounds.files.is_none() { restore_descriptors() } else { Ok(()) };
    if let Err(e) = restored.and_then(|()| strategy.bounds.apply()) {
        slot.set_verdict(Verdict::Unbound, &format!("the bounds of the child could not be set: {e}"));
        return Verdict::Unbound;
    }
    // A worker that dies takes its connections along, as its master has counted. (After the bounds: a change
    // of user forgets it.)
    if core.is_worker() && process::die_with(parent).is_err() {
        return Verdict::Failed;
    }
    if let Some(hook) = &strategy.after_fork {
        hook();
    }

    // From here on the request belongs to the child, and only its permit to the parent.
    let Some(mut request) = request.take() else { return Verdict::Failed };
    if let Err(verdict) = let_in(&core, &mut request, slot, parent) {
        // The permit is the parent's. Dropped here, it would count as given back.
        request.keep_permit();
        return verdict;
    }
    let judged = request.run_in_child(slot.map(|slot| &slot.told), |outcome, lost, tls| {
        // It may have begun within the conversation.
        tls.into_iter().for_each(|info| slot.set_tls(&info));
        let (verdict, text) = judge(outcome, lost);
        slot.set_verdict(verdict, &text);
        verdict
    });
    judged.unwrap_or(Verdict::Failed)
}

/// Does what comes before the handler: the proxy's header, admission, `verify_request`, and TLS. Writes why the client is
/// not let in.
fn let_in(core: &Core, request: &mut Request, slot: &ChildSlot, parent: i32) -> Result<(), Verdict> {
    let not_greeted = |why: GreetingError| {
        slot.set_reason(why.reason);
        slot.set_verdict(Verdict::NotGreeted, &why.error.to_string());
        Verdict::NotGreeted
    };
    request.greet_in_child(&slot.told.deadline).map_err(not_greeted)?;
    tell_greeted(request, slot);
    if request.has_come_by_proxy() && core.admission.sources.is_some() {
        await_answer(core, slot, parent)?;
    }
    request.verify_in_child(&slot.told.deadline).map_err(|why| {
        let verdict = match why.kind() {
            io::ErrorKind::PermissionDenied => Verdict::Refused,
            io::ErrorKind::TimedOut => Verdict::Unanswered,
            _ => Verdict::Unasked,
        };
        slot.set_verdict(verdict, &why.to_string());
        verdict
    })?;
    request.secure_in_child(&slot.told.deadline).map_err(not_greeted)?;
    request.tls().into_iter().for_each(|info| slot.set_tls(&info));
    Ok(())
}

/// Tells the parent, which has accepted a proxy, of the client: for its log, and at once if it has observers.
fn tell_greeted(request: &Request, slot: &ChildSlot) {
    let Some(core) = request.core().filter(|core| core.settings.proxy_protocol.is_some()) else { return };
    slot.set_greeted(request.proxy_header());
    if core.monitor.measures() || core.admission.sources.is_some() {
        core.control.made_pipes().into_iter().for_each(|pipes| pipes.ring());
    }
}

/// Waits for the parent, which has been told of the client: whether it is admitted for its source.
fn await_answer(core: &Core, slot: &ChildSlot, parent: i32) -> Result<(), Verdict> {
    let until = Instant::now() + core.settings.handshake_timeout;
    let mut pause = FIRST_PAUSE;
    loop {
        match slot.answer() {
            Some(Answer::Admitted) => return Ok(()),
            Some(Answer::Refused) => {
                slot.set_verdict(Verdict::NotAdmitted, "");
                return Err(Verdict::NotAdmitted);
            }
            // Without a parent there are no counts, and no further clients.
            None if process::parent() != parent => return Ok(()),
            None => {}
        }
        if Instant::now() >= until || core.control.is_cut() {
            slot.set_reason(GreetingFailure::TimedOut);
            slot.set_verdict(Verdict::NotGreeted, "its process has not heard whether its source is admitted");
            return Err(Verdict::NotGreeted);
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(LAST_LOOK);
    }
}

fn judge(outcome: &Outcome, lost: bool) -> (Verdict, String) {
    match outcome {
        Outcome::Served => (Verdict::Served, String::new()),
        Outcome::Panicked(message) => (Verdict::Panicked, message.clone()),
        Outcome::NotServed(why) => (Verdict::Unasked, why.to_string()),
        Outcome::Failed(error) => {
            let verdict = match Cause::of(&**error, lost) {
                Cause::Handler => Verdict::Failed,
                Cause::Limit => Verdict::TimedOut,
                Cause::Peer => Verdict::Disconnected,
                Cause::PeerFault => Verdict::AtFault,
            };
            (verdict, error.to_string())
        }
    }
}
