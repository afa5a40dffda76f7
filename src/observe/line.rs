//! The one place where a line goes to the log.

use std::fmt;

use log::Level;

use crate::panics::caught;

/// Writes a line to the program's logger. A panic of the logger is contained: it may print to a pipe without
/// a reader, and must not end the serving thread. Without a logger, [`Unheard`](super::unheard::Unheard) prints
/// the first error of a run.
pub(crate) fn log_line(level: Level, target: &str, text: fmt::Arguments<'_>) {
    let _ = caught(|| log::log!(target: target, level, "{text}"));
}
