//! [`Children`]: the parent's table of its children. It reaps children that have ended, and ends children
//! that are over a limit.
//!
//! A child is watched by its pidfd, which is readable when the child ends, or all are heard of by SIGCHLD ([`hear`]).
//! Either way a child is waited for by its own number: `waitpid(-1)` would take the ends of children that the program has
//! started for itself. [`overdue`] has the time limits, [`account`](super::account) what an end means.
//!
//! [`hear`]: super::hear
//! [`overdue`]: super::overdue

use std::cell::Cell;
use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::slots::{Answer, ChildSlot, NewSlots};
use super::table::{Numbered, Table};
use crate::accept::{Kept, Rejected, Request};
use crate::admit::Permit;
use crate::config::Limit;
use crate::lifecycle::{Core, ServerHandle};
use crate::net::{Addr, Birth};
use crate::proxy::{ProxyHeader, Trust};
use crate::sources::SourceRefusal;
use crate::sys::ends::{self, Ends};
use crate::sys::process::{self, PidFd, Private, Status, Timer};
use crate::sys::shared::SharedRef;
use crate::sys::window::Window;
use crate::sys::{fork, signal, Epoll};

/// The timer's token. A child's is its process number.
const TIMER: u64 = u64::MAX;
/// The token of the bell, which children ring when they have a wish.
const BELL: u64 = u64::MAX - 1;
/// The token of SIGCHLD.
pub(super) const ENDS: u64 = u64::MAX - 2;

/// A living child.
pub(super) struct Child {
    /// Readable when it has ended. `None` before it is watched, where SIGCHLD announces its end, and if there was no
    /// descriptor left when SIGCHLD went.
    pub(super) pidfd: Option<PidFd>,
    pub(super) pid: Pid,
    pub(super) peer: Addr,
    pub(super) birth: Birth,
    /// What a proxy has told of it.
    pub(super) proxy: Option<Arc<ProxyHeader>>,
    pub(super) slot: SharedRef<ChildSlot>,
    /// The limit for which it is being ended, and the time of SIGKILL. `None` then: SIGKILL has been sent.
    pub(super) ending: Option<(Limit, Option<Instant>)>,
    /// Given back when the child has ended, however it ends. In the child, a drop of it would free nothing
    /// here.
    pub(super) permit: Permit,
    /// Why its client was not admitted.
    pub(super) refused: Option<SourceRefusal>,
}

impl Numbered for Child {
    fn number(&self) -> i32 {
        self.pid.as_raw()
    }
}

impl Child {
    /// Returns its end, if it has ended.
    fn status(&self) -> Option<Status> {
        match &self.pidfd {
            Some(pidfd) => process::ended(pidfd.as_fd()),
            None => ends::end_of(self.pid),
        }
    }

    /// Sends it a signal, which never reaches another process.
    pub(super) fn signal(&self, signal: Signal) {
        match &self.pidfd {
            Some(pidfd) => process::signal(pidfd.as_fd(), signal),
            // By a descriptor all the same: if something else has waited for it, its number is free.
            None => match PidFd::of_child(self.pid) {
                Ok(pidfd) => pidfd.into_iter().for_each(|pidfd| process::signal(pidfd.as_fd(), signal)),
                // None is free. A child over its limit ends all the same.
                Err(_) => ends::signal(self.pid, signal),
            },
        }
    }

    /// Takes over, once, what the child has been told by a proxy: admits the client, and tells the observers.
    pub(super) fn meet(&mut self, core: &Core) {
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
    pub(super) core: Arc<Core>,
    pub(super) all: Table<Child>,
    /// `None`: each child has a pidfd.
    pub(super) ends: Option<Ends>,
    slots: NewSlots,
    /// What a child sees of the slots: its own.
    window: Window<ChildSlot>,
    pub(super) timer: Private<Timer>,
    /// When the timer is due.
    pub(super) due: Cell<Option<Instant>>,
    /// The mark of the process whose children these are.
    parent: u64,
}

impl Children {
    pub(super) fn new(core: &Arc<Core>, watch: &Epoll) -> io::Result<Self> {
        let timer = Private::new(Timer::new()?);
        watch.add(&timer, TIMER)?;
        watch.add(core.control.pipes()?.bell(), BELL)?;
        let (all, slots, window) = (Table::new()?, NewSlots::default(), Window::new()?);
        let (due, parent) = (Cell::new(None), fork::this_process());
        Ok(Self { core: core.clone(), all, ends: None, slots, window, timer, due, parent })
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
        let made = self.core.control.pipes().and_then(|_| self.all.reserve());
        let slot = match made.and_then(|()| self.slots.take()) {
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

    /// Watches a new child.
    fn watch_child(&mut self, watch: &Epoll, child: Child) {
        let pidfd = match &self.ends {
            Some(_) => Ok(None),
            None => PidFd::open(child.pid).map(Some),
        };
        self.take_in(watch, child, pidfd);
    }

    /// Enters a child, which has a pidfd or is heard of. A child that cannot be watched is not left running.
    pub(super) fn take_in(&mut self, watch: &Epoll, mut child: Child, pidfd: io::Result<Option<PidFd>>) {
        let number = child.number();
        let watched = pidfd.and_then(|fd| {
            fd.iter().try_for_each(|fd| watch.add(fd, number as u64))?;
            Ok(fd)
        });
        match watched {
            Ok(pidfd) => {
                // A second SIGINT or SIGTERM takes it along.
                signal::child_begins(number);
                child.pidfd = pidfd;
                self.all.insert(child);
                self.arm_timer_if_needed();
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
            if ready.contains(&ENDS) {
                self.reap_ended(watch);
            }
            for token in ready.iter().filter(|t| **t < ENDS) {
                self.reap(watch, *token as i32);
            }
            let is_due = ready.contains(&TIMER);
            if is_due {
                self.look_at_all(watch);
            }
            if is_due || self.core.control.is_cut() {
                self.end_late(is_due);
            }
            // Fewer than there is room for: these were all.
            if ready.len() < 32 {
                break;
            }
        }
    }

    #[inline(never)]
    fn hear_wishes(&mut self) {
        if let Some(pipes) = self.core.control.made_pipes() {
            pipes.hear();
        }
        self.all.all().for_each(|child| self.fulfil(child));
        let core = &self.core;
        self.all.all_mut().for_each(|child| child.meet(core));
    }

    pub(super) fn fulfil(&self, child: &Child) {
        let server = ServerHandle { core: self.core.clone() };
        child.slot.wishes.fulfil(|wish| server.fulfil(wish));
    }

    /// Takes the end of a child, if it has ended. False for a process that is no child of ours, or that something else
    /// has waited for.
    pub(super) fn reap(&mut self, watch: &Epoll, number: i32) -> bool {
        let Some(child) = self.all.get(number) else { return false };
        // Before the wait: after it the number may belong to another process, and a second SIGINT would kill
        // that process.
        signal::child_ends(number);
        let Some(status) = child.status() else {
            signal::child_begins(number);
            return true;
        };
        // Before it is closed: a child that is just being forked may hold a copy, which would keep the entry
        // alive.
        child.pidfd.iter().for_each(|pidfd| watch.remove(pidfd));
        if let Some(child) = self.all.remove(number) {
            self.account_for(child, status);
        }
        status != Status::Gone
    }
}

impl Drop for Children {
    fn drop(&mut self) {
        self.all.all().for_each(|child| signal::child_ends(child.number()));
    }
}
