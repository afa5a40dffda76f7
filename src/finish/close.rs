//! The close of a connection, so that no output is lost.
//!
//! If a socket is closed with unread input, the kernel sends a reset, which destroys the output that the peer
//! has not read yet. So the writing side is shut first, and the input is read and thrown away, within bounds.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Instant;

use crate::config::{FIRST_LOOK, LAST_LOOK, LINGER_IDLE};
use crate::connection::{Connection, Ending};
use crate::finish::plan::{plan, Close, Facts};
use crate::lifecycle::Core;
use crate::sys::{self, socket};

/// Closes the connection. Its output has been flushed, as far as that was possible.
pub(super) fn close(core: &Core, connection: &mut Connection, is_limit: bool) {
    let wire = connection.wire();
    let facts = Facts {
        is_lost: wire.is_broken() || wire.ending() == Ending::Reset,
        is_cut: core.control.is_cut(),
        // A stop shuts the reading side of an idle connection, which then reads as ended. Its peer has not
        // ended.
        has_ended: wire.has_ended() && !wire.is_stopped(),
        is_stopped: wire.is_stopped(),
        leaves_unread: wire.ending() == Ending::LeavesUnread,
        is_limit,
    };
    // An error of a wait is ignored: the socket is closed next.
    let _ = match plan(core.settings.lingering_close, facts, || wire.has_unread()) {
        Close::AtOnce => Ok(()),
        Close::Reset => socket::reset_at_close(wire.as_fd()),
        Close::WhenAcknowledged { within } => wait_acknowledged(core, connection, Instant::now() + within),
        Close::Linger { within } => linger(core, connection, Instant::now() + within),
    };
}

/// Shuts the writing side, and reads until the peer ends, is silent for too long, or takes too long in all.
fn linger(core: &Core, connection: &mut Connection, by: Instant) -> io::Result<()> {
    let (scratch, wire) = connection.scratch();
    let fd = wire.as_fd();
    socket::shut_write(fd.as_raw_fd())?;
    let mut idle = Instant::now() + LINGER_IDLE;
    loop {
        match socket::recv(fd.as_raw_fd(), scratch, false) {
            Ok(0) => return Ok(()),
            Ok(_) => idle = Instant::now() + LINGER_IDLE,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => return Err(e),
        }
        let now = Instant::now();
        let until = nearest(core, idle.min(by));
        if until <= now {
            return Ok(());
        }
        let control = &core.control;
        // During a drain the wait ends for the urgent stop only; the drain limit is in `until` already.
        let stop = if !control.stopping() { Some(control.stop_fd()) } else { control.urgent() };
        sys::poll([Some(fd), stop], None, Some(until - now))?;
    }
}

/// Waits until the peer's kernel has acknowledged all output (`SIOCOUTQ` is zero). No event reports that, so
/// the kernel is asked from time to time: after 1 ms at first, after 50 ms at last. (A Unix socket delivers
/// at once.)
fn wait_acknowledged(core: &Core, connection: &Connection, by: Instant) -> io::Result<()> {
    if !connection.wire().is_tcp() {
        return Ok(());
    }
    let mut pause = FIRST_LOOK;
    while socket::unacknowledged(connection.as_fd())? > 0 && Instant::now() < nearest(core, by) {
        std::thread::sleep(pause);
        pause = (pause * 2).min(LAST_LOOK);
    }
    socket::shut_write(connection.as_fd().as_raw_fd())
}

/// Returns the earlier of `by` and the drain limit.
fn nearest(core: &Core, by: Instant) -> Instant {
    core.drain_deadline().map_or(by, |drain| drain.min(by))
}
