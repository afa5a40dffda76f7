//! Panics of the user's code: [`caught`] contains them, [`forget`] drops values whose drop may panic too.
//!
//! A server outlives the mistakes of its handlers: a panic ends one connection. An abort, a segfault or a
//! stack overflow ends the process.

use std::any::Any;
use std::panic::{catch_unwind, AssertUnwindSafe};

/// Runs the user's code. A panic in it becomes its text.
pub(crate) fn caught<R>(code: impl FnOnce() -> R) -> Result<R, String> {
    catch_unwind(AssertUnwindSafe(code)).map_err(take_message)
}

/// Returns the text of a panic, and drops the payload with care.
pub(crate) fn take_message(payload: Box<dyn Any + Send>) -> String {
    let message = panic_message(payload.as_ref());
    forget(payload);
    message
}

/// Returns the text of a panic, or `(a panic without a text)`.
pub(crate) fn panic_message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("(a panic without a text)").to_owned()
}

/// Drops a value of the user (an error, the payload of a panic), whose drop may panic. The payload of the
/// second panic is leaked: its drop could panic again, and end the thread.
pub(crate) fn forget<T>(value: T) {
    if let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(value))) {
        std::mem::forget(second);
    }
}
