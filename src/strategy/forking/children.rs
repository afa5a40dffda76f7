//! [`Children`]: the parent's table of its children. It reaps children that have ended, and ends children
//! that are over a limit.
//!
//! A child is watched by its pidfd. `waitpid(-1)` would take the ends of children that the program has
//! started for itself, and `waitpid(pid)` for each child at each turn is a poll. A pidfd is readable when its
//! child ends, and a signal through it never reaches another process that has got the same number.

use std::cell::Cell;
use std::collections::HashMap;
use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::slots::{Answer, ChildSlot, NewSlots, Verdict};
use crate::accept::{Kept, Rejected, Request};
use crate::admit::Permit;
use crate::config::Limit;
use crate::lifecycle::{Core, ServerHandle};
use crate::net::{Addr, Birth};
use crate::observe::{Account, ChildEnd, GreetingFailure, StopPhase};
use crate::proxy::{ProxyHeader, Trust};
use crate::sources::SourceRefusal;
use crate::sys::process::{self, PidFd, Private, Status, Timer};
use crate::sys::shared::SharedRef;
use crate::sys::window::Window;
use crate::sys::{fork, signal, Epoll};

/// The timer's token. A child's is its process number.
const TIMER: u64 = u64::MAX;
/// The token of the bell, which children ring when they have a wish.
const BELL: u64 = u64::MAX - 1;
/// A child over its limit has this long to end by itself, before SIGTERM.
const AFTER_THE_LIMIT: Duration = Duration::from_millis(250);
/// From SIGTERM to SIGKILL.
const FROM_TERM_TO_KILL: Duration = Duration::from_millis(50);

/// A living child.
struct Child {
    /// Readable when it has ended. `None` only before it is watched.
    pidfd: Option<PidFd>,
    pid: Pid,
    peer: Addr,
    birth: Birth,
    /// What a proxy has told of it.
    proxy: Option<Arc<ProxyHeader>>,
    slot: SharedRef<ChildSlot>,
    /// The limit for which it is being ended, and the time of SIGKILL. `None` then: SIGKILL has been sent.
    ending: Option<(Limit, Option<Instant>)>,
    /// Given back when the child has ended, however it ends. In the child, a drop of it would free nothing
    /// here.
    permit: Permit,
    /// Why its client was not admitted.
    refused: Option<SourceRefusal>,
}

impl Child {
    /// Takes over, once, what the child has been told by a proxy: admits the client, and tells the observers.
    fn meet(&mut self, core: &Core) {
        if self.proxy.is_some() || !self.slot.is_greeted() {
            return;
        }
        // A child that has no proxy may claim to have one, once a hostile client has taken it over.
        let proxies = core.settings.proxy_protocol.as_ref();
        let is_proxy = proxies.is_some_and(|proxies| proxies.trust(self.peer.ip()) == Trust::Proxy);
        if let Some(mut header) = self.slot.header().filter(|_| is_proxy) {
            header.received(self.peer.socket_addr(), Duration::ZERO);
            if let Some(client) = header.client() {
                let proxy = std::mem::replace(&mut self.peer, Addr::Ip(client));
                core.monitor.note_client(&proxy, &self.peer);
                self.refused = self.permit.admit_client(client.ip()).err();
            }
            self.slot.set_answer(if self.refused.is_some() { Answer::Refused } else { Answer::Admitted });
            self.proxy = Some(Arc::new(header));
        }
        core.monitor.tell_opened(&mut self.birth, &self.peer, self.proxy.as_deref());
    }
}

/// The children of one server.
pub(super) struct Children {
    core: Arc<Core>,
    all: HashMap<u64, Child>,
    slots: NewSlots,
    /// What a child sees of the slots: its own.
    window: Window<ChildSlot>,
    timer: Private<Timer>,
    /// When the timer is due.
    due: Cell<Option<Instant>>,
    /// The mark of the process whose children these are.
    parent: u64,
}

