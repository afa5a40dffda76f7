//! Looks for a request without a wait. Between two looks the connection is parked, and no thread is its own.

use std::io;
use std::time::{Duration, Instant};

use super::{would_wait, Deadline, StopNotice, Wire};
use crate::config::{Limit, LimitExceeded};
use crate::connection::input::{cut_off, Input};
use crate::connection::output::Output;
use crate::lifecycle::SlotState;
use crate::sys::socket;

/// How long a connection waits for input, however often it is parked meanwhile.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Patience(Option<(Instant, Limit)>);

impl Patience {
    fn until(by: Option<Deadline>) -> Self {
        Self(by.map(|by| (by.at, by.why.limit)))
    }

    /// Returns the time at which a limit ends the wait.
    pub(crate) fn ends(self) -> Option<Instant> {
        self.0.map(|(at, _)| at)
    }
}

/// How a connection looks for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// At once.
    Now,
    /// For a millisecond or a few: the kernel counts these waits by its ticks.
    Soon,
    /// After it was parked, in the same wait.
    Resumed,
}

/// The wait of [`Look::Soon`].
const SOON: Duration = Duration::from_millis(1);

/// The result of a look for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heard {
    /// Input of a request is buffered.
    Request,
    /// The stream has ended, or the stop ends the connection.
    End,
    /// Nothing has come: park the connection.
    Nothing,
}

impl Heard {
    /// Of a read that has brought this many bytes.
    fn of(bytes: usize) -> Self {
        if bytes == 0 {
            Self::End
        } else {
            Self::Request
        }
    }
}

impl Wire {
    /// Looks for the first byte of a request. Output is sent before.
    pub(in crate::connection) fn hear(
        &self,
        input: &mut Input,
        output: &mut Output,
        patience: &mut Patience,
        look: Look,
    ) -> io::Result<Heard> {
        let progress = self.progress.get();
        if progress.ended {
            return Ok(Heard::End);
        }
        if look != Look::Resumed {
            *patience = Patience::until(self.read_deadline(true));
            // Many pipelined requests are answered in one write: see `recv_ahead`.
            if progress.read_full && !output.is_empty() {
                if let Some(n) = self.take_in(input, true)? {
                    return Ok(Heard::of(n));
                }
            }
        }
        self.flush(output)?;
        if self.is_ended_by_writer() {
            return self.flush_mailbox(output).map(|()| Heard::End);
        }
        if self.is_stopping_idle(true) {
            let n = input.take_in(|buf| self.recv_last(buf).and_then(|n| self.note_read(n, buf.len())).map(Some))?;
            return Ok(Heard::of(n.unwrap_or(0)));
        }
        if look == Look::Soon && self.mailbox.get().is_none() && self.notice == StopNotice::ByRegistry {
            if let Some(n) = self.take_in_soon(input)? {
                return Ok(Heard::of(n));
            }
        } else if look == Look::Resumed || !progress.heard || self.may_have_more() {
            if let Some(n) = self.take_in(input, true)? {
                return Ok(Heard::of(n));
            }
        }
        self.check_patience(*patience)?;
        Ok(Heard::Nothing)
    }

    /// Looks for more of a request. False if nothing has come.
    pub(in crate::connection) fn hear_more(
        &self,
        input: &mut Input,
        output: &mut Output,
        patience: &mut Patience,
        resumed: bool,
    ) -> io::Result<bool> {
        if !resumed {
            *patience = Patience::until(self.read_deadline(false));
        }
        self.flush(output)?;
        if self.is_ended_by_writer() {
            return self.flush_mailbox(output).and_then(|()| Err(cut_off()));
        }
        if resumed || self.may_have_more() {
            match self.take_in(input, false)? {
                Some(0) => return Err(cut_off()),
                Some(_) => return Ok(true),
                None => {}
            }
        }
        self.check_patience(*patience)?;
        Ok(false)
    }

    /// True if more input may be there than the last read has brought. After a short read there is usually none, so
    /// no call is made to look. If there is some after all, the kernel wakes the connection.
    fn may_have_more(&self) -> bool {
        // A session may hold what the kernel does not report. Once it has none, a read says so.
        self.progress.get().read_full || self.tls.get().is_some()
    }

    /// As [`take_in`](Self::take_in), but it waits for a moment.
    fn take_in_soon(&self, input: &mut Input) -> io::Result<Option<usize>> {
        self.arm(&self.armed_read, Deadline::new(Instant::now(), Limit::Read, SOON), socket::set_read_timeout)?;
        let taken = input.take_in(|buf| match self.recv_bytes(buf, true) {
            Ok(n) => self.note_read(n, buf.len()).map(Some),
            Err(e) if would_wait(&e) => Ok(None),
            Err(e) if self.is_end_between(&e, true) => Ok(Some(0)),
            Err(e) => Err(self.read_failed(e)),
        })?;
        self.note(|p| {
            p.ended = taken == Some(0);
            p.read_full &= taken.is_some();
        });
        Ok(taken)
    }

    fn take_in(&self, input: &mut Input, idle: bool) -> io::Result<Option<usize>> {
        let taken = input.take_in(|buf| self.try_recv(buf, idle))?;
        if taken.is_none() {
            self.note(|p| p.read_full = false);
        }
        Ok(taken)
    }

    /// Fails if the wait has lasted for its limit.
    fn check_patience(&self, patience: Patience) -> io::Result<()> {
        match patience.0 {
            Some((at, limit)) if at <= Instant::now() => {
                let after = self.limits().get(limit).unwrap_or_default();
                Err(LimitExceeded { limit, after }.into())
            }
            _ => Ok(()),
        }
    }

    /// Notes that the connection is parked between two requests: from here on, a stop may end the wait. False if the
    /// stop has come already.
    pub(in crate::connection) fn rest(&self) -> bool {
        self.turn(true, SlotState::Busy, self.parked());
        !self.is_stopping_idle(true)
    }

    /// Notes that the connection is taken up again. If the stop has ended the wait, it has shut the reading side.
    pub(in crate::connection) fn rise(&self) {
        let is_registered = self.slot.borrow().is_some();
        if is_registered && !self.turn(true, self.parked(), SlotState::Busy) {
            self.note(|p| p.stopped = true);
        }
    }

    /// Returns the registry state of a parked connection. At a stop its lot ends it, unless it is spared: then the
    /// registry does once the server stops too.
    fn parked(&self) -> SlotState {
        match self.waiting() {
            SlotState::New => SlotState::New,
            _ => SlotState::Parked,
        }
    }

    /// Notes that the stop ends the parked connection.
    pub(in crate::connection) fn stop_parked(&self) {
        self.note(|p| p.stopped = true);
    }

    /// True if a stop ends the connection, which is parked between two requests: nothing has come.
    pub(crate) fn ends_at_stop(&self) -> bool {
        self.is_stopping_idle(true) && !self.has_unread()
    }
}
