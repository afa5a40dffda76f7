//! [`Unheard`]: the first error of a run, in a program without a logger.
//!
//! A library should not print. But a handler's error that nobody sees costs an evening: the client reads an end of the
//! stream, and the server shows nothing. Python prints each traceback to stderr, and Rust prints panics there. So one
//! line goes there in a run, and says how to see the rest.

use std::io::{self, Write};
use std::sync::Arc;

use log::LevelFilter;

use super::failure::Failure;
use crate::panics::caught;
use crate::sync::atomic::{AtomicBool, Ordering::SeqCst};
use crate::sys::shared::SharedRef;
use crate::sys::stop_switch::StopSwitch;
use crate::sys::wishes::Wish;

/// Whether the first error of this run has been printed.
#[derive(Debug, Clone)]
pub(crate) struct Unheard {
    /// In memory that children and worker processes see too. They ask their parent to set it.
    is_said: SharedRef<AtomicBool>,
    switch: Arc<StopSwitch>,
}

impl Unheard {
    pub(crate) fn new(is_said: SharedRef<AtomicBool>, switch: &Arc<StopSwitch>) -> Self {
        Self { is_said, switch: switch.clone() }
    }

    /// Begins a run: its first error is printed again.
    pub(crate) fn begin(&self) {
        self.is_said.store(false, SeqCst);
    }

    /// Notes that an error has been printed. True if none was before.
    pub(crate) fn note(&self) -> bool {
        // Children that fail in the same moment may each print one.
        match self.switch.in_child() {
            true => !self.is_said.load(SeqCst) && self.switch.wish(Wish::ErrorSaid),
            false => !self.is_said.swap(true, SeqCst),
        }
    }

    /// Prints the failure if it is the first one and no logger can hear it. A panic is not printed: the standard
    /// library's hook has done so.
    pub(super) fn say(&self, failure: &Failure<'_>) {
        let is_panic = matches!(failure, Failure::Panic { .. } | Failure::Hook { .. });
        if is_panic || has_logger() || !self.note() {
            return;
        }
        // `eprintln!` would panic if nobody reads. The text of the error is the user's code, and may panic.
        let _ = caught(|| {
            let line = format!(
                "socketserver: {failure} (the first error; the program has no logger for more: install one, for \
                 example env_logger, or set handle_error)\n"
            );
            io::stderr().write_all(line.as_bytes()) // in one piece: other processes write there too
        });
    }
}

/// True if the program has installed a logger, or has chosen to hear nothing.
fn has_logger() -> bool {
    // The maximum is `Off` until a program sets it, which loggers do. A program may also have a logger that is off
    // (`RUST_LOG=off`). The `log` crate does not tell the two apart, but its own logger, which hears nothing, has no
    // data.
    log::STATIC_MAX_LEVEL == LevelFilter::Off
        || log::max_level() != LevelFilter::Off
        || std::mem::size_of_val(log::logger()) > 0
}