impl Children {
    pub(super) fn new(core: &Arc<Core>, watch: &Epoll) -> io::Result<Self> {
        let timer = Private::new(Timer::new()?);
        watch.add(&timer, TIMER)?;
        watch.add(core.control.pipes()?.bell(), BELL)?;
        let (all, slots, window) = (HashMap::new(), NewSlots::default(), Window::new()?);
        let (due, parent) = (Cell::new(None), fork::this_process());
        Ok(Self { core: core.clone(), all, slots, window, timer, due, parent })
    }

    /// True if this process was forked from the one whose children these are. It has not their slots.
    pub(super) fn are_of_another(&self) -> bool {
        !fork::is_this_process(self.parent)
    }

    /// Forks a child for the request. The parent keeps the permit. It closes its copy of the socket without
    /// `shutdown`, which would end the child's too.
    pub(super) fn fork(
        &mut self,
        watch: &Epoll,
        request: Request,
        fork: impl FnOnce(&mut Option<Request>, &Window<ChildSlot>) -> io::Result<Pid>,
    ) -> Result<(), Rejected> {
        // After a stop, the pipe for it is made anew.
        let slot = match self.core.control.pipes().and_then(|_| self.slots.take()) {
            Ok(slot) => slot,
            Err(why) => return Err(Rejected::new(request, why)),
        };
        // Until the child says when its request ends, it has the limit from now on.
        if let Some(limit) = self.core.settings.limits.request {
            slot.told.deadline.store(self.core.control.millis(Instant::now() + limit), SeqCst);
        }
        let mut request = Some(request);
        let forked = self.window.show(&slot).and_then(|()| fork(&mut request, &self.window));
        match (forked, request) {
            (Ok(pid), Some(request)) => {
                let Some(Kept { peer, mut birth, permit }) = request.keep_permit() else { return Ok(()) };
                // The child runs already. Behind a proxy, the client is known later.
                if self.core.settings.proxy_protocol.is_none() {
                    self.core.monitor.tell_opened(&mut birth, &peer, None);
                }
                self.watch_child(
                    watch,
                    Child { pidfd: None, pid, peer, birth, proxy: None, slot, ending: None, permit, refused: None },
                );
                Ok(())
            }
            (Err(why), Some(request)) => {
                self.slots.give_back(slot);
                Err(Rejected::new(request, why))
            }
            (_, None) => Ok(()),
        }
    }

    /// Watches a new child. A child that cannot be watched is not left running.
    fn watch_child(&mut self, watch: &Epoll, mut child: Child) {
        let token = child.pid.as_raw() as u64;
        let watched = PidFd::open(child.pid).and_then(|fd| watch.add(&fd, token).map(|()| fd));
        match watched {
            Ok(fd) => {
                // A second SIGINT or SIGTERM takes it along.
                signal::child_begins(child.pid.as_raw());
                child.pidfd = Some(fd);
                self.all.insert(token, child);
                // A timer that is due already is due before this child can be late.
                if self.core.settings.limits.request.is_some() && self.due.get().is_none() {
                    self.arm_timer();
                }
            }
            // It has ended already, and somebody else has waited for it (or SIGCHLD is ignored).
            Err(e) if e.raw_os_error() == Some(nix::libc::ESRCH) => self.account_for(child, Status::Gone),
            Err(e) => {
                self.core.monitor.report_unwatched_child(&child.peer, &e);
                let status = process::end_now(child.pid);
                self.account_for(child, status);
            }
        }
    }

    /// Reaps children that have ended, and ends children that are over a limit.
    pub(super) fn poll(&mut self, watch: &Epoll) {
        let mut tokens = [0; 32];
        while let Ok(ready) = watch.ready(&mut tokens) {
            if ready.contains(&BELL) {
                self.hear_wishes();
            }
            for token in ready.iter().filter(|t| **t < BELL) {
                self.reap(watch, *token);
            }
            let is_cut = self.core.control.is_cut();
            match ready.contains(&TIMER) {
                true if !is_cut && self.is_late() => self.arm_timer_for(Some(AFTER_THE_LIMIT)),
                false if !is_cut => {}
                _ => self.end_overdue(),
            }
            // Fewer than there is room for: these were all.
            if ready.len() < 32 {
                break;
            }
        }
    }

