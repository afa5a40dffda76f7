//! What a connection that is served request by request does between its requests.

use std::io;
use std::sync::Weak;

use super::{Connection, Heard, Look, Patience, Poke};

impl Connection {
    /// Fails if a handler that serves request by request has read nothing of its request. It would be called for ever.
    pub(crate) fn check_progress(&mut self) -> io::Result<()> {
        self.input.check_progress()
    }

    /// Waits for more of a request than is buffered.
    pub(crate) fn wait_for_more(&mut self) -> io::Result<()> {
        self.input.wait_for_more(&self.wire, &self.output, self.request_limit())
    }

    /// As [`next_request`](Self::next_request), but without a wait, or with a short one.
    pub(crate) fn hear(&mut self, patience: &mut Patience, look: Look) -> io::Result<Heard> {
        let Self { input, output, wire } = self;
        if look != Look::Resumed {
            wire.mark_requests();
            wire.between_requests();
        }
        let heard = match input.is_empty() {
            true => wire.hear(input, output.get_mut(), patience, look),
            false => Ok(Heard::Request),
        };
        // After an error too, or the request limit would be off for good.
        if !matches!(heard, Ok(Heard::Nothing)) {
            wire.request_begins();
        }
        heard
    }

    /// As [`wait_for_more`](Self::wait_for_more), but without a wait. False if nothing has come.
    pub(crate) fn hear_more(&mut self, patience: &mut Patience, resumed: bool) -> io::Result<bool> {
        self.input.check_length(self.request_limit())?;
        let Self { input, output, wire } = self;
        wire.hear_more(input, output.get_mut(), patience, resumed)
    }

    fn request_limit(&self) -> usize {
        self.wire.server().core.settings.request_limit
    }

    /// Gives the buffers back, before the connection is parked. `between` two requests a stop may end it from here on;
    /// false if the stop has come already.
    pub(crate) fn rest(&mut self, between: bool) -> bool {
        self.input.fold();
        self.output.get_mut().fold();
        !between || self.wire.rest()
    }

    /// Takes buffers, after the connection was parked.
    pub(crate) fn rise(&mut self, between: bool) {
        self.output.get_mut().unfold();
        if between {
            self.wire.rise();
        }
    }

    /// The stop ends the connection, which is parked between two requests.
    pub(crate) fn stop_parked(&mut self) {
        self.rise(true);
        self.wire.stop_parked();
    }

    /// From here on, a message of another thread has the connection taken up, if it is parked.
    pub(crate) fn poke_by(&self, lot: impl FnOnce() -> Weak<dyn Poke>) {
        self.wire.poke_by(lot);
    }

    /// True if a message of another thread has not been sent yet.
    pub(crate) fn has_messages(&self) -> bool {
        self.wire.has_messages()
    }
}
