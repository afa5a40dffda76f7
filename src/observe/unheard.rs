//! [`Unheard`]: the first error of a run, in a program without a logger.
//!
//! A library should not print. But a handler's error that nobody sees costs an evening: the client reads an end of the
//! stream, and the server shows nothing. Python prints each traceback to stderr, and Rust prints panics there. So one
//! line goes there in a run, and says how to see the rest.

use std::io::{self, Write};

use log::LevelFilter;

use super::failure::Failure;
use crate::panics::caught;
use crate::sync::atomic::{AtomicBool, Ordering::SeqCst};
use crate::sys::shared::SharedRef;

/// True once the first error of this run has been printed, in memory that worker processes see too.
#[derive(Debug, Clone)]
pub(crate) struct Unheard(SharedRef<AtomicBool>);

impl Unheard {
    pub(crate) fn new(is_said: SharedRef<AtomicBool>) -> Self {
        Self(is_said)
    }

    /// Begins a run: its first error is printed again.
    pub(crate) fn begin(&self) {
        self.0.store(false, SeqCst);
    }

    /// Prints the failure if it is the first one and no logger can hear it. A panic is not printed: the standard
    /// library's hook has done so.
    pub(super) fn say(&self, failure: &Failure<'_>) {
        let is_panic = matches!(failure, Failure::Panic { .. } | Failure::Hook { .. });
        if is_panic || has_logger() || self.0.swap(true, SeqCst) {
            return;
        }
        // `eprintln!` would panic if nobody reads. The text of the error is the user's code, and may panic.
        let _ = caught(|| {
            writeln!(
                io::stderr(),
                "socketserver: {failure} (the first error; the program has no logger for more: install one, for \
                 example env_logger, or set handle_error)"
            )
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