    fn hear_wishes(&mut self) {
        if let Some(pipes) = self.core.control.made_pipes() {
            pipes.hear();
        }
        self.all.values().for_each(|child| self.fulfil(child));
        let core = &self.core;
        self.all.values_mut().for_each(|child| child.meet(core));
    }

    fn fulfil(&self, child: &Child) {
        let server = ServerHandle { core: self.core.clone() };
        child.slot.wishes.fulfil(|wish| server.fulfil(wish));
    }

    fn reap(&mut self, watch: &Epoll, token: u64) {
        let Some(child) = self.all.get(&token) else { return };
        let Some(pidfd) = &child.pidfd else { return };
        // Before the wait: after it the number may belong to another process, and a second SIGINT would kill
        // that process.
        signal::child_ends(child.pid.as_raw());
        let Some(status) = process::ended(pidfd.as_fd()) else {
            return signal::child_begins(child.pid.as_raw());
        };
        // Before it is closed: a child that is just being forked may hold a copy, which would keep the entry
        // alive.
        watch.remove(pidfd);
        if let Some(child) = self.all.remove(&token) {
            self.account_for(child, status);
        }
    }

    /// Counts and reports how a child has ended, and gives its permit back.
    fn account_for(&mut self, mut child: Child, status: Status) {
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

    /// Sets the timer to the next time at which a child may have to be ended.
    fn arm_timer(&self) {
        self.arm_timer_for(self.time_to_next_end());
    }

    fn arm_timer_for(&self, after: Option<Duration>) {
        self.due.set(after.and_then(|after| Instant::now().checked_add(after)));
        match after {
            Some(after) => drop(self.timer.set(after)),
            None => self.timer.unset(),
        }
    }

    /// True if the timer was heard of late: this process was stopped or frozen, and its children with it, perhaps.
    /// A child that has just gone on gets the time in which it ends by itself. Asked for once for each timer.
    fn is_late(&self) -> bool {
        let late = self.due.take().map_or(Duration::ZERO, |due| due.elapsed());
        late >= AFTER_THE_LIMIT
    }

    fn time_to_next_end(&self) -> Option<Duration> {
        let now = Instant::now();
        let kills = self.all.values().filter_map(|c| c.ending.and_then(|(_, kill_at)| kill_at));
        let kill = kills.min().map(|at| at.saturating_duration_since(now));
        let limit = self.core.settings.limits.request.filter(|_| !self.all.is_empty());
        let overdue = limit.map(|limit| {
            let millis = self.core.control.millis(now);
            let left = |deadline: u64| Duration::from_millis(deadline.saturating_sub(millis)) + AFTER_THE_LIMIT;
            let running = self.all.values().filter(|c| c.ending.is_none()).filter_map(|c| c.slot.deadline());
            // A child whose limit does not run now may begin a request at any moment, unseen. So look in
            // time.
            running.map(left).min().unwrap_or(Duration::MAX).min(limit + AFTER_THE_LIMIT)
        });
        kill.into_iter().chain(overdue).min()
    }

    /// Sends SIGTERM to children over their limit (at the drain limit, to all), and SIGKILL to those that
    /// have had it for a while.
    fn end_overdue(&mut self) {
        let (now, is_cut) = (Instant::now(), self.core.control.is_cut());
        let millis = self.core.control.millis(now);
        let late = |deadline: u64| millis >= deadline.saturating_add(AFTER_THE_LIMIT.as_millis() as u64);
        for child in self.all.values_mut() {
            let Some(pidfd) = &child.pidfd else { continue };
            match child.ending {
                None if is_cut || child.slot.deadline().is_some_and(late) => {
                    process::signal(pidfd.as_fd(), Signal::SIGTERM);
                    let limit = if is_cut { Limit::Drain } else { Limit::Request };
                    child.ending = Some((limit, Some(now + FROM_TERM_TO_KILL)));
                }
                Some((limit, Some(kill_at))) if kill_at <= now => {
                    process::signal(pidfd.as_fd(), Signal::SIGKILL);
                    child.ending = Some((limit, None));
                }
                _ => {}
            }
        }
        self.arm_timer();
    }
}

impl Drop for Children {
    fn drop(&mut self) {
        self.all.values().for_each(|child| signal::child_ends(child.pid.as_raw()));
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
